package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The requests as Watch counts them. Each method only hands on; FORGET and the calls that this filesystem leaves to the kernel are not here.

const (
	opLookup op = iota
	opGetAttr
	opSetAttr
	opStatx
	opAccess
	opReadlink
	opMknod
	opMkdir
	opSymlink
	opLink
	opUnlink
	opRmdir
	opRename
	opGetXAttr
	opSetXAttr
	opListXAttr
	opRemoveXAttr
	opCreate
	opTmpfile
	opOpen
	opRead
	opWrite
	opCopyFileRange
	opLseek
	opFallocate
	opIoctl
	opFlush
	opFsync
	opOpenDir
	opReadDir
	opReadDirPlus
	opFsyncDir
	opStatFs
	opRelease
	opReleaseDir
	opCount
)

// String is the kernel's name of the request.
func (o op) String() string {
	return [opCount]string{
		opLookup:        "LOOKUP",
		opGetAttr:       "GETATTR",
		opSetAttr:       "SETATTR",
		opStatx:         "STATX",
		opAccess:        "ACCESS",
		opReadlink:      "READLINK",
		opMknod:         "MKNOD",
		opMkdir:         "MKDIR",
		opSymlink:       "SYMLINK",
		opLink:          "LINK",
		opUnlink:        "UNLINK",
		opRmdir:         "RMDIR",
		opRename:        "RENAME",
		opGetXAttr:      "GETXATTR",
		opSetXAttr:      "SETXATTR",
		opListXAttr:     "LISTXATTR",
		opRemoveXAttr:   "REMOVEXATTR",
		opCreate:        "CREATE",
		opTmpfile:       "TMPFILE",
		opOpen:          "OPEN",
		opRead:          "READ",
		opWrite:         "WRITE",
		opCopyFileRange: "COPY_FILE_RANGE",
		opLseek:         "LSEEK",
		opFallocate:     "FALLOCATE",
		opIoctl:         "IOCTL",
		opFlush:         "FLUSH",
		opFsync:         "FSYNC",
		opOpenDir:       "OPENDIR",
		opReadDir:       "READDIR",
		opReadDirPlus:   "READDIRPLUS",
		opFsyncDir:      "FSYNCDIR",
		opStatFs:        "STATFS",
		opRelease:       "RELEASE", opReleaseDir: "RELEASEDIR",
	}[o]
}

func (w *Watch) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s := w.RawFileSystem.Lookup(cancel, h, name, out)
	if w.again(s) {
		s = w.RawFileSystem.Lookup(cancel, h, name, out)
	}
	return w.answer(opLookup, h.NodeId, name, -1, s)
}

func (w *Watch) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return w.answer(opGetAttr, in.NodeId, "", -1, w.RawFileSystem.GetAttr(cancel, in, out))
}

func (w *Watch) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer w.change()()
	return w.answer(opSetAttr, in.NodeId, "", -1, w.RawFileSystem.SetAttr(cancel, in, out))
}

func (w *Watch) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	return w.answer(opStatx, in.NodeId, "", -1, w.RawFileSystem.Statx(cancel, in, out))
}

func (w *Watch) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	return w.answer(opAccess, in.NodeId, "", -1, w.RawFileSystem.Access(cancel, in))
}

func (w *Watch) Readlink(cancel <-chan struct{}, h *fuse.InHeader) (out []byte, s fuse.Status) {
	out, s = w.RawFileSystem.Readlink(cancel, h)
	return out, w.answer(opReadlink, h.NodeId, "", -1, s)
}

func (w *Watch) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	defer w.change()()
	return w.answer(opMknod, in.NodeId, name, -1, w.RawFileSystem.Mknod(cancel, in, name, out))
}

func (w *Watch) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	defer w.change()()
	return w.answer(opMkdir, in.NodeId, name, -1, w.RawFileSystem.Mkdir(cancel, in, name, out))
}

func (w *Watch) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	defer w.change()()
	return w.answer(opSymlink, h.NodeId, name, -1, w.RawFileSystem.Symlink(cancel, h, target, name, out))
}

func (w *Watch) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	defer w.change()()
	return w.answer(opLink, in.NodeId, name, -1, w.RawFileSystem.Link(cancel, in, name, out))
}

func (w *Watch) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer w.change()()
	return w.answer(opUnlink, h.NodeId, name, -1, w.RawFileSystem.Unlink(cancel, h, name))
}

func (w *Watch) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer w.change()()
	return w.answer(opRmdir, h.NodeId, name, -1, w.RawFileSystem.Rmdir(cancel, h, name))
}

func (w *Watch) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, to string) fuse.Status {
	defer w.change()()
	return w.answer(opRename, in.NodeId, name, -1, w.RawFileSystem.Rename(cancel, in, name, to))
}

func (w *Watch) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (n uint32, s fuse.Status) {
	n, s = w.RawFileSystem.GetXAttr(cancel, h, attr, dest)
	return n, w.answer(opGetXAttr, h.NodeId, "", -1, s)
}

func (w *Watch) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	defer w.change()()
	return w.answer(opSetXAttr, in.NodeId, "", -1, w.RawFileSystem.SetXAttr(cancel, in, attr, data))
}

func (w *Watch) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (n uint32, s fuse.Status) {
	n, s = w.RawFileSystem.ListXAttr(cancel, h, dest)
	return n, w.answer(opListXAttr, h.NodeId, "", -1, s)
}

func (w *Watch) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	defer w.change()()
	return w.answer(opRemoveXAttr, h.NodeId, "", -1, w.RawFileSystem.RemoveXAttr(cancel, h, attr))
}

func (w *Watch) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	defer w.change()()
	s := w.RawFileSystem.Create(cancel, in, name, out)
	if w.again(s) {
		s = w.RawFileSystem.Create(cancel, in, name, out)
	}
	return w.answer(opCreate, in.NodeId, name, -1, s)
}

func (w *Watch) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	defer w.change()()
	return w.answer(opTmpfile, in.NodeId, "", -1, w.RawFileSystem.Tmpfile(cancel, in, out))
}

func (w *Watch) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if writable(in.Flags) || in.Flags&unix.O_TRUNC != 0 {
		defer w.change()()
	}
	s := w.RawFileSystem.Open(cancel, in, out)
	if w.again(s) {
		s = w.RawFileSystem.Open(cancel, in, out)
	}
	return w.answer(opOpen, in.NodeId, "", -1, s)
}

func (w *Watch) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (r fuse.ReadResult, s fuse.Status) {
	r, s = w.RawFileSystem.Read(cancel, in, buf)
	return r, w.answer(opRead, in.NodeId, "", int64(in.Offset), s)
}

func (w *Watch) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (n uint32, s fuse.Status) {
	defer w.change()()
	n, s = w.RawFileSystem.Write(cancel, in, data)
	return n, w.answer(opWrite, in.NodeId, "", int64(in.Offset), s)
}

func (w *Watch) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (n uint32, s fuse.Status) {
	defer w.change()()
	n, s = w.RawFileSystem.CopyFileRange(cancel, in)
	return n, w.answer(opCopyFileRange, in.NodeId, "", int64(in.OffIn), s)
}

func (w *Watch) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	return w.answer(opLseek, in.NodeId, "", int64(in.Offset), w.RawFileSystem.Lseek(cancel, in, out))
}

func (w *Watch) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	defer w.change()()
	return w.answer(opFallocate, in.NodeId, "", int64(in.Offset), w.RawFileSystem.Fallocate(cancel, in))
}

func (w *Watch) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	return w.answer(opIoctl, in.NodeId, "", -1, w.RawFileSystem.Ioctl(cancel, in, inbuf, out, outbuf))
}

func (w *Watch) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if in.Fh&hasData != 0 {
		defer w.change()()
	}
	return w.answer(opFlush, in.NodeId, "", -1, w.RawFileSystem.Flush(cancel, in))
}

func (w *Watch) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	defer w.change()()
	return w.answer(opFsync, in.NodeId, "", -1, w.RawFileSystem.Fsync(cancel, in))
}

func (w *Watch) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return w.answer(opOpenDir, in.NodeId, "", -1, w.RawFileSystem.OpenDir(cancel, in, out))
}

func (w *Watch) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return w.answer(opReadDir, in.NodeId, "", -1, w.RawFileSystem.ReadDir(cancel, in, out))
}

func (w *Watch) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return w.answer(opReadDirPlus, in.NodeId, "", -1, w.RawFileSystem.ReadDirPlus(cancel, in, out))
}

func (w *Watch) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return w.answer(opFsyncDir, in.NodeId, "", -1, w.RawFileSystem.FsyncDir(cancel, in))
}

func (w *Watch) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return w.answer(opStatFs, h.NodeId, "", -1, w.RawFileSystem.StatFs(cancel, h, out))
}

func (w *Watch) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	w.RawFileSystem.Release(cancel, in)
	w.answer(opRelease, in.NodeId, "", -1, fuse.OK)
}

func (w *Watch) ReleaseDir(in *fuse.ReleaseIn) {
	w.RawFileSystem.ReleaseDir(in)
	w.answer(opReleaseDir, in.NodeId, "", -1, fuse.OK)
}

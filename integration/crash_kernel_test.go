package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/fs"
)

// kernel makes the requests that the kernel makes, without its caches: what is written is sent at once. Its errors are errno values.
type kernel struct {
	fs      *fs.FS
	lookups map[uint64]uint64 // per node id
	lazy    bool              // closes nothing: for the test of the tests
	remade  map[uint64]uint64 // inode numbers of files that a replay made, and what they were before
}

func newKernel(f *fs.FS) *kernel { return &kernel{fs: f, lookups: map[uint64]uint64{}} }

func statusError(s fuse.Status) error {
	if s == fuse.OK {
		return nil
	}
	return syscall.Errno(s)
}

func (k *kernel) header(node uint64) fuse.InHeader { return fuse.InHeader{NodeId: node} }

func (k *kernel) entered(s fuse.Status, out *fuse.EntryOut) (uint64, fuse.Attr, error) {
	if s == fuse.OK && out.NodeId == 0 {
		s = fuse.ENOENT
	}
	if s == fuse.OK {
		k.lookups[out.NodeId]++
	}
	if first, remade := k.remade[out.Ino]; remade {
		out.Ino = first
	}
	return out.NodeId, out.Attr, statusError(s)
}

func (k *kernel) lookup(dir uint64, name string) (uint64, fuse.Attr, error) {
	h, out := k.header(dir), fuse.EntryOut{}
	s := k.fs.Lookup(nil, &h, name, &out)
	return k.entered(s, &out)
}

func (k *kernel) forget(node uint64) {
	k.fs.Forget(node, k.lookups[node])
	delete(k.lookups, node)
}

func (k *kernel) create(dir uint64, name string) (node uint64, a fuse.Attr, fh uint64, err error) {
	out := fuse.CreateOut{}
	s := k.fs.Create(nil, &fuse.CreateIn{InHeader: k.header(dir), Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o644}, name, &out)
	node, a, err = k.entered(s, &out.EntryOut)
	return node, a, out.Fh, err
}

func (k *kernel) tmpfile(dir uint64) (node uint64, a fuse.Attr, fh uint64, err error) {
	out := fuse.CreateOut{}
	s := k.fs.Tmpfile(nil, &fuse.CreateIn{InHeader: k.header(dir), Flags: unix.O_RDWR | unix.O_TMPFILE, Mode: 0o644}, &out)
	node, a, err = k.entered(s, &out.EntryOut)
	return node, a, out.Fh, err
}

func (k *kernel) mkdir(dir uint64, name string) (uint64, fuse.Attr, error) {
	out := fuse.EntryOut{}
	s := k.fs.Mkdir(nil, &fuse.MkdirIn{InHeader: k.header(dir), Mode: 0o755}, name, &out)
	return k.entered(s, &out)
}

func (k *kernel) symlink(dir uint64, target, name string) (uint64, fuse.Attr, error) {
	h, out := k.header(dir), fuse.EntryOut{}
	s := k.fs.Symlink(nil, &h, target, name, &out)
	return k.entered(s, &out)
}

func (k *kernel) link(node, dir uint64, name string) error {
	out := fuse.EntryOut{}
	_, _, err := k.entered(k.fs.Link(nil, &fuse.LinkIn{InHeader: k.header(dir), Oldnodeid: node}, name, &out), &out)
	return err
}

func (k *kernel) readlink(node uint64) (string, error) {
	h := k.header(node)
	b, s := k.fs.Readlink(nil, &h)
	return string(b), statusError(s)
}

func (k *kernel) unlink(dir uint64, name string) error {
	h := k.header(dir)
	return statusError(k.fs.Unlink(nil, &h, name))
}

func (k *kernel) rmdir(dir uint64, name string) error {
	h := k.header(dir)
	return statusError(k.fs.Rmdir(nil, &h, name))
}

func (k *kernel) rename(dir uint64, name string, to uint64, toName string, flags uint32) error {
	return statusError(k.fs.Rename(nil, &fuse.RenameIn{InHeader: k.header(dir), Newdir: to, Flags: flags}, name, toName))
}

func (k *kernel) open(node uint64, flags uint32) (uint64, error) {
	out := fuse.OpenOut{}
	s := k.fs.Open(nil, &fuse.OpenIn{InHeader: k.header(node), Flags: flags}, &out)
	return out.Fh, statusError(s)
}

func (k *kernel) read(node, fh uint64, off int64, n int) ([]byte, error) {
	buf := make([]byte, n)
	r, s := k.fs.Read(nil, &fuse.ReadIn{InHeader: k.header(node), Fh: fh, Offset: uint64(off), Size: uint32(n)}, buf)
	if s != fuse.OK {
		return nil, statusError(s)
	}
	b, s := r.Bytes(buf)
	return b, statusError(s)
}

// write sends requests of at most 1 MiB.
func (k *kernel) write(node, fh uint64, data []byte, off int64) error {
	in := fuse.WriteIn{InHeader: k.header(node), Fh: fh, Offset: uint64(off), Size: uint32(len(data))}
	if len(data)%page == 0 && off%page == 0 { // as from the page cache
		in.WriteFlags = fuse.WRITE_CACHE
	}
	n, s := k.fs.Write(nil, &in, data)
	if s == fuse.OK && int(n) != len(data) {
		return fmt.Errorf("%d of %d bytes are written", n, len(data))
	}
	return statusError(s)
}

func (k *kernel) truncate(node uint64, size int64) error {
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: k.header(node), Valid: fuse.FATTR_SIZE, Size: uint64(size)}}
	return statusError(k.fs.SetAttr(nil, &in, &fuse.AttrOut{}))
}

func (k *kernel) chmod(node uint64, mode uint32) error {
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: k.header(node), Valid: fuse.FATTR_MODE, Mode: mode}}
	return statusError(k.fs.SetAttr(nil, &in, &fuse.AttrOut{}))
}

func (k *kernel) setXattr(node uint64, attr, value string) error {
	return statusError(k.fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: k.header(node), Size: uint32(len(value))}, attr, []byte(value)))
}

func (k *kernel) xattr(node uint64, attr string) (string, error) {
	h, buf := k.header(node), make([]byte, 1000)
	n, s := k.fs.GetXAttr(nil, &h, attr, buf)
	return string(buf[:n]), statusError(s)
}

func (k *kernel) fallocate(node, fh uint64, off, n int64, mode uint32) error {
	return statusError(k.fs.Fallocate(nil, &fuse.FallocateIn{InHeader: k.header(node), Fh: fh, Offset: uint64(off), Length: uint64(n), Mode: mode}))
}

func (k *kernel) fsync(node, fh uint64, dataOnly bool) error {
	in := fuse.FsyncIn{InHeader: k.header(node), Fh: fh}
	if dataOnly {
		in.FsyncFlags = 1
	}
	return statusError(k.fs.Fsync(nil, &in))
}

func (k *kernel) fsyncDir(node uint64) error {
	return statusError(k.fs.FsyncDir(nil, &fuse.FsyncIn{InHeader: k.header(node)}))
}

// close is FLUSH and RELEASE; the error is close(2)'s.
func (k *kernel) close(node, fh uint64, flags uint32) error {
	if k.lazy {
		return nil
	}
	s := k.fs.Flush(nil, &fuse.FlushIn{InHeader: k.header(node), Fh: fh})
	k.fs.Release(nil, &fuse.ReleaseIn{InHeader: k.header(node), Fh: fh, Flags: flags})
	return statusError(s)
}

// list answers the names in a directory but "." and "..".
func (k *kernel) list(node uint64) (names []string, err error) {
	out := fuse.OpenOut{}
	if s := k.fs.OpenDir(nil, &fuse.OpenIn{InHeader: k.header(node)}, &out); s != fuse.OK {
		return nil, statusError(s)
	}
	defer k.fs.ReleaseDir(&fuse.ReleaseIn{InHeader: k.header(node), Fh: out.Fh})
	for off := uint64(0); ; {
		buf := make([]byte, 8192) // cleared: where the list ends is found by its zeros
		s := k.fs.ReadDir(nil, &fuse.ReadIn{InHeader: k.header(node), Fh: out.Fh, Offset: off, Size: uint32(len(buf))}, fuse.NewDirEntryList(buf, off))
		if s != fuse.OK {
			return nil, statusError(s)
		}
		n := 0
		for ; len(buf) > 24; n++ { // struct fuse_dirent: ino, off, namelen, type, name padded to 8
			length := binary.NativeEndian.Uint32(buf[16:])
			if length == 0 {
				break
			}
			if int(length) > len(buf)-24 {
				return nil, errors.New("a name reaches beyond its list")
			}
			off = binary.NativeEndian.Uint64(buf[8:])
			if name := string(buf[24:][:length]); name != "." && name != ".." {
				names = append(names, name)
			}
			buf = buf[min(len(buf), 24+int(length+7)&^7):]
		}
		if n == 0 {
			return names, nil
		}
	}
}

package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// StatFs answers what the host's filesystem has left. Metadata of containers takes a percent or two of it.
func (fs *FS) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := fs.cfg.Tree.Root().Statfs(&st); err != nil {
		return fs.status("statfs", err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), Frsize: uint32(st.Frsize), NameLen: nameMax,
	}
	return fuse.OK
}

// FsyncDir makes the names in a directory durable, and the directory's own.
func (fs *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, err := fs.node(in.NodeId)
	if err == nil {
		err = fs.syncDir(n)
	}
	if err == nil {
		err = fs.syncLinks(n)
	}
	return fs.status("fsyncdir", err)
}

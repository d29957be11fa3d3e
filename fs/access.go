package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Access answers access(2), and chdir(2), where the kernel leaves permissions to us: where nobody but root may enter (see FS.checks). Root may
// everything, but not run a file that nobody may run. The kernel refuses that itself when it comes to it, and writes on a mount that is read-only.
func (fs *FS) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	n, err := fs.node(in.NodeId)
	if err == nil && in.Mask&unix.X_OK != 0 && n.typ != typeDir {
		err = fs.runnable(n)
	}
	return fs.status("access", err)
}

// runnable answers EACCES for what nobody may run.
func (fs *FS) runnable(n *inode) error {
	var st unix.Stat_t
	if err := n.stat(&st); err != nil {
		return err
	}
	if err := fs.showMode(n, &st); err != nil {
		return err
	}
	if st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
)

// Tmpfile makes a file without a name (O_TMPFILE) and opens it. It is one on the host, too: whatever ends this process ends the file. LINK
// may name it; where O_EXCL was given the kernel itself refuses that.
func (fs *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return fs.status("tmpfile", fs.tmpfile(in, out))
}

func (fs *FS) tmpfile(in *fuse.CreateIn, out *fuse.CreateOut) error {
	parent, err := fs.node(in.NodeId)
	if err != nil {
		return err
	}
	d, err := parent.directory()
	if err != nil {
		return err
	}
	uid, gid, mode, err := fs.ownership(parent, &in.Caller, unix.S_IFREG|in.Mode, in.Umask)
	if err != nil {
		return err
	}
	h, e, err := d.Tmpfile(mode&0o7777, uid, gid)
	if err != nil {
		return err
	}
	c, err := fs.cfg.Engine.Create(h, e.ID, container.ObjectFile)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	return fs.openNew(c, in.Flags, out, func(st *unix.Stat_t) (*inode, error) {
		n := fs.enterNameless(e, st)
		n.held.CompareAndSwap(0, uint32(fs.fresh(parent, typeFile, mode)))
		n.keep = true // no name to open it by again
		n.orphan = true
		fs.orphans.Add(1)
		return n, nil
	})
}

// linkNameless gives a name to a file of which none is known: one by Tmpfile, or one whose known names are gone while the host has others. The host
// answers ENOENT, as Linux does, where it has none. The caller holds loc.
func (fs *FS) linkNameless(n *inode, d *dirs.Dir, name string) (dirs.Entry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.file != nil:
		return d.LinkFile(name, n.file.Container().Host(), n.found, fs.hasHeader(n))
	case n.pinned != nil:
		return d.LinkFile(name, n.pinned, n.found, fs.hasHeader(n))
	}
	return dirs.Entry{}, unix.ENOENT
}

// named is called when a file without a name has got one, by which it can be opened again: the descriptor that kept it goes with the last handle.
func (fs *FS) named(n *inode) error {
	n.mu.Lock()
	if n.orphan {
		n.orphan = false
		fs.orphans.Add(-1)
	}
	n.keep = false
	freed, err := fs.closeIdle(n)
	if h := n.pinned; h != nil {
		n.pinned = nil
		err = errors.Join(err, h.Close())
	}
	n.mu.Unlock()
	if freed {
		fs.release(n)
	}
	return err
}

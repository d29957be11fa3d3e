package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
)

// staleTries bounds how often a name is looked up again because it changed between two calls. The kernel locks directories, so once is
// rare already.
const staleTries = 5

// Lookup finds a name. A name that is not there is an answer too, which the kernel keeps.
func (fs *FS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	err := fs.lookup(in.NodeId, name, out)
	if errors.Is(err, unix.ENOENT) {
		*out = fuse.EntryOut{}
		out.SetEntryTimeout(fs.cfg.Timeout)
		return fuse.OK
	}
	return fs.status("lookup", err)
}

func (fs *FS) lookup(node uint64, name string, out *fuse.EntryOut) error {
	parent, d, err := fs.parent(node, name)
	if err != nil {
		return err
	}
	for range staleTries {
		var e dirs.Entry
		if e, err = d.Lookup(name); err != nil {
			return err
		}
		if err = fs.found(parent, d, e, out); !errors.Is(err, dirs.ErrStale) {
			return err
		}
	}
	return err
}

// parent returns the directory in which a request names something.
func (fs *FS) parent(node uint64, name string) (*inode, *dirs.Dir, error) {
	n, err := fs.node(node)
	if err != nil {
		return nil, nil, err
	}
	if err := checkName(name); err != nil {
		return nil, nil, err
	}
	d, err := n.directory()
	return n, d, err
}

// found answers with the object of a name, and counts that the kernel knows it.
func (fs *FS) found(parent *inode, d *dirs.Dir, e dirs.Entry, out *fuse.EntryOut) error {
	var st unix.Stat_t
	s, err := fs.look(d, e, &st)
	if err != nil {
		return err
	}
	n, err := fs.enter(parent, e, &st)
	if err != nil {
		return err
	}
	fs.learn(n, s)
	fs.lookedUp(n)
	return fs.answer(n, &st, s.closes, out)
}

// answerNew answers with an object that was just created with a mode.
func (fs *FS) answerNew(parent *inode, d *dirs.Dir, e dirs.Entry, mode uint32, out *fuse.EntryOut) error {
	fs.namesChanged(parent)
	var st unix.Stat_t
	if err := d.Stat(e.Name, e.ID, &st); err != nil {
		return err
	}
	n, err := fs.enter(parent, e, &st)
	if err != nil {
		return err
	}
	n.held.CompareAndSwap(0, uint32(fs.fresh(parent, e.Type, mode)))
	return fs.answer(n, &st, 0, out)
}

// Mknod makes a regular file, FIFO, socket or device.
func (fs *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.status("mknod", fs.mknod(in, name, out))
}

func (fs *FS) mknod(in *fuse.MknodIn, name string, out *fuse.EntryOut) error {
	parent, d, err := fs.parent(in.NodeId, name)
	if err != nil {
		return err
	}
	uid, gid, mode, err := fs.ownership(parent, &in.Caller, in.Mode, in.Umask)
	if err != nil {
		return err
	}
	if t := mode & unix.S_IFMT; t != unix.S_IFREG && t != 0 {
		e, err := d.Mknod(name, mode, uint64(in.Rdev), uid, gid)
		if err != nil {
			return err
		}
		return fs.answerNew(parent, d, e, mode, out)
	}
	c, e, err := fs.createFile(d, name, mode, uid, gid)
	if err != nil {
		return err
	}
	// Nobody has it open, so nobody would flush it: its header is written now.
	if err := errors.Join(c.Flush(), c.Close()); err != nil {
		d.Undo(e)
		return err
	}
	return fs.answerNew(parent, d, e, mode, out)
}

// createFile makes an empty container under a new name. Its header is not on the host before a flush.
func (fs *FS) createFile(d *dirs.Dir, name string, mode uint32, uid, gid int) (*container.File, dirs.Entry, error) {
	h, e, err := d.CreateFile(name, mode&0o7777, uid, gid)
	if err != nil {
		return nil, e, err
	}
	c, err := fs.cfg.Engine.Create(h, e.ID, container.ObjectFile)
	if err != nil {
		err = errors.Join(err, h.Close())
		d.Undo(e)
	}
	return c, e, err
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.status("mkdir", fs.mkdir(in, name, out))
}

func (fs *FS) mkdir(in *fuse.MkdirIn, name string, out *fuse.EntryOut) error {
	parent, d, err := fs.parent(in.NodeId, name)
	if err != nil {
		return err
	}
	uid, gid, mode, err := fs.ownership(parent, &in.Caller, unix.S_IFDIR|in.Mode, in.Umask)
	if err != nil {
		return err
	}
	e, err := d.Mkdir(name, mode&0o7777, uid, gid)
	if err != nil {
		return err
	}
	return fs.answerNew(parent, d, e, mode, out)
}

// Link gives a file another name.
func (fs *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.status("link", fs.link(in, name, out))
}

func (fs *FS) link(in *fuse.LinkIn, name string, out *fuse.EntryOut) error {
	parent, d, err := fs.parent(in.NodeId, name)
	if err != nil {
		return err
	}
	n, err := fs.node(in.Oldnodeid)
	if err != nil {
		return err
	}
	n.linkSync.Lock() // else an fsync could have the journal make it, under one name
	defer n.linkSync.Unlock()
	if err := fs.endMakeByName(n); err != nil {
		return err
	}
	n.asMade.Store(false)
	var e dirs.Entry
	n.loc.RLock()
	nameless := len(n.links) == 0
	if nameless {
		e, err = fs.linkNameless(n, d, name)
	} else {
		err = n.byName(func(src *dirs.Dir, old string) (err error) {
			e, err = d.Link(name, src, old, n.id, fs.hasHeader(n))
			return err
		})
	}
	n.loc.RUnlock()
	if err != nil {
		return err
	}
	n.linksSynced.Store(false)
	fs.namesChanged(parent)
	err = fs.found(parent, d, e, out)
	if err == nil && nameless {
		err = fs.named(n)
	}
	return err
}

// Unlink removes a name of anything but a directory.
func (fs *FS) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return fs.status("unlink", fs.remove(in, name, (*dirs.Dir).Unlink))
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return fs.status("rmdir", fs.remove(in, name, (*dirs.Dir).Rmdir))
}

func (fs *FS) remove(in *fuse.InHeader, name string, host func(*dirs.Dir, string) (dirs.Entry, error)) error {
	parent, d, err := fs.parent(in.NodeId, name)
	if err != nil {
		return err
	}
	e, err := d.Lookup(name)
	if err != nil {
		return err
	}
	done, logged := fs.namesChanging(parent), false
	defer func() { done(!logged) }()
	var removed func() (bool, error)
	if n := fs.known(parent, d, e); n != nil {
		defer fs.release(n)
		defer fs.nameless(n)
		n.awaitFreeing()
		n.loc.Lock()
		defer n.loc.Unlock()
		if err := fs.pin(n, parent, d, name); err != nil {
			return err
		}
		removed = fs.removing(n, d, e)
		if _, err = host(d, name); err == nil {
			fs.removeLinkLocked(n, parent, name)
			fs.habits.keep(parent.id, name, &n.habit)
		}
	} else {
		removed = fs.removing(nil, d, e)
		_, err = host(d, name)
	}
	if err != nil {
		return err
	}
	fs.nameLost(parent, e)
	logged, err = removed()
	return err
}

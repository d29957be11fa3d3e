package fs

import (
	"cmp"
	"errors"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/names"
)

// Rename moves a name, over another one or, with RENAME_EXCHANGE, in its place.
func (fs *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	return fs.status("rename", fs.rename(in, oldName, newName))
}

func (fs *FS) rename(in *fuse.RenameIn, oldName, newName string) error {
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	exchange := in.Flags&unix.RENAME_EXCHANGE != 0
	src, sd, err := fs.parent(in.NodeId, oldName)
	if err != nil {
		return err
	}
	dst, dd, err := fs.parent(in.Newdir, newName)
	if err != nil {
		return err
	}
	from, err := sd.Lookup(oldName)
	if err != nil {
		return err
	}
	moved := fs.known(src, sd, from)
	var target *inode
	to, err := dd.Lookup(newName)
	replaces := err == nil
	switch {
	case replaces:
		target = fs.known(dst, dd, to)
	case !errors.Is(err, unix.ENOENT) || exchange:
		fs.releaseAll(moved)
		return err
	}
	defer fs.releaseAll(moved, target)
	if replaces && from.ID == to.ID && moved != target { // two host objects, and not one with two names
		return dirs.ErrDuplicate
	}
	if target != nil {
		defer fs.nameless(target)
	}
	if replaces && !exchange {
		if err := fs.syncNew(moved); err != nil {
			return err
		}
		if err := fs.syncOthers(target); err != nil {
			return err
		}
	}
	if exchange {
		defer lockSyncs(moved, target)()
	} else {
		defer lockSyncs(moved)()
	}
	if err := fs.readyToMove(from, sd, dst, newName, exchange); err != nil {
		return err
	}
	done := fs.changing(src, dst)
	defer done(true)
	unlock := lockLinks(moved, target)
	defer unlock()

	if replaces { // else a replay could make what the host lost together with what took its place, or not make it
		if err := fs.endMake(dd, to.ID); err != nil {
			return err
		}
	}
	if target != nil && !exchange {
		if err := fs.pin(target, dst, dd, newName); err != nil {
			return err
		}
	}
	movedTo, replaced, err := fs.cfg.Tree.Rename(sd, oldName, dd, newName, uint(in.Flags))
	if err != nil || moved == target && moved != nil { // both names carry one object: nothing happened
		return err
	}
	if replaces && !exchange {
		fs.lost(dst, to)
	}
	if from.Type == typeFile {
		fs.lost(src, from)
	}
	if target != nil {
		fs.removeLinkLocked(target, dst, newName)
	}
	if moved != nil {
		fs.removeLinkLocked(moved, src, oldName)
		fs.addLinkLocked(moved, dst, movedTo)
		moved.linksSynced.Store(false)
		moved.moved()
	}
	if exchange && target != nil {
		fs.addLinkLocked(target, src, *replaced)
		target.linksSynced.Store(false)
		target.moved()
	}
	if fs.cfg.Engine.Made(movedTo.ID) {
		return fs.cfg.Engine.NoteMoved(movedTo.ID, dd.HostPath(movedTo))
	}
	return nil
}

// lockSyncs keeps files from being made by an fsync meanwhile; some may be nil, or no files.
func lockSyncs(ns ...*inode) (unlock func()) {
	ns = slices.DeleteFunc(ns, func(n *inode) bool { return n == nil || n.typ != typeFile })
	slices.SortFunc(ns, func(a, b *inode) int { return cmp.Compare(a.node, b.node) })
	ns = slices.Compact(ns)
	for _, n := range ns {
		n.linkSync.Lock()
	}
	return func() {
		for _, n := range ns {
			n.linkSync.Unlock()
		}
	}
}

// readyToMove readies a file that counts as made for another name. It may keep doing so where the journal can make it under that one: the directory is durable,
// no name that had to go before may come back there, and there is no sidecar; and it is not exchanged, since a replay finishes that by what it finds under names of the host.
func (fs *FS) readyToMove(from dirs.Entry, sd *dirs.Dir, dst *inode, name string, exchange bool) error {
	switch {
	case !fs.cfg.Engine.Made(from.ID):
		return nil
	case exchange, (names.Link{Name: name}).IsLong(), !fs.calm(dst):
		return fs.endMake(sd, from.ID)
	}
	return fs.syncLinks(dst)
}

// syncNew makes a file durable that was made in this session and never synced, before it takes the place of another one: no power cut may leave less than
// the old or the new content.
func (fs *FS) syncNew(n *inode) error {
	if n == nil || n.typ != typeFile {
		return nil
	}
	n.loc.RLock()
	durable := fs.hasHeader(n)
	n.loc.RUnlock()
	if durable {
		return nil
	}
	err := fs.with(n, func(f *cache.File) error { return f.Sync() })
	if err == nil {
		n.headerSynced.Store(true)
	}
	return err
}

// syncOthers makes the names of an object durable that is about to lose one of several to another object. Two host calls do that, and a host that orders
// names in each directory alone may keep only the first: then the object has no name left but one that is hidden, and to be removed.
func (fs *FS) syncOthers(n *inode) error {
	if n == nil || n.typ == typeDir {
		return nil
	}
	n.loc.RLock()
	several := len(n.links) > 1
	n.loc.RUnlock()
	if !several {
		return nil
	}
	return fs.syncLinks(n)
}

func (fs *FS) releaseAll(ns ...*inode) {
	for _, n := range ns {
		if n != nil {
			fs.release(n)
		}
	}
}

// lockLinks takes the link locks of two inodes, either of which may be nil, in the order of their node ids.
func lockLinks(a, b *inode) (unlock func()) {
	if a == b {
		b = nil
	}
	if a != nil && b != nil && a.node > b.node {
		a, b = b, a
	}
	for _, n := range []*inode{a, b} {
		if n != nil {
			n.loc.Lock()
		}
	}
	return func() {
		for _, n := range []*inode{b, a} {
			if n != nil {
				n.loc.Unlock()
			}
		}
	}
}

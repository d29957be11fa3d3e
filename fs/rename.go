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

// Rename moves a name, over another one or, with RENAME_EXCHANGE, in its place. With RENAME_WHITEOUT, which overlayfs needs of its upper layer, it leaves a whiteout.
func (fs *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	return fs.status("rename", fs.rename(in, oldName, newName))
}

func (fs *FS) rename(in *fuse.RenameIn, oldName, newName string) error {
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0 {
		return unix.EINVAL
	}
	r := renaming{
		fs: fs, old: oldName, new: newName, exchange: in.Flags&unix.RENAME_EXCHANGE != 0, whiteout: in.Flags&unix.RENAME_WHITEOUT != 0,
	}
	if r.exchange && r.whiteout {
		return unix.EINVAL
	}
	defer func() { fs.releaseAll(r.moved, r.target) }()
	if err := r.find(in); err != nil {
		return err
	}
	if r.target != nil {
		defer fs.nameless(r.target)
	}
	if err := r.syncFirst(); err != nil {
		return err
	}
	if r.exchange {
		defer lockSyncs(r.moved, r.target)()
	} else {
		defer lockSyncs(r.moved)()
	}
	if err := r.readyMoved(); err != nil {
		return err
	}
	done := fs.namesChanging(r.src, r.dst)
	defer done(true)
	defer lockLinks(r.moved, r.target)()
	if err := r.readyTarget(); err != nil {
		return err
	}
	movedTo, replaced, err := r.renameHost(in)
	if err != nil || r.moved == r.target && r.moved != nil { // both names carry one object: nothing happened
		return err
	}
	r.relink(movedTo, replaced)
	if fs.cfg.Engine.Made(movedTo.ID) {
		return fs.cfg.Engine.NoteMoved(movedTo.ID, r.dd.HostPath(movedTo))
	}
	return nil
}

// renaming is a rename under way.
type renaming struct {
	fs       *FS
	exchange bool
	whiteout bool // stays under the old name

	src, dst      *inode // the two directories
	sd, dd        *dirs.Dir
	old, new      string
	from, to      dirs.Entry // what the names carried before
	replaces      bool       // there is a to
	moved, target *inode     // from and to, held; nil where the kernel does not know them
}

// find looks both names up.
func (r *renaming) find(in *fuse.RenameIn) (err error) {
	if r.src, r.sd, err = r.fs.parent(in.NodeId, r.old); err != nil {
		return err
	}
	if r.dst, r.dd, err = r.fs.parent(in.Newdir, r.new); err != nil {
		return err
	}
	if r.from, err = r.sd.Lookup(r.old); err != nil {
		return err
	}
	r.moved = r.fs.known(r.src, r.sd, r.from)
	switch r.to, err = r.dd.Lookup(r.new); {
	case err == nil:
		r.replaces = true
		r.target = r.fs.known(r.dst, r.dd, r.to)
	case !errors.Is(err, unix.ENOENT) || r.exchange:
		return err
	}
	if r.replaces && r.from.ID == r.to.ID && r.moved != r.target { // two host objects, and not one with two names
		return dirs.ErrDuplicate
	}
	return nil
}

// syncFirst makes durable what must be before one object takes the place of another.
func (r *renaming) syncFirst() error {
	if !r.whiteout && (!r.replaces || r.exchange) { // a whiteout is the older object under its name until what moves is gone
		return nil
	}
	if err := r.fs.syncNew(r.moved); err != nil {
		return err
	}
	return r.fs.syncOthers(r.target)
}

// readyMoved readies a file that counts as made for its new name. It may go on to count so where the journal can make it under that one: the
// directory is durable, no name that had to go before may come back there, and there is no sidecar. One whose old name is kept for another object may not: a
// replay finishes an exchange by what it finds under names of the host, and a whiteout shows when the file is no longer there.
func (r *renaming) readyMoved() error {
	switch {
	case !r.fs.cfg.Engine.Made(r.from.ID):
		return nil
	case r.exchange, r.whiteout, (names.Link{Name: r.new}).IsLong(), !r.fs.calm(r.dst):
		return r.fs.endMake(r.sd, r.from.ID)
	}
	return r.fs.syncLinks(r.dst)
}

// readyTarget readies what the new name carries for losing it. The caller holds the link locks.
func (r *renaming) readyTarget() error {
	if r.replaces { // else a replay could make what the host lost together with what took its place, or not make it
		if err := r.fs.endMake(r.dd, r.to.ID); err != nil {
			return err
		}
	}
	if r.target == nil || r.exchange {
		return nil
	}
	return r.fs.pin(r.target, r.dst, r.dd, r.new)
}

// renameHost has the tree do it. A whiteout belongs to the caller, as if by mknod(2).
func (r *renaming) renameHost(in *fuse.RenameIn) (movedTo dirs.Entry, replaced *dirs.Entry, err error) {
	if !r.whiteout {
		return r.fs.cfg.Tree.Rename(r.sd, r.old, r.dd, r.new, uint(in.Flags))
	}
	uid, gid, _, err := r.fs.ownership(r.src, &in.Caller, unix.S_IFCHR, 0)
	if err != nil {
		return dirs.Entry{}, nil, err
	}
	return r.fs.cfg.Tree.RenameWhiteout(r.sd, r.old, r.dd, r.new, uint(in.Flags&^unix.RENAME_WHITEOUT), uid, gid)
}

// relink notes what the host did: moved is movedTo now, and in an exchange target is replaced. The caller holds the link locks.
func (r *renaming) relink(movedTo dirs.Entry, replaced *dirs.Entry) {
	if r.replaces && !r.exchange {
		r.fs.nameLost(r.dst, r.to)
	}
	if r.from.Type == typeFile {
		r.fs.nameLost(r.src, r.from)
	}
	if r.target != nil {
		r.fs.removeLinkLocked(r.target, r.dst, r.new)
	}
	if r.moved != nil {
		r.fs.removeLinkLocked(r.moved, r.src, r.old)
		r.fs.addLinkLocked(r.moved, r.dst, movedTo)
		r.moved.linksSynced.Store(false)
		r.moved.renamed()
	}
	if r.exchange && r.target != nil {
		r.fs.addLinkLocked(r.target, r.src, *replaced)
		r.target.linksSynced.Store(false)
		r.target.renamed()
	}
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

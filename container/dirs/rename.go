package dirs

import (
	"errors"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// renaming is one Rename with everything locked.
type renaming struct {
	t        *Tree
	src, dst *Dir
	sfd, dfd disk.Dir
	old, new string
	from, to link // to counts where replaces is true
	replaces bool
	victim   *Dir // the directory that to carries and that is replaced; locked, too
	whiteout *owner
}

// Rename moves the name old of src to the name new of dst, with POSIX's rules: what new carried is replaced, a directory
// only by a directory and only if it is empty. flags are 0, RENAME_NOREPLACE or RENAME_EXCHANGE, as in renameat2(2).
//
// moved is the entry as it is now, replaced what new carried before (with RENAME_EXCHANGE: what old carries now). When both names carry
// one object nothing happens, and moved is the entry at old.
//
// The new name shows with one host call. Then the replaced object is removed; should the host refuse that, it stays as a loser, hidden, and an
// event says so.
func (t *Tree) Rename(src *Dir, old string, dst *Dir, new string, flags uint) (moved Entry, replaced *Entry, err error) {
	if flags != 0 && flags != unix.RENAME_NOREPLACE && flags != unix.RENAME_EXCHANGE {
		return Entry{}, nil, unix.EINVAL
	}
	return t.rename(&renaming{t: t, src: src, dst: dst, old: old, new: new}, flags)
}

func (t *Tree) rename(r *renaming, flags uint) (moved Entry, replaced *Entry, err error) {
	if err := r.src.admit(r.old); err != nil {
		return Entry{}, nil, err
	}
	if err := r.dst.admit(r.new); err != nil {
		return Entry{}, nil, err
	}
	for {
		moved, replaced, err = t.tryRename(*r, flags)
		if !errors.Is(err, errChanged) {
			return moved, replaced, err
		}
	}
}

// errChanged: what was seen before the locks were taken is no longer so.
var errChanged = errors.New("names changed")

// peek answers what name carries, without keeping it so.
func (d *Dir) peek(name string) (link, bool, error) {
	if err := d.rlock(); err != nil {
		return link{}, false, err
	}
	defer d.mu.RUnlock()
	n, ok := d.links[name]
	return n, ok, nil
}

func (t *Tree) tryRename(r renaming, flags uint) (moved Entry, replaced *Entry, err error) {
	src, old, dst, new := r.src, r.old, r.dst, r.new
	from, ok, err := src.peek(old)
	if err != nil {
		return Entry{}, nil, err
	}
	if !ok {
		return Entry{}, nil, unix.ENOENT
	}
	to, replaces, err := dst.peek(new)
	if err != nil {
		return Entry{}, nil, err
	}
	exchange := flags == unix.RENAME_EXCHANGE
	if from.typ == names.Dir || exchange && to.typ == names.Dir {
		t.moves.Lock()
		defer t.moves.Unlock()
	}
	if replaces && !exchange && from.typ == names.Dir && to.typ == names.Dir && from.id != to.id {
		if r.victim, err = dst.subdir(new); err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				err = errChanged
			}
			return Entry{}, nil, err
		}
		defer r.victim.Release()
	}
	unlock, err := lockAll(src, dst, r.victim)
	if err != nil {
		return Entry{}, nil, err
	}
	defer unlock()
	r.from, ok = src.links[old]
	r.to, r.replaces = dst.links[new]
	if !ok || r.from != from || r.replaces != replaces || r.to != to || r.victim != nil && r.victim.id != to.id {
		return Entry{}, nil, errChanged
	}
	if same, err := r.check(flags); err != nil || same {
		return r.from.entry(old), nil, err
	}
	if r.sfd, err = src.open(); err != nil {
		return Entry{}, nil, err
	}
	defer src.unpin()
	if r.dfd, err = dst.open(); err != nil {
		return Entry{}, nil, err
	}
	defer dst.unpin()
	if exchange {
		return r.exchange()
	}
	return r.replace()
}

// check applies POSIX's rules; same says that both names carry one object.
func (r *renaming) check(flags uint) (same bool, err error) {
	exchange := flags == unix.RENAME_EXCHANGE
	switch {
	case r.dst.gone.Load():
		return false, unix.ENOENT
	case exchange && !r.replaces:
		return false, unix.ENOENT
	case flags == unix.RENAME_NOREPLACE && r.replaces:
		return false, unix.EEXIST
	case r.from.typ == names.Dir && r.t.within(r.dst, r.from):
		return false, unix.EINVAL
	case exchange && r.to.typ == names.Dir && r.t.within(r.src, r.to):
		return false, unix.EINVAL
	case !r.replaces:
		return false, nil
	case !exchange && r.to.typ == names.Dir && r.t.within(r.src, r.to):
		return false, unix.ENOTEMPTY
	case r.from.id == r.to.id:
		return true, nil
	case exchange:
		return false, nil
	case r.from.typ == names.Dir && r.to.typ != names.Dir:
		return false, unix.ENOTDIR
	case r.from.typ != names.Dir && r.to.typ == names.Dir:
		return false, unix.EISDIR
	case r.victim != nil && len(r.victim.links) > 0:
		return false, unix.ENOTEMPTY
	}
	return false, nil
}

// within reports whether d is the directory n or below it. A directory that holds a live one is live. Where a directory is moved
// Tree.moves is held, so that the answer stays true.
func (t *Tree) within(d *Dir, n link) bool {
	t.place.RLock()
	defer t.place.RUnlock()
	for ; d != nil; d = d.parent {
		if d.id == n.id {
			return true
		}
	}
	return false
}

func (r *renaming) replace() (moved Entry, replaced *Entry, err error) {
	if err := r.src.removeLosers(r.sfd, r.old); err != nil {
		return Entry{}, nil, err
	}
	if err := r.dst.removeLosers(r.dfd, r.new); err != nil {
		return Entry{}, nil, err
	}
	if r.victim != nil {
		// The last chance to refuse: foreign host objects in there would make the host's rmdir fail when the new name shows already.
		if err := r.victim.checkEmpty(r.dst, r.dfd); err != nil {
			return Entry{}, nil, err
		}
	}
	var left link
	if r.whiteout != nil {
		if left, err = r.putWhiteout(); err != nil {
			return Entry{}, nil, err
		}
	}
	n := r.from
	srcHost := r.src.hostName(r.old, r.from)
	err = r.dst.introduce(r.dfd, r.new, &n, func(host string) error {
		return r.t.moveHost(n, r.src, r.sfd, srcHost, r.dst, r.dfd, host)
	})
	if err != nil {
		if r.whiteout != nil {
			r.dropWhiteout()
		}
		return Entry{}, nil, err
	}
	r.src.dropSidecar(r.sfd, srcHost, r.from.open(r.old).IsLong())
	r.src.leave(r.old)
	if r.replaces {
		r.dst.leave(r.new)
	}
	r.dst.enter(r.new, n)
	if r.whiteout != nil {
		r.src.dropLoser(r.old, left)
		r.src.enter(r.old, left)
	}
	if r.replaces {
		e := r.to.entry(r.new)
		replaced = &e
		r.bury()
	}
	return n.entry(r.new), replaced, nil
}

// bury removes what was replaced. Its name shows the new object already, so a refusal of the host leaves a loser.
func (r *renaming) bury() {
	d := r.dst
	host := d.hostName(r.new, r.to)
	var err error
	switch {
	case r.to.typ != names.Dir:
		err = d.unlinkHost(r.dfd, r.new, r.to)
	default:
		if err = d.rmdirHost(r.dfd, host, r.to.open(r.new).IsLong(), r.victim); err != nil {
			_ = r.victim.detach(func() error { return nil })
			d.hidden++
		}
	}
	if err != nil {
		d.addLoser(r.new, r.to)
		d.failed(host, err, "remove what a rename replaced")
	}
}

// checkEmpty answers ENOTEMPTY where the host directory, which lies in up, that of parent, holds anything that sweep leaves.
func (x *Dir) checkEmpty(parent *Dir, up disk.Dir) error {
	fd, err := x.open()
	if err != nil {
		return err
	}
	defer x.unpin()
	empty, err := x.sweep(fd, parent, up)
	if err == nil && !empty {
		err = unix.ENOTEMPTY
	}
	return err
}

// moveHost renames one host object. A live directory moves along; place keeps descriptors below it from being reopened meanwhile.
func (t *Tree) moveHost(n link, from *Dir, ffd disk.Dir, old string, to *Dir, tfd disk.Dir, new string) error {
	if n.typ == names.Dir {
		t.place.Lock()
		defer t.place.Unlock()
	}
	if err := ffd.Rename(old, tfd, new, 0); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return from.hostError(err, old)
		}
		return err
	}
	if n.typ != names.Dir {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.dirs[n.id]; x != nil && x.parent == from && x.host == old {
		x.parent, x.host = to, new
		to.refs++
		from.refs-- // not the last one: the caller has one
	}
	return nil
}

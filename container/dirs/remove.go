package dirs

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"golang.org/x/sys/unix"
)

// Unlink removes name, which is no directory (EISDIR), and answers what it carried. Losers of the name go first: the other way
// round one of them would show.
func (d *Dir) Unlink(name string) (Entry, error) {
	if err := d.lockFor(name); err != nil {
		return Entry{}, err
	}
	defer d.mu.Unlock()
	n, ok := d.links[name]
	switch {
	case !ok:
		return Entry{}, unix.ENOENT
	case n.typ == names.Dir:
		return Entry{}, unix.EISDIR
	}
	fd, err := d.open()
	if err != nil {
		return Entry{}, err
	}
	defer d.unpin()
	if err := d.removeLosers(fd, name); err != nil {
		return Entry{}, err
	}
	if err := d.unlinkHost(fd, name, n); err != nil {
		return Entry{}, err
	}
	d.leave(name)
	return n.entry(name), nil
}

// unlinkHost removes the host object of a visible link, which fs may pin first.
func (d *Dir) unlinkHost(fd disk.Dir, name string, n link) error {
	host := d.hostName(name, n)
	if hook := d.t.cfg.BeforeUnlink; hook != nil {
		hook(n.entry(name), func(data bool) (disk.File, error) {
			if data && n.open(name).IsContainer() {
				f, err := fd.Open(host, disk.ReadWrite)
				return f, d.hostError(err, host)
			}
			f, err := fd.OpenPath(host)
			return f, d.hostError(err, host)
		})
	}
	return d.removeHost(fd, name, host, n)
}

// removeHost removes a host object that is no directory, then its sidecar. One that is gone already is what was asked for; without that
// its name could never be got rid of.
func (d *Dir) removeHost(fd disk.Dir, name, host string, n link) error {
	if err := fd.Unlink(host); err != nil {
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("dirs: directory %s: %w", d.id, err)
		}
		_ = d.damage(host, fmt.Errorf("%w: %v", ErrName, err)) // reported; nothing to answer
	}
	d.dropSidecar(fd, host, n.open(name).IsLong())
	return nil
}

// removeLosers removes the losers of name and makes that durable, so that no crash shows one once the winner is gone.
func (d *Dir) removeLosers(fd disk.Dir, name string) error {
	all := slices.Clone(d.losers[name])
	if len(all) == 0 {
		return nil
	}
	for _, n := range all {
		host := d.hostName(name, n)
		if n.typ != names.Dir {
			if err := d.removeHost(fd, name, host, n); err != nil {
				return err
			}
		} else {
			// A directory becomes a loser only when it was empty. If it is not, somebody put something there: not ours to remove.
			if err := fd.Rmdir(host); err != nil && !errors.Is(err, unix.ENOENT) {
				return d.damage(host, fmt.Errorf("%w: loser: %v", ErrName, err))
			}
			d.dropSidecar(fd, host, n.open(name).IsLong())
			d.hidden--
		}
		d.dropLoser(name, n)
		d.t.cfg.Events.Emit(event.Event{Kind: event.Repaired, Object: host, Offset: -1, Note: "loser removed"})
	}
	if err := fd.Sync(); err != nil {
		return fmt.Errorf("dirs: directory %s: %w", d.id, err)
	}
	return nil
}

// Rmdir removes the empty directory called name (ENOTDIR, ENOTEMPTY) and answers its entry. A live Dir of it stays usable: it
// answers ENOENT to lookups and creations, has no entries, and keeps its attributes. What damage hides
// in it does not stand in the way (see sweep); foreign host objects do: with them it is ENOTEMPTY.
func (d *Dir) Rmdir(name string) (Entry, error) {
	if err := d.admit(name); err != nil {
		return Entry{}, err
	}
	for {
		x, err := d.subdir(name)
		if err != nil {
			return Entry{}, err
		}
		e, err := d.rmdir(name, x)
		x.Release()
		if !errors.Is(err, ErrStale) {
			return e, err
		}
	}
}

// subdir answers the live Dir of name with a reference.
func (d *Dir) subdir(name string) (*Dir, error) {
	if err := d.rlock(); err != nil {
		return nil, err
	}
	defer d.mu.RUnlock()
	n, ok := d.links[name]
	if !ok {
		return nil, unix.ENOENT
	}
	return d.child(name, n)
}

// rmdir answers ErrStale when name does not carry x any more.
func (d *Dir) rmdir(name string, x *Dir) (Entry, error) {
	unlock, err := lockAll(d, x)
	if err != nil {
		return Entry{}, err
	}
	defer unlock()
	n, ok := d.links[name]
	if !ok || n.id != x.id {
		return Entry{}, ErrStale
	}
	if len(x.links) > 0 {
		return Entry{}, unix.ENOTEMPTY
	}
	fd, err := d.open()
	if err != nil {
		return Entry{}, err
	}
	defer d.unpin()
	if err := d.removeLosers(fd, name); err != nil {
		return Entry{}, err
	}
	host := d.hostName(name, n)
	if err := d.rmdirHost(fd, host, n.open(name).IsLong(), x); err != nil {
		return Entry{}, err
	}
	d.leave(name)
	return n.entry(name), nil
}

// rmdirHost removes the host directory of x, whose plain names are all gone. Both mutexes are held for writing.
func (d *Dir) rmdirHost(fd disk.Dir, host string, long bool, x *Dir) error {
	xfd, err := x.open() // and kept: it cannot be opened again
	if err != nil {
		return err
	}
	defer x.unpin()
	err = x.detach(func() error { return fd.Rmdir(host) })
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		var swept bool
		if swept, err = x.sweep(xfd, d, fd); err == nil && !swept {
			err = unix.ENOTEMPTY
		}
		if err == nil {
			err = x.detach(func() error { return fd.Rmdir(host) })
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST): // POSIX lets rmdir say either
		return unix.ENOTEMPTY
	default:
		return d.hostError(err, host)
	}
	d.dropSidecar(fd, host, long)
	return nil
}

// detach takes x out of the tree with the host call that does so there. place keeps a descriptor from being reopened meanwhile.
// A host directory that is gone already is detached all the same.
func (x *Dir) detach(remove func() error) error {
	t := x.t
	t.place.Lock()
	defer t.place.Unlock()
	if err := remove(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	x.dropMap()
	x.gone.Store(true)
	t.fds.keep(x)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.dirs, x.id)
	x.parent.refs-- // not the last one: the caller has one
	x.parent = nil
	return nil
}

// sweep empties the host directory of x, in which no plain name is left, as far as what is there was hidden by damage: nobody could remove it
// by its name. Its own (a long name without a good sidecar, an object of another type, a sidecar) goes; what was sealed elsewhere or changed is
// moved up into its parent, whose host directory is up, and stays hidden there: whoever moved it here can still put it back. With foreign objects nothing is
// touched, and a hidden directory that has contents stays. It reports whether the host directory is empty then.
func (x *Dir) sweep(fd disk.Dir, parent *Dir, up disk.Dir) (empty bool, err error) {
	var files, subdirs, strays []string
	isDir := make(map[string]bool)
	err = fd.List(func(host string, _ uint64, typ uint8) error {
		isDir[host] = typ == unix.DT_DIR
		switch owned := x.owns(host); {
		case owned && isDir[host]:
			subdirs = append(subdirs, host)
		case owned:
			files = append(files, host)
		case names.HasForm(host), names.IsSidecar(host):
			strays = append(strays, host)
		default:
			x.t.cfg.Events.Emit(event.Event{Kind: event.Foreign, Object: host, Offset: -1, Note: "keeps its directory from being removed"})
			return unix.ENOTEMPTY
		}
		return nil
	})
	each := func(all []string, note string, call func(string) error) {
		for _, host := range all {
			if err != nil {
				return
			}
			if err = call(host); err == nil {
				x.t.cfg.Events.Emit(event.Event{Kind: event.Repaired, Object: host, Offset: -1, Note: note})
			}
		}
	}
	each(subdirs, "hidden directory removed with the one around it", fd.Rmdir)
	each(strays, "hidden object moved up: the directory around it was removed", func(host string) error {
		err := fd.Rename(host, up, host, unix.RENAME_NOREPLACE)
		if err == nil && isDir[host] {
			parent.hidden++
		}
		return err
	})
	each(files, "hidden object removed with the directory around it", fd.Unlink)
	x.dropMap() // it counts hidden directories
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return false, nil
	}
	return false, fmt.Errorf("dirs: directory %s: %w", x.id, err)
}

// owns reports whether host is an authentic name of this directory, or a sidecar of one.
func (x *Dir) owns(host string) bool {
	if names.IsSidecar(host) {
		host = host[:len(host)-len(names.SidecarName(""))]
	}
	_, err := x.t.cfg.Codec.Open(x.id, host)
	return err == nil || errors.Is(err, names.ErrBadName)
}

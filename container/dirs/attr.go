package dirs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// Lookup answers the entry called name: ENOENT where there is none, ENAMETOOLONG beyond 255 bytes.
func (d *Dir) Lookup(name string) (Entry, error) {
	if len(name) > names.MaxName {
		return Entry{}, unix.ENAMETOOLONG
	}
	if err := d.rlock(); err != nil {
		return Entry{}, err
	}
	defer d.mu.RUnlock()
	n, ok := d.links[name]
	if !ok {
		return Entry{}, unix.ENOENT
	}
	return n.entry(name), nil
}

// Entries answers a copy of all entries, in the order of their link sequences: that is about the order of their inodes on the
// host, and who stats them one by one reads its inode tables once. A removed directory has none.
func (d *Dir) Entries() ([]Entry, error) {
	if err := d.rlock(); err != nil {
		return nil, err
	}
	all := make([]Entry, 0, len(d.links))
	for name, n := range d.links {
		all = append(all, n.entry(name))
	}
	d.mu.RUnlock()
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	return all, nil
}

// at runs f on the host object that name carries, or answers ErrStale where that is not id. Others may do so at the same time; the name
// stays as it is meanwhile.
func (d *Dir) at(name string, id keys.ObjectID, f func(fd disk.Dir, host string, n link) error) error {
	if err := d.rlock(); err != nil {
		return err
	}
	defer d.mu.RUnlock()
	n, ok := d.links[name]
	if !ok || n.id != id {
		return ErrStale
	}
	fd, err := d.open()
	if err != nil {
		return err
	}
	defer d.unpin()
	return f(fd, d.hostName(name, n), n)
}

// change is at for calls that write to the host.
func (d *Dir) change(name string, id keys.ObjectID, f func(fd disk.Dir, host string) error) error {
	if d.t.cfg.ReadOnly {
		return unix.EROFS
	}
	return d.at(name, id, func(fd disk.Dir, host string, _ link) error { return d.hostError(f(fd, host), host) })
}

// Stat fills st with what the host says of the object, but for these: the size of a symlink is that of its plain target, the
// mode of a container symlink is a symlink's, and links that are losers are not counted. The size of a container is the host's.
func (d *Dir) Stat(name string, id keys.ObjectID, st *unix.Stat_t) error {
	return d.Look(name, id, st, nil)
}

// Look is Stat, and then runs f, if there is one, on the extended attributes of the host object: for less than the two cost one after the other.
func (d *Dir) Look(name string, id keys.ObjectID, st *unix.Stat_t, f func(x disk.Xattrs)) error {
	return d.at(name, id, func(fd disk.Dir, host string, n link) error {
		if err := fd.Stat(host, st); err != nil {
			return d.hostError(err, host)
		}
		if f != nil {
			f(fd.Xattrs(host))
		}
		if want := n.open(name).HostMode(); st.Mode&unix.S_IFMT != want {
			return d.damage(host, fmt.Errorf("%w: a %s of host mode %o", ErrName, n.typ, st.Mode&unix.S_IFMT))
		}
		switch {
		case n.typ != names.Symlink:
		case n.flags&names.ContainerSymlink != 0:
			st.Mode = unix.S_IFLNK | 0o777
		default:
			st.Size = names.TargetLen(st.Size)
		}
		if t := d.t; n.typ != names.Dir && t.haveLosers.Load() {
			t.mu.Lock()
			st.Nlink = fewer(st.Nlink, t.loserLinks[n.id], 1)
			t.mu.Unlock()
		}
		return nil
	})
}

// Open opens the container of a file or container symlink. EISDIR for a directory, EINVAL for other objects.
func (d *Dir) Open(name string, id keys.ObjectID, a disk.Access) (f disk.File, err error) {
	if d.t.cfg.ReadOnly && a == disk.ReadWrite {
		return nil, unix.EROFS
	}
	err = d.at(name, id, func(fd disk.Dir, host string, n link) error {
		switch {
		case n.typ == names.Dir:
			return unix.EISDIR
		case !n.open(name).IsContainer():
			return unix.EINVAL
		}
		f, err = fd.Open(host, a)
		return d.hostError(err, host)
	})
	return f, err
}

// OpenPath pins the object so that its attributes stay reachable when its name is gone.
func (d *Dir) OpenPath(name string, id keys.ObjectID) (f disk.File, err error) {
	err = d.at(name, id, func(fd disk.Dir, host string, _ link) error {
		f, err = fd.OpenPath(host)
		return d.hostError(err, host)
	})
	return f, err
}

// Chmod sets the permission bits of the host object.
func (d *Dir) Chmod(name string, id keys.ObjectID, mode uint32) error {
	return d.change(name, id, func(fd disk.Dir, host string) error { return fd.Chmod(host, mode&0o7777) })
}

// Chown sets owner and group; -1 leaves one as it is.
func (d *Dir) Chown(name string, id keys.ObjectID, uid, gid int) error {
	return d.change(name, id, func(fd disk.Dir, host string) error { return fd.Chown(host, uid, gid) })
}

// Utimes sets atime and mtime as utimensat(2) does.
func (d *Dir) Utimes(name string, id keys.ObjectID, ts *[2]unix.Timespec) error {
	return d.change(name, id, func(fd disk.Dir, host string) error { return fd.Utimes(host, ts) })
}

// Xattrs runs f on the extended attributes of the host object. With change f may write to them.
func (d *Dir) Xattrs(name string, id keys.ObjectID, change bool, f func(x disk.Xattrs) error) error {
	if change && d.t.cfg.ReadOnly {
		return unix.EROFS
	}
	return d.at(name, id, func(fd disk.Dir, host string, _ link) error { return d.hostError(f(fd.Xattrs(host)), host) })
}

// Readlink answers the plain target of a symlink. EINVAL for other objects, and for a container symlink: its target is
// what its container holds, and Open opens that.
func (d *Dir) Readlink(name string, id keys.ObjectID) (target string, err error) {
	err = d.at(name, id, func(fd disk.Dir, host string, n link) error {
		if n.typ != names.Symlink || n.flags&names.ContainerSymlink != 0 {
			return unix.EINVAL
		}
		sealed, err := fd.Readlink(host)
		if errors.Is(err, unix.EINVAL) { // the host object is no symlink any more
			return d.damage(host, fmt.Errorf("%w: %v", ErrName, err))
		}
		if err != nil {
			return d.hostError(err, host)
		}
		if target, err = d.t.cfg.Codec.OpenTarget(id, sealed); err != nil {
			return d.damage(host, fmt.Errorf("%w: target: %v", ErrName, err))
		}
		return nil
	})
	return target, err
}

// self runs f on the directory itself, which may be removed.
func (d *Dir) self(f func(fd disk.Dir) error) error {
	fd, err := d.open()
	if err != nil {
		return err
	}
	defer d.unpin()
	if err := f(fd); err != nil {
		return fmt.Errorf("dirs: directory %s: %w", d.id, err)
	}
	return nil
}

func (d *Dir) changeSelf(f func(fd disk.Dir) error) error {
	if d.t.cfg.ReadOnly {
		return unix.EROFS
	}
	return d.self(f)
}

// StatSelf fills st with what the host says of the directory, .coffer and (where the map is loaded) other subdirectories without a plain
// name not counted as links.
func (d *Dir) StatSelf(st *unix.Stat_t) error {
	if err := d.self(func(fd disk.Dir) error { return fd.StatSelf(st) }); err != nil {
		return err
	}
	hidden := 0
	if d == d.t.root {
		hidden++
	}
	if d.mu.TryRLock() { // a count that is one too high for a moment is not worth waiting for
		hidden += d.hidden
		d.mu.RUnlock()
	}
	st.Nlink = fewer(st.Nlink, hidden, 2) // btrfs says 1 always, a removed directory has 0
	return nil
}

// fewer takes n from a link count, which has another type on each architecture, but not below least.
func fewer[T uint32 | uint64](links T, n int, least T) T {
	if links <= least {
		return links
	}
	return links - min(T(n), links-least)
}

// ChmodSelf, ChownSelf and UtimesSelf set the directory's own attributes, also once it is removed.
func (d *Dir) ChmodSelf(mode uint32) error {
	return d.changeSelf(func(fd disk.Dir) error { return fd.ChmodSelf(mode & 0o7777) })
}

// ChownSelf: see ChmodSelf; -1 leaves one as it is.
func (d *Dir) ChownSelf(uid, gid int) error {
	return d.changeSelf(func(fd disk.Dir) error { return fd.ChownSelf(uid, gid) })
}

// UtimesSelf: see ChmodSelf; times as in utimensat(2).
func (d *Dir) UtimesSelf(ts *[2]unix.Timespec) error {
	return d.changeSelf(func(fd disk.Dir) error { return fd.UtimesSelf(ts) })
}

// XattrsSelf runs f on the extended attributes of the directory itself, also once it is removed. With change f may write to them.
func (d *Dir) XattrsSelf(change bool, f func(x disk.Xattrs) error) error {
	if change && d.t.cfg.ReadOnly {
		return unix.EROFS
	}
	return d.self(func(fd disk.Dir) error { return f(fd.XattrsSelf()) })
}

// Sync makes the names of the directory durable: every creation, link, rename and removal that returned before it. In read-only mode it
// does nothing.
func (d *Dir) Sync() error {
	if d.t.cfg.ReadOnly {
		return nil
	}
	return d.self(disk.Dir.Sync)
}

// SyncAll makes all names of the tree durable, and whatever else was written to the host's filesystem.
func (t *Tree) SyncAll() error {
	if t.cfg.ReadOnly {
		return nil
	}
	return t.root.self(disk.Dir.SyncAll)
}

// Statfs answers what the host says of its filesystem.
func (d *Dir) Statfs(st *unix.Statfs_t) error {
	return d.self(func(fd disk.Dir) error { return fd.Statfs(st) })
}

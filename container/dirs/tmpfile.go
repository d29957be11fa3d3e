package dirs

import (
	"errors"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// Tmpfile creates a file without a name in d's host directory and answers its host file, which is empty and the caller's, and an entry that is
// complete but for name and sequence: LinkFile may give it those. No crash leaves anything of it. EOPNOTSUPP where the host cannot.
func (d *Dir) Tmpfile(mode uint32, uid, gid int) (f disk.File, e Entry, err error) {
	n := link{id: keys.RandomObjectID(), typ: names.File, geometry: d.t.cfg.Geometry, flags: names.NoHeader}
	err = d.changeSelf(func(fd disk.Dir) (err error) {
		w := want{n.id, names.File, mode, uid, gid}
		err = disk.As(uid, gid, func() error {
			f, err = fd.Tmpfile(d.firstMode(w))
			return err
		})
		if err != nil {
			return err
		}
		if err = d.setAttributes(f, w); err != nil {
			var made madeError
			if errors.As(err, &made) {
				err = made.error
			}
			err = errors.Join(err, f.Close())
		}
		return err
	})
	if err != nil {
		return nil, Entry{}, err
	}
	return f, n.entry(""), nil
}

// LinkFile makes name in d a name of an object that has none here, but an open host file: one of Tmpfile, or one whose other names are not known.
// e is its entry so far, hasHeader as in Link. ENOENT where the host has removed its last name.
func (d *Dir) LinkFile(name string, f disk.File, e Entry, hasHeader bool) (Entry, error) {
	if err := d.lockFor(name); err != nil {
		return Entry{}, err
	}
	defer d.mu.Unlock()
	if err := d.vacant(name); err != nil {
		return Entry{}, err
	}
	if e.Type == names.Dir {
		return Entry{}, unix.EPERM
	}
	fd, err := d.open()
	if err != nil {
		return Entry{}, err
	}
	defer d.unpin()
	n := link{id: e.ID, typ: e.Type, geometry: e.Geometry, flags: e.Flags}
	if hasHeader {
		n.flags &^= names.NoHeader
	}
	if err := d.introduce(fd, name, &n, func(host string) error { return fd.LinkFile(f, host) }); err != nil {
		return Entry{}, err
	}
	d.enter(name, n)
	return n.entry(name), nil
}

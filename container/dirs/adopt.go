package dirs

import (
	"errors"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// SetAttributes gives the host file of a container that has no name in the tree yet mode and owner, as creations do; uid and gid of -1 leave what the host
// gave. Adopt may make it known afterwards.
func (t *Tree) SetAttributes(f disk.File, id keys.ObjectID, mode uint32, uid, gid int) error {
	err := t.root.setAttributes(f, want{id, names.File, mode, uid, gid})
	var made madeError
	if errors.As(err, &made) {
		err = made.error
	}
	return err
}

// Adopt brings a host object that shows nowhere in the tree into d under a name, with one rename on the host: what is called host in the directory from,
// which is not d's. e is what is known of it; name and sequence do not count. What the name carried goes as by Rename where replace says so, but a
// directory does not (EISDIR); else it is EEXIST. ErrStale where there is no such object. The caller syncs both directories.
func (d *Dir) Adopt(name string, e Entry, from disk.Dir, host string, replace bool) (Entry, error) {
	if err := d.lockFor(name); err != nil {
		return Entry{}, err
	}
	defer d.mu.Unlock()
	old, taken := d.links[name]
	switch err := d.vacant(name); {
	case taken && replace && old.typ == names.Dir:
		return Entry{}, unix.EISDIR
	case err != nil && !(taken && replace):
		return Entry{}, err
	}
	fd, err := d.open()
	if err != nil {
		return Entry{}, err
	}
	defer d.unpin()
	if err := d.removeLosers(fd, name); err != nil {
		return Entry{}, err
	}
	n := link{id: e.ID, typ: e.Type, geometry: e.Geometry, flags: e.Flags &^ names.Long}
	err = d.introduce(fd, name, &n, func(sealed string) error { return from.Rename(host, fd, sealed, 0) })
	if errors.Is(err, unix.ENOENT) {
		return Entry{}, ErrStale
	}
	if err != nil {
		return Entry{}, err
	}
	if taken {
		d.leave(name)
	}
	d.enter(name, n)
	if taken {
		r := renaming{t: d.t, dst: d, dfd: fd, new: name, to: old}
		r.bury()
	}
	return n.entry(name), nil
}

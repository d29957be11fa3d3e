package dirs

import (
	"errors"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// Settle gives the host file of a container that has no name in the tree yet mode and owner, as creations do; uid and gid of -1 leave what the host
// gave. Adopt may make it known afterwards.
func (t *Tree) Settle(f disk.File, id keys.ObjectID, mode uint32, uid, gid int) error {
	err := t.root.settle(f, want{id, names.File, mode, uid, gid})
	var made madeError
	if errors.As(err, &made) {
		err = made.error
	}
	return err
}

// Adopt brings a container that stands outside of the tree, as host in the directory from, into d under a name, with one host call. Its header is durable; e
// says id and geometry. What the name carried is replaced as by Rename; EISDIR where that is a directory.
func (d *Dir) Adopt(name string, from disk.Dir, host string, e Entry) (Entry, error) {
	if err := d.admit(name); err != nil {
		return Entry{}, err
	}
	if err := d.lock(); err != nil {
		return Entry{}, err
	}
	defer d.mu.Unlock()
	old, replaces := d.links[name]
	switch {
	case d.gone.Load():
		return Entry{}, unix.ENOENT
	case replaces && old.typ == names.Dir:
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
	n := link{id: e.ID, typ: names.File, geometry: e.Geometry}
	if err := d.introduce(fd, name, &n, func(sealed string) error { return from.Rename(host, fd, sealed, 0) }); err != nil {
		return Entry{}, err
	}
	if replaces {
		d.leave(name)
	}
	d.enter(name, n)
	if replaces {
		r := renaming{t: d.t, dst: d, dfd: fd, new: name, to: old}
		r.bury()
	}
	return n.entry(name), nil
}

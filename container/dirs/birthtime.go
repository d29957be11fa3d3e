package dirs

import (
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// BirthTime answers when the object was made, in ns since 1970; 0 where the host does not know.
func (d *Dir) BirthTime(name string, id keys.ObjectID) (ns int64, err error) {
	err = d.at(name, id, func(fd disk.Dir, host string, _ link) error {
		ns, err = fd.BirthTime(host)
		return d.hostError(err, host)
	})
	return ns, err
}

// BirthTimeSelf is BirthTime of the directory itself, which may be removed.
func (d *Dir) BirthTimeSelf() (ns int64, err error) {
	err = d.self(func(fd disk.Dir) error { ns, err = fd.BirthTimeSelf(); return err })
	return ns, err
}

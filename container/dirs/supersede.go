package dirs

import (
	"fmt"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// What follows is for a repair: it puts files in the place of others.

// CreateContainer is CreateFile with a geometry of its own, and for a symlink whose target is to be in a container as well.
func (d *Dir) CreateContainer(name string, typ names.Type, geometry uint8, mode uint32, uid, gid int) (f disk.File, e Entry, err error) {
	n := link{typ: typ, geometry: geometry, flags: names.NoHeader}
	if typ == names.Symlink {
		n.flags |= names.ContainerSymlink
	}
	e, err = d.create(name, n, func(fd disk.Dir, host string, id keys.ObjectID) error {
		f, err = d.createFile(fd, host, want{id, typ, mode, uid, gid})
		return err
	})
	if err != nil {
		return nil, Entry{}, err
	}
	return f, e, nil
}

// Supersede makes name a name of the file that srcName carries in src, in place of the file that it carries. Through any power cut it carries the one or the
// other, and when Supersede returns the new one, durably: the old one loses this name only after that. The file must be durable and have its header; srcName stays.
func (d *Dir) Supersede(name string, src *Dir, srcName string) error {
	if err := d.admit(name); err != nil {
		return err
	}
	unlock, err := lockAll(d, src)
	if err != nil {
		return err
	}
	defer unlock()
	n, ok := src.links[srcName]
	old, carries := d.links[name]
	if !ok || !carries || n.id == old.id || n.typ == names.Dir || old.typ == names.Dir {
		return ErrStale
	}
	from, err := src.open()
	if err != nil {
		return err
	}
	defer src.unpin()
	fd, err := d.open()
	if err != nil {
		return err
	}
	defer d.unpin()
	if err := d.removeLosers(fd, name); err != nil {
		return err
	}
	srcHost := src.hostName(srcName, n)
	n.flags &^= names.NoHeader
	if err := d.introduce(fd, name, &n, func(host string) error { return from.Link(srcHost, fd, host) }); err != nil {
		return err
	}
	d.links[name] = n
	d.addLoser(name, old)
	if err := fd.Sync(); err != nil {
		return fmt.Errorf("dirs: directory %s: %w", d.id, err)
	}
	return d.removeLosers(fd, name)
}

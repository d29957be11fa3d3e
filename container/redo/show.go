package redo

import (
	"io"
	"io/fs"
	"math"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// shown is what a View shows of names: files that a replay would make, objects that it would move, and host names that it would remove. Sealed names are one object's
// in all of a vault.
type shown struct {
	c       *Config
	made    map[string]*file // by host name
	inodes  map[string]uint64
	moved   map[string]*placed         // nil: nothing shows under that name
	in      map[keys.ObjectID][]listed // names of made and moved, by directory
	dropped map[string]bool
}

// listed is a name that is listed besides those on the host.
type listed struct {
	name string
	ino  uint64
	typ  uint8
}

// show finds out which names a View shows otherwise; nil where there are none, or where directories cannot be read, of which an event tells: all else can be shown.
func (c *Config) show(x *index) *shown {
	var all []*file
	for _, f := range x.order {
		if f.made != nil || f.removed {
			all = append(all, f)
		}
	}
	l, err := c.locate(all)
	if err != nil {
		c.Events.Emit(event.Event{Kind: event.Failed, Object: c.RootID.String(), Offset: -1, Err: err, Note: "files that only the journal has do not show"})
	}
	s := &shown{
		c: c, made: map[string]*file{}, inodes: map[string]uint64{}, moved: map[string]*placed{}, in: map[keys.ObjectID][]listed{}, dropped: map[string]bool{},
	}
	s.finishAll(x.exchanges)
	if err != nil {
		l = located{}
	}
	if len(l.lacking)+len(l.dropped)+len(s.moved) == 0 {
		return nil
	}
	for i, f := range l.lacking {
		last := len(f.path) - 1
		id, err := c.dirID(f.path[:last])
		if err != nil {
			continue // it never was
		}
		name := f.path[last]
		s.made[name], s.inodes[name] = f, math.MaxUint64-uint64(i)
		s.in[id] = append(s.in[id], listed{name, s.inodes[name], unix.DT_REG})
	}
	for _, f := range l.dropped {
		s.dropped[f.path[len(f.path)-1]] = true
	}
	return s
}

// Root answers the root directory of the vault with the names that a replay would leave; d where these are the host's.
func (v *View) Root(d disk.Dir) disk.Dir {
	if v == nil || v.shown == nil {
		return d
	}
	return &viewDir{Dir: d, s: v.shown, id: v.shown.c.RootID}
}

// viewDir is a directory seen through a View.
type viewDir struct {
	disk.Dir
	s  *shown
	id keys.ObjectID
}

// find answers where a name is: in a directory of the host, there perhaps under another name, or it is a file to be made. An error says that it is gone.
func (d *viewDir) find(op, name string) (made *madeFile, host disk.Dir, hostName string, err error) {
	if p, moved := d.s.moved[name]; moved && p != nil && p.to == d.id {
		return nil, p.dir, p.name, nil
	} else if moved || d.s.dropped[name] {
		return nil, nil, "", &fs.PathError{Op: op, Path: name, Err: unix.ENOENT}
	}
	if f := d.s.made[name]; f != nil {
		if l, err := d.s.c.Names.Open(d.id, name); err == nil && l.ID == f.id { // else it is of another directory
			return &madeFile{f, d.s.inodes[name]}, nil, "", nil
		}
	}
	return nil, d.Dir, name, nil
}

func (d *viewDir) Open(name string, a disk.Access) (disk.File, error) {
	made, host, name, err := d.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case made == nil:
		return host.Open(name, a)
	}
	return made, nil
}

func (d *viewDir) OpenPath(name string) (disk.File, error) {
	made, host, name, err := d.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case made == nil:
		return host.OpenPath(name)
	}
	return made, nil
}

func (d *viewDir) OpenDir(name string) (disk.Dir, error) {
	made, host, hostName, err := d.find("open", name)
	if made != nil {
		err = &fs.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
	}
	if err != nil {
		return nil, err
	}
	sub, err := host.OpenDir(hostName)
	if err != nil {
		return nil, err
	}
	l, err := d.s.c.Names.Open(d.id, name)
	if err != nil {
		return sub, nil // none of ours
	}
	return &viewDir{Dir: sub, s: d.s, id: l.ID}, nil
}

func (d *viewDir) Stat(name string, st *unix.Stat_t) error {
	made, host, name, err := d.find("stat", name)
	switch {
	case err != nil:
		return err
	case made == nil:
		return host.Stat(name, st)
	}
	return made.Stat(st)
}

func (d *viewDir) BirthTime(name string) (int64, error) {
	made, host, name, err := d.find("stat", name)
	if made != nil || err != nil {
		return 0, err
	}
	return host.BirthTime(name)
}

func (d *viewDir) Readlink(name string) (string, error) {
	made, host, hostName, err := d.find("readlink", name)
	if made != nil {
		err = &fs.PathError{Op: "readlink", Path: name, Err: unix.EINVAL}
	}
	if err != nil {
		return "", err
	}
	return host.Readlink(hostName)
}

func (d *viewDir) Xattrs(name string) disk.Xattrs {
	made, host, hostName, err := d.find("xattr", name)
	switch {
	case err != nil:
		return d.Dir.Xattrs(name) // of nothing
	case made == nil:
		return host.Xattrs(hostName)
	}
	return made
}

func (d *viewDir) List(fn func(name string, ino uint64, typ uint8) error) error {
	err := d.Dir.List(func(name string, ino uint64, typ uint8) error {
		if _, moved := d.s.moved[name]; moved || d.s.dropped[name] {
			return nil
		}
		return fn(name, ino, typ)
	})
	for _, l := range d.s.in[d.id] {
		if err == nil {
			err = fn(l.name, l.ino, l.typ)
		}
	}
	return err
}

// madeFile stands for the host file that a replay would make, before it writes there; View.Wrap shows what it would write.
type madeFile struct {
	f   *file
	ino uint64
}

func (m *madeFile) Stat(st *unix.Stat_t) error {
	*st = unix.Stat_t{Ino: m.ino, Nlink: 1, Mode: unix.S_IFREG | m.f.made.Mode, Uid: m.f.made.UID, Gid: m.f.made.GID, Blksize: block, Mtim: m.f.mtime, Ctim: m.f.mtime}
	return nil
}

func (m *madeFile) ReadAt([]byte, int64) (int, error)  { return 0, io.EOF }
func (m *madeFile) WriteAt([]byte, int64) (int, error) { return 0, readOnly("write") }
func (m *madeFile) Truncate(int64) error               { return readOnly("truncate") }
func (m *madeFile) Punch(int64, int64) error           { return readOnly("punch") }
func (m *madeFile) Allocate(int64, int64) error        { return readOnly("fallocate") }
func (m *madeFile) Chmod(uint32) error                 { return readOnly("chmod") }
func (m *madeFile) Chown(int, int) error               { return readOnly("chown") }
func (m *madeFile) Utimes(*[2]unix.Timespec) error     { return readOnly("utimes") }
func (m *madeFile) Setxattr(string, []byte, int) error { return readOnly("setxattr") }
func (m *madeFile) Removexattr(string) error           { return readOnly("removexattr") }
func (m *madeFile) Listxattr([]byte) (int, error)      { return 0, nil }
func (m *madeFile) BirthTime() (int64, error)          { return 0, nil }
func (m *madeFile) Datasync() error                    { return nil }
func (m *madeFile) Sync() error                        { return nil }
func (m *madeFile) Close() error                       { return nil }
func (m *madeFile) Getxattr(attr string, _ []byte) (int, error) {
	return 0, &fs.PathError{Op: "getxattr", Path: attr, Err: unix.ENODATA}
}

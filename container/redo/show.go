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

// shown is what a View shows of names: files that a replay would make, and host names that it would remove. Sealed names are one object's in all of a vault.
type shown struct {
	c       *Config
	made    map[string]*file // by host name
	inodes  map[string]uint64
	in      map[keys.ObjectID][]string // names of made, by directory
	dropped map[string]bool
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
	if err != nil || len(l.lacking)+len(l.dropped) == 0 {
		return nil
	}
	s := &shown{c: c, made: map[string]*file{}, inodes: map[string]uint64{}, in: map[keys.ObjectID][]string{}, dropped: map[string]bool{}}
	for i, f := range l.lacking {
		last := len(f.path) - 1
		id, err := c.dirID(f.path[:last])
		if err != nil {
			continue // it never was
		}
		name := f.path[last]
		s.made[name], s.inodes[name] = f, math.MaxUint64-uint64(i)
		s.in[id] = append(s.in[id], name)
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

// find answers what the View has of a name: a file to be made, or that it is gone.
func (d *viewDir) find(op, name string) (*madeFile, error) {
	if d.s.dropped[name] {
		return nil, &fs.PathError{Op: op, Path: name, Err: unix.ENOENT}
	}
	f := d.s.made[name]
	if f == nil {
		return nil, nil
	}
	if l, err := d.s.c.Names.Open(d.id, name); err != nil || l.ID != f.id { // of another directory
		return nil, nil
	}
	return &madeFile{f, d.s.inodes[name]}, nil
}

func (d *viewDir) Open(name string, readOnly bool) (disk.File, error) {
	f, err := d.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case f == nil:
		return d.Dir.Open(name, readOnly)
	}
	return f, nil
}

func (d *viewDir) OpenPath(name string) (disk.File, error) {
	f, err := d.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case f == nil:
		return d.Dir.OpenPath(name)
	}
	return f, nil
}

func (d *viewDir) OpenDir(name string) (disk.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
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
	f, err := d.find("stat", name)
	if f == nil && err == nil {
		return d.Dir.Stat(name, st)
	}
	if err == nil {
		err = f.Stat(st)
	}
	return err
}

func (d *viewDir) BirthTime(name string) (int64, error) {
	f, err := d.find("stat", name)
	if f == nil && err == nil {
		return d.Dir.BirthTime(name)
	}
	return 0, err
}

func (d *viewDir) Xattrs(name string) disk.Xattrs {
	if f, err := d.find("xattr", name); f != nil && err == nil {
		return f
	}
	return d.Dir.Xattrs(name)
}

func (d *viewDir) List(fn func(name string, ino uint64, typ uint8) error) error {
	err := d.Dir.List(func(name string, ino uint64, typ uint8) error {
		if d.s.dropped[name] {
			return nil
		}
		return fn(name, ino, typ)
	})
	for _, name := range d.s.in[d.id] {
		if err == nil {
			err = fn(name, d.s.inodes[name], unix.DT_REG)
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

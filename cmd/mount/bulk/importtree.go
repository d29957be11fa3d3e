package bulk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/plain"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// owner is whom a new object is to belong to: the owner of the source, where this process may give it away.
func owner(st *unix.Stat_t) (uid, gid int) {
	if os.Geteuid() != 0 {
		return -1, -1
	}
	return int(st.Uid), int(st.Gid)
}

// inTheWay reports whether an entry cannot make way for an object of another type.
func inTheWay(e dirs.Entry, typ names.Type) bool {
	return (e.Type == names.Dir) != (typ == names.Dir)
}

// lookup answers ok false where name is free.
func lookup(d *dirs.Dir, name string) (e dirs.Entry, ok bool, err error) {
	e, err = d.Lookup(name)
	if errors.Is(err, unix.ENOENT) {
		return e, false, nil
	}
	return e, err == nil, err
}

// directory copies a directory and what is in it; its attributes come last.
func (m *Import) directory(ctx context.Context, d *dirs.Dir, path, name string, st *unix.Stat_t) error {
	sub := d
	if name != "" {
		e, ok, err := lookup(d, name)
		switch {
		case err != nil:
			return inVault(err)
		case ok && inTheWay(e, names.Dir):
			return errExists
		case !ok:
			uid, gid := owner(st)
			if e, err = d.Mkdir(name, st.Mode&0o7777, uid, gid); err != nil {
				return inVault(err)
			}
		}
		if sub, err = d.Child(name, e.ID); err != nil {
			return inVault(err)
		}
		defer sub.Release()
		n := len(m.within)
		m.within = append(m.within, d)
		defer func() { m.within = m.within[:min(n, len(m.within))] }()
	}
	m.counters.dirs.Add(1)
	children, err := os.ReadDir(path)
	for _, c := range children {
		m.tree(ctx, sub, filepath.Join(path, c.Name()), c.Name())
	}
	if err != nil || name == "" || m.stopped(ctx) {
		return err
	}
	attrs, err := hostAttributes(path)
	if err != nil {
		return err
	}
	sub.Retain()
	m.open.left = append(m.open.left, leftDir{sub, path, attrs, [2]unix.Timespec{st.Atim, st.Mtim}})
	return nil
}

// anchor makes durable where a file is to be: a resume point is found again by the directory's id.
func (m *Import) anchor() error {
	for _, d := range m.within {
		if err := d.Sync(); err != nil {
			return err
		}
	}
	m.within = m.within[:0]
	return nil
}

// leftDir is a directory that nothing is added to any more, but for the names of files that wait to be durable. It holds a reference.
type leftDir struct {
	dir   *dirs.Dir
	path  string // of the source
	attrs map[string][]byte
	times [2]unix.Timespec
}

// finishDirs gives directories their attributes; each name that is added changes the mtime.
func (m *Import) finishDirs(left []leftDir) {
	for _, l := range left {
		err := l.dir.XattrsSelf(true, func(x disk.Xattrs) error { return m.setXattrs(x, xattrs.Object{ID: l.dir.ID()}, l.attrs) })
		if err == nil {
			err = l.dir.UtimesSelf(&l.times)
		}
		m.check(l.path, inVault(err))
		l.dir.Release()
	}
}

// hostAttributes are the user attributes of a host object.
func hostAttributes(path string) (map[string][]byte, error) {
	n, err := unix.Llistxattr(path, nil)
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && n == 0 {
		return nil, nil
	}
	all := map[string][]byte{}
	list := make([]byte, 1<<16)
	if err == nil {
		n, err = unix.Llistxattr(path, list)
	}
	if err != nil {
		return nil, pathError("listxattr", path, err)
	}
	value := make([]byte, 1<<16)
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(attr, "user.") {
			continue
		}
		k, err := unix.Lgetxattr(path, attr, value)
		if err != nil {
			return nil, pathError("getxattr", path, err)
		}
		all[attr] = append([]byte(nil), value[:k]...)
	}
	return all, nil
}

// setXattrs seals attributes. A host that has none keeps none.
func (m *Import) setXattrs(x disk.Xattrs, o xattrs.Object, attrs map[string][]byte) error {
	for attr, value := range attrs {
		if err := m.View.Attrs.Set(x, o, attr, value, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

// special copies a symlink or a FIFO, unless it is there.
func (m *Import) special(d *dirs.Dir, path, name string, st *unix.Stat_t) error {
	typ := names.TypeOfMode(st.Mode)
	target := ""
	if typ == names.Symlink {
		var err error
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	e, ok, err := lookup(d, name)
	switch {
	case err != nil:
		return inVault(err)
	case ok && inTheWay(e, typ):
		return errExists
	case ok && e.Type == typ && m.sameSpecial(d, name, target, st):
		m.counters.skipped.Add(1)
		return nil
	case ok:
		if _, err := d.Unlink(name); err != nil {
			return inVault(err)
		}
	}
	uid, gid := owner(st)
	if typ == names.FIFO {
		e, err = d.Mknod(name, st.Mode, 0, uid, gid)
	} else if e, err = d.Symlink(name, target, uid, gid); errors.Is(err, dirs.ErrTargetTooLong) {
		e, err = d.SymlinkContainer(name, uid, gid, func(h disk.File, id keys.ObjectID) error { return m.longTarget(h, id, target) })
	}
	if err == nil {
		err = d.Utimes(name, e.ID, &[2]unix.Timespec{st.Atim, st.Mtim})
	}
	if err != nil {
		return inVault(err)
	}
	m.counters.others.Add(1)
	return nil
}

func (m *Import) sameSpecial(d *dirs.Dir, name, target string, st *unix.Stat_t) bool {
	n, err := m.nodeOf(d, name)
	if err != nil {
		return false
	}
	defer n.Release()
	have, err := n.Stat()
	if err != nil || have.Mtime != st.Mtim {
		return false
	}
	if target == "" {
		return true
	}
	got, err := n.Readlink()
	return err == nil && got == target
}

// nodeOf is a name in d as a plain.Node.
func (m *Import) nodeOf(d *dirs.Dir, name string) (plain.Node, error) {
	return m.View.In(d, name)
}

// longTarget makes the container of a symlink's target, and closes h.
func (m *Import) longTarget(h disk.File, id keys.ObjectID, target string) error {
	c, err := m.View.Engine.Create(h, id, container.ObjectSymlink)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	w := newSegments(c.Geometry(), c.Geometry().SegmentSize)
	copy(w.buf, target)
	err = c.WriteFrames(int64(len(target)), w.writes(0, len(target), false))
	if err == nil {
		err = c.Sync()
	}
	return errors.Join(err, c.Close())
}

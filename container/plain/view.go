package plain

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// View is the plain tree of an open vault. Its parts stay the caller's.
type View struct {
	Tree        *dirs.Tree
	Engine      *container.Engine
	Attrs       *xattrs.Codec
	UncleanTime func(ctime unix.Timespec) bool // as vault.Vault has them
	UncleanSeq  func(seq uint64) bool
}

// Root returns the root directory.
func (v *View) Root() Node {
	return &node{v: v, entry: dirs.Entry{Type: names.Dir, ID: v.Tree.Root().ID()}}
}

// In returns what a directory of the tree has under a name: ENOENT where there is nothing.
func (v *View) In(d *dirs.Dir, name string) (Node, error) {
	e, err := d.Lookup(name)
	if err != nil {
		return nil, err
	}
	d.Retain()
	return &node{v: v, parent: d, entry: e}, nil
}

// DirOf returns the directory that a node of a View is, which lives as long as the node; ok is false for all other nodes.
func DirOf(n Node) (d *dirs.Dir, ok bool) {
	x, ok := n.(*node)
	if !ok || x.entry.Type != names.Dir {
		return nil, false
	}
	d, err := x.directory()
	return d, err == nil
}

// node is an object under a name in parent, of which it holds a reference; the root has no parent.
type node struct {
	v      *View
	parent *dirs.Dir
	entry  dirs.Entry

	once sync.Once // opens dir
	dir  *dirs.Dir
	err  error
}

func (n *node) Name() string { return n.entry.Name }

func (n *node) Release() {
	if n.parent == nil {
		return
	}
	n.once.Do(func() {}) // no directory is opened any more
	if n.dir != nil {
		n.dir.Release()
	}
	n.parent.Release()
}

// directory returns the Dir of a directory, which lives as long as n.
func (n *node) directory() (*dirs.Dir, error) {
	if n.parent == nil {
		return n.v.Tree.Root(), nil
	}
	n.once.Do(func() { n.dir, n.err = n.parent.Child(n.entry.Name, n.entry.ID) })
	return n.dir, n.err
}

func (n *node) below(d *dirs.Dir, e dirs.Entry) Node {
	d.Retain()
	return &node{v: n.v, parent: d, entry: e}
}

func (n *node) Child(name string) (Node, error) {
	if name == "." {
		if n.parent == nil {
			return n, nil
		}
		return n.below(n.parent, n.entry), nil
	}
	d, err := n.directory()
	if err != nil {
		return nil, err
	}
	e, err := d.Lookup(name)
	if err != nil {
		return nil, err
	}
	return n.below(d, e), nil
}

func (n *node) Children() ([]Node, error) {
	d, err := n.directory()
	if err != nil {
		return nil, err
	}
	entries, err := d.Entries()
	if err != nil {
		return nil, err
	}
	all := make([]Node, len(entries))
	for i, e := range entries {
		all[i] = n.below(d, e)
	}
	return all, nil
}

func (n *node) Stat() (Stat, error) {
	var st unix.Stat_t
	err := n.hostStat(&st)
	if err == nil && n.entry.Geometry != 0 {
		st.Size, err = n.size(&st)
	}
	if err == nil && st.Mode&unix.S_IFMT != n.entry.Type.Mode() {
		err = dirs.ErrName
	}
	if err != nil {
		return Stat{}, err
	}
	s := Stat{
		Mode: st.Mode, Size: st.Size, Blocks: st.Blocks, UID: st.Uid, GID: st.Gid, Nlink: uint64(st.Nlink), Rdev: st.Rdev, Object: n.entry.ID.String(),
		Atime: st.Atim, Mtime: st.Mtim, Ctime: st.Ctim,
	}
	return s, n.showMode(&s)
}

func (n *node) hostStat(st *unix.Stat_t) error {
	if n.parent == nil {
		return n.v.Tree.Root().StatSelf(st)
	}
	if n.entry.Type == names.Dir {
		d, err := n.directory()
		if err != nil {
			return err
		}
		return d.StatSelf(st)
	}
	return n.parent.Stat(n.entry.Name, n.entry.ID, st)
}

// size is the plain size of a container: as its host length tells, or, where an unclean session may have left a length that tells nothing, as sealed in its
// header.
func (n *node) size(st *unix.Stat_t) (int64, error) {
	if !n.v.UncleanTime(st.Ctim) {
		g, err := container.GeometryByID(n.entry.Geometry)
		if err != nil {
			return 0, err
		}
		return g.PlainSize(st.Size)
	}
	h, err := n.parent.Open(n.entry.Name, n.entry.ID, disk.ReadOnly)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	return n.v.Engine.ReadSize(h, n.entry.ID, n.mayLackHeader())
}

func (n *node) mayLackHeader() bool { return n.entry.Flags.MayLackHeader(n.entry.Seq, n.v.UncleanSeq) }

// withXattrs runs f on the attributes on the host. A host without any has none to show.
func (n *node) withXattrs(f func(x disk.Xattrs, o xattrs.Object) error) error {
	o := xattrs.Object{ID: n.entry.ID, Trusted: n.entry.Type != names.Dir && n.entry.Geometry == 0}
	run := func(x disk.Xattrs) error { return f(x, o) }
	var err error
	if n.entry.Type == names.Dir {
		var d *dirs.Dir
		if d, err = n.directory(); err == nil {
			err = d.XattrsSelf(false, run)
		}
	} else {
		err = n.parent.Xattrs(n.entry.Name, n.entry.ID, false, run)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// showMode puts the sealed mode in, where there is one and the host's is still what it was made of (FORMAT.md 8.7).
func (n *node) showMode(s *Stat) error {
	needed := dirs.NeededMode(n.entry.Type)
	if s.Mode&needed != needed || needed == 0 {
		return nil
	}
	return n.withXattrs(func(x disk.Xattrs, o xattrs.Object) error {
		mode, set, err := n.v.Attrs.Mode(x, o)
		if set && s.Mode&0o7777 == dirs.HostMode(n.entry.Type, mode) {
			s.Mode = s.Mode&^0o7777 | mode
		}
		return err
	})
}

func (n *node) Xattrs(prefix string) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := n.withXattrs(func(x disk.Xattrs, o xattrs.Object) error {
		hosts, err := xattrs.HostList(x, o)
		if err != nil {
			return err
		}
		for _, host := range hosts {
			if !xattrs.IsSealed(o, host) {
				continue
			}
			name, err := n.v.Attrs.Plain(x, o, host)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			if all[name], err = n.v.Attrs.Get(x, o, name); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

func (n *node) Readlink() (string, error) {
	if n.entry.Type != names.Symlink {
		return "", unix.EINVAL
	}
	if n.entry.Flags&names.ContainerSymlink == 0 {
		return n.parent.Readlink(n.entry.Name, n.entry.ID)
	}
	c, err := n.container(container.ObjectSymlink)
	if err != nil {
		return "", err
	}
	if c.Size() < 1 || c.Size() >= unix.PathMax {
		return "", errors.Join(fmt.Errorf("symlink target of %d bytes: %w", c.Size(), container.ErrCorrupt), c.Close())
	}
	target := make([]byte, c.Size())
	err = c.ReadAt(target, 0)
	return string(target), errors.Join(err, c.Close())
}

func (n *node) Open() (File, error) {
	switch n.entry.Type {
	case names.Dir:
		return nil, unix.EISDIR
	case names.File:
	default:
		return nil, unix.EINVAL
	}
	c, err := n.container(container.ObjectFile)
	if err != nil {
		return nil, err
	}
	return file{c}, nil
}

func (n *node) container(object uint8) (*container.File, error) {
	h, err := n.parent.Open(n.entry.Name, n.entry.ID, disk.ReadOnly)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := h.Stat(&st); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return n.v.Engine.Open(h, n.entry.ID, container.OpenOptions{
		ReadOnly: true, TrustLength: !n.v.UncleanTime(st.Ctim), MayLackHeader: n.mayLackHeader(), Object: object,
	})
}

// file is a container as a File.
type file struct{ *container.File }

func (f file) ReadAt(p []byte, off int64) (int, error) {
	size := f.Size()
	if off < 0 || off >= size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), size-off))
	if err := f.File.ReadAt(p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

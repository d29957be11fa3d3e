package disktest

import (
	"maps"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// memXattrs are the extended attributes of an open object, or of a name in an open directory.
type memXattrs struct {
	*node
	at string // "": the object itself
	by bool   // by name
}

func (x memXattrs) do(op string, fn func(i *inode) error) error {
	return x.node.do(op, x.at, func() (err error) {
		i := x.inode()
		if x.by {
			if i, err = x.m.s.find(x.ino, x.at); err != nil {
				return err
			}
		}
		return fn(i)
	})
}

// answer copies a value or list as the host does.
func answer(dst []byte, value string) (int, error) {
	if len(dst) > 0 && len(dst) < len(value) {
		return 0, syscall.ERANGE
	}
	copy(dst, value)
	return len(value), nil
}

func (x memXattrs) Getxattr(attr string, dst []byte) (n int, err error) {
	err = x.do("getxattr", func(i *inode) error {
		value, ok := i.live.xattrs[attr]
		if !ok {
			return syscall.ENODATA
		}
		n, err = answer(dst, value)
		return err
	})
	return n, err
}

func (x memXattrs) Listxattr(dst []byte) (n int, err error) {
	err = x.do("listxattr", func(i *inode) error {
		var list strings.Builder
		for _, attr := range slices.Sorted(maps.Keys(i.live.xattrs)) {
			list.WriteString(attr + "\x00")
		}
		n, err = answer(dst, list.String())
		return err
	})
	return n, err
}

func (x memXattrs) Setxattr(attr string, value []byte, flags int) error {
	return x.do("setxattr", func(i *inode) error {
		_, there := i.live.xattrs[attr]
		switch {
		case len(value) > 1<<16:
			return syscall.E2BIG
		case strings.HasPrefix(attr, "user.") && i.data == nil && i.names == nil:
			return syscall.EPERM
		case there && flags&unix.XATTR_CREATE != 0:
			return syscall.EEXIST
		case !there && flags&unix.XATTR_REPLACE != 0:
			return syscall.ENODATA
		}
		x.m.setXattrs(i, func(all map[string]string) { all[attr] = string(value) })
		return nil
	})
}

func (x memXattrs) Removexattr(attr string) error {
	return x.do("removexattr", func(i *inode) error {
		if _, there := i.live.xattrs[attr]; !there {
			return syscall.ENODATA
		}
		x.m.setXattrs(i, func(all map[string]string) { delete(all, attr) })
		return nil
	})
}

// setXattrs changes a copy: versions of attributes and clones of the disk share the map.
func (m *Memory) setXattrs(i *inode, change func(all map[string]string)) {
	all := make(map[string]string)
	maps.Copy(all, i.live.xattrs)
	change(all)
	m.setAttrs(i.ino, func(a *attrs) { a.xattrs = all })
}

func (d *memDir) Xattrs(name string) disk.Xattrs { return memXattrs{d.node, name, true} }
func (d *memDir) XattrsSelf() disk.Xattrs        { return memXattrs{node: d.node} }

func (f *memFile) xattrs() memXattrs { return memXattrs{node: f.node} }

func (f *memFile) Getxattr(attr string, dst []byte) (int, error) {
	return f.xattrs().Getxattr(attr, dst)
}
func (f *memFile) Listxattr(dst []byte) (int, error) { return f.xattrs().Listxattr(dst) }
func (f *memFile) Removexattr(attr string) error     { return f.xattrs().Removexattr(attr) }
func (f *memFile) Setxattr(attr string, value []byte, flags int) error {
	return f.xattrs().Setxattr(attr, value, flags)
}

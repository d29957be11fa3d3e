package disk

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// osXattrs are the attributes of a descriptor, or of a name in the directory that it is. They are reached through the descriptor's link in /proc:
// that serves O_PATH descriptors, unlinked files and names alike, and before Linux 6.13 there is no other way for all of them. Listing those of a name,
// which every object that is looked up needs, takes the shorter way where there is one.
type osXattrs struct {
	h    *handle
	name string // "": the descriptor itself
	err  error  // name is none; every call answers this
}

func (x osXattrs) do(op string, fn func(path string) error) error {
	if x.err != nil {
		return wrap(op, x.name, x.err)
	}
	fd, err := x.h.use()
	if err == nil {
		path := procLink(fd)
		if x.name != "" {
			path += "/" + x.name
		}
		err = retry(func() error { return fn(path) })
		x.h.done()
	}
	return wrap(op, x.name, err)
}

// change is do of what changes the object.
func (x osXattrs) change(op string, fn func(path string) error) error {
	return x.do(op, func(path string) error {
		if x.name == "" {
			return x.h.changed(fn(path))
		}
		return x.h.changedAt(unix.AT_FDCWD, path, fn(path))
	})
}

// either picks the call that ends at the object: a link in /proc is to be followed and leads to the object itself, be it a symlink; a name is not.
func either[F any](x osXattrs, link, name F) F {
	if x.name == "" {
		return link
	}
	return name
}

func (x osXattrs) Getxattr(attr string, dst []byte) (n int, err error) {
	get := either(x, unix.Getxattr, unix.Lgetxattr)
	err = x.do("getxattr", func(path string) (err error) { n, err = get(path, attr, dst); return err })
	return max(n, 0), err
}

func (x osXattrs) Setxattr(attr string, value []byte, flags int) error {
	set := either(x, unix.Setxattr, unix.Lsetxattr)
	return x.change("setxattr", func(path string) error { return set(path, attr, value, flags) })
}

func (x osXattrs) Listxattr(dst []byte) (n int, err error) {
	if x.err == nil && x.name != "" && len(dst) > 0 && !noListxattrat.Load() {
		n, err = x.listAt(dst)
		if err != unix.ENOSYS && err != unix.EPERM {
			return n, wrap("listxattr", x.name, err)
		}
		noListxattrat.Store(true)
	}
	list := either(x, unix.Listxattr, unix.Llistxattr)
	err = x.do("listxattr", func(path string) (err error) { n, err = list(path, dst); return err })
	return max(n, 0), err
}

// noListxattrat is set once the kernel has said that it has no listxattrat(2), or a filter of system calls that does not know it has.
var noListxattrat atomic.Bool

// listAt is listxattrat(2) of a name; it answers bare errors.
func (x osXattrs) listAt(dst []byte) (int, error) {
	path, err := unix.BytePtrFromString(x.name)
	if err != nil {
		return 0, err
	}
	fd, err := x.h.use()
	if err != nil {
		return 0, err
	}
	defer x.h.done()
	for {
		n, _, errno := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(path)), unix.AT_SYMLINK_NOFOLLOW,
			uintptr(unsafe.Pointer(&dst[0])), uintptr(len(dst)), 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

func (x osXattrs) Removexattr(attr string) error {
	remove := either(x, unix.Removexattr, unix.Lremovexattr)
	return x.change("removexattr", func(path string) error { return remove(path, attr) })
}

func (d *osDir) Xattrs(name string) Xattrs {
	return osXattrs{&d.h, name, component(name)}
}

func (d *osDir) XattrsSelf() Xattrs { return osXattrs{h: &d.h} }

func (f *osFile) Getxattr(attr string, dst []byte) (int, error) {
	return osXattrs{h: &f.h}.Getxattr(attr, dst)
}
func (f *osFile) Setxattr(attr string, value []byte, flags int) error {
	return osXattrs{h: &f.h}.Setxattr(attr, value, flags)
}
func (f *osFile) Listxattr(dst []byte) (int, error) { return osXattrs{h: &f.h}.Listxattr(dst) }
func (f *osFile) Removexattr(attr string) error     { return osXattrs{h: &f.h}.Removexattr(attr) }

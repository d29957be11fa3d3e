package xattrs

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// Check opens every sealed attribute of an object, the sealed mode included, and calls bad for those that do not open or that the host cannot
// read. The error says that they could not be listed.
func (c *Codec) Check(x disk.Xattrs, o Object, bad func(host string, err error)) error {
	all, err := HostList(x, o)
	if err != nil {
		return err
	}
	for _, host := range all {
		var err error
		switch {
		case host == o.ModeName():
			_, _, err = c.Mode(x, o)
		case IsSealed(o, host):
			_, _, err = c.read(x, o, host)
		}
		if err != nil && !errors.Is(err, unix.ENODATA) {
			bad(host, err)
		}
	}
	return nil
}

// read returns the plain name and value of an attribute of HostList.
func (c *Codec) read(x disk.Xattrs, o Object, host string) (name string, value []byte, err error) {
	sealed, err := read(func(dst []byte) (int, error) { return x.Getxattr(host, dst) })
	if err != nil {
		return "", nil, err
	}
	return c.Open(o, host, sealed)
}

// Carry gives dst, which is of the object to, all attributes of src, which is of from: sealed ones sealed anew, others as they are. lost has the host
// names of those that do not open, or that the host never takes. What it could not read or take this time is an error.
func (c *Codec) Carry(dst disk.Xattrs, to Object, src disk.Xattrs, from Object) (lost []string, err error) {
	all, err := HostList(src, from)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, host := range all {
		switch err := c.carry(dst, to, src, from, host); {
		case err == nil, errors.Is(err, unix.ENODATA):
		case errors.Is(err, ErrBadAttr), errors.Is(err, ErrForeign), errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
			lost = append(lost, host)
		default: // the host may be able to tomorrow
			return lost, err
		}
	}
	return lost, nil
}

func (c *Codec) carry(dst disk.Xattrs, to Object, src disk.Xattrs, from Object, host string) error {
	switch {
	case host == from.ModeName():
		mode, set, err := c.Mode(src, from)
		if err != nil || !set {
			return err
		}
		return c.SetMode(dst, to, mode)
	case IsSealed(from, host):
		name, value, err := c.read(src, from, host)
		if err != nil {
			return err
		}
		return c.Set(dst, to, name, value, 0)
	}
	value, err := read(func(b []byte) (int, error) { return src.Getxattr(host, b) })
	if err != nil {
		return err
	}
	return dst.Setxattr(host, value, 0)
}

// Add gives dst the attributes of src that it has none of, as they are: both are of one object.
func Add(dst, src disk.Xattrs, o Object) error {
	all, err := HostList(src, o)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, host := range all {
		value, err := read(func(b []byte) (int, error) { return src.Getxattr(host, b) })
		if err == nil {
			err = dst.Setxattr(host, value, unix.XATTR_CREATE)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

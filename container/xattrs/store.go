package xattrs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// Errors of the calls below are those of the host with its errno, ErrForeign and ErrBadAttr, with the object's id.

// sizes are what is tried for an attribute or a list of them, in bytes: enough for the list of an object with none or one, for what most hosts
// can hold, and for all that Linux can.
var sizes = [...]int{256, 4096, 1 << 16}

// read calls get with room for the whole answer.
func read(get func(dst []byte) (int, error)) (b []byte, err error) {
	for _, size := range sizes {
		var n int
		b = make([]byte, size)
		if n, err = get(b); err == nil {
			return b[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) {
			break
		}
	}
	return nil, err
}

func (o Object) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("xattrs: object %s: %w", o.ID, err)
}

// Get returns the value of an attribute; ENODATA where there is none.
func (c *Codec) Get(x disk.Xattrs, o Object, name string) ([]byte, error) {
	host := c.HostName(o, name)
	sealed, err := read(func(dst []byte) (int, error) { return x.Getxattr(host, dst) })
	if err != nil {
		return nil, o.wrap(err)
	}
	_, value, err := c.Open(o, host, sealed)
	return value, o.wrap(err)
}

// Set sets an attribute. flags are 0, XATTR_CREATE (EEXIST) or XATTR_REPLACE (ENODATA). Others see the old value or the new one.
func (c *Codec) Set(x disk.Xattrs, o Object, name string, value []byte, flags int) error {
	host, sealed := c.Seal(o, name, value)
	return o.wrap(x.Setxattr(host, sealed, flags))
}

// Remove removes an attribute; ENODATA where there is none.
func (c *Codec) Remove(x disk.Xattrs, o Object, name string) error {
	return o.wrap(x.Removexattr(c.HostName(o, name)))
}

// HostList returns the names of all host attributes, ours and others.
func HostList(x disk.Xattrs, o Object) ([]string, error) {
	b, err := read(x.Listxattr)
	if err != nil {
		return nil, o.wrap(err)
	}
	if len(b) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// Plain returns the plain name of one of HostList; ErrForeign where it is not in the place of ours. To find that of a long name the value is read.
func (c *Codec) Plain(x disk.Xattrs, o Object, host string) (string, error) {
	name, err := c.OpenName(o, host)
	if err != nil || name != "" {
		return name, o.wrap(err)
	}
	sealed, err := read(func(dst []byte) (int, error) { return x.Getxattr(host, dst) })
	if err == nil {
		name, _, err = c.Open(o, host, sealed)
	}
	return name, o.wrap(err)
}

// ModeName is the host attribute that holds the sealed mode.
func (o Object) ModeName() string { return strings.TrimSuffix(o.prefix(), ".") }

// Mode returns the sealed permission bits of an object; set is false where it has none.
func (c *Codec) Mode(x disk.Xattrs, o Object) (mode uint32, set bool, err error) {
	sealed, err := read(func(dst []byte) (int, error) { return x.Getxattr(o.ModeName(), dst) })
	if errors.Is(err, unix.ENODATA) {
		return 0, false, nil
	}
	if err == nil {
		mode, set, err = c.OpenMode(o, sealed)
	}
	return mode, set, o.wrap(err)
}

// SetMode seals the permission bits of an object.
func (c *Codec) SetMode(x disk.Xattrs, o Object, mode uint32) error {
	return o.wrap(x.Setxattr(o.ModeName(), c.SealMode(o, mode), 0))
}

// DropMode removes sealed permission bits, so that those of the host count.
func (c *Codec) DropMode(x disk.Xattrs, o Object) error {
	err := x.Removexattr(o.ModeName())
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return o.wrap(err)
}

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

package disk

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// What the disk could not write is told by whatever number it has: nobody is told again. That the host cannot be asked is no error.
func TestSettledError(t *testing.T) {
	for _, number := range []error{unix.EIO, unix.ENOSPC, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS} {
		ofDisk := func(flags int) error {
			if flags == 0 {
				return nil
			}
			return number
		}
		if err := settled(ofDisk); !errors.Is(err, number) {
			t.Errorf("%v of the disk: %v", number, err)
		}
		if err := settled(func(int) error { return number }); err != nil {
			t.Errorf("a host that answers %v to any call: %v", number, err)
		}
	}
}

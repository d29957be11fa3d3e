package names

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/siv"
	"github.com/cofferfs/coffer/internal/disk"
)

// sidecarOverhead is how much longer a sidecar is than the plain name in it.
const sidecarOverhead = siv.Overhead

// SidecarName returns the host name of the sidecar of a long name's host name.
func SidecarName(host string) string { return host + sidecarSuffix }

// IsSidecar reports whether a host name has the form of a sidecar's: that of a
// long name, then ".name". No sealed name has it.
func IsSidecar(host string) bool {
	stem, ok := strings.CutSuffix(host, sidecarSuffix)
	if !ok || len(stem) != longHostSize {
		return false
	}
	var sealed [maxPlain + siv.Overhead]byte
	_, ok = decode(sealed[:0], stem)
	return ok
}

// ReadLong puts the plain name into *l, which Open returned for the host name of
// a long name in the directory parent, from the sidecar beside it in fd. The
// error is ErrSidecar where there is none, or none of this name; else the
// host's.
func (c *Codec) ReadLong(fd disk.Dir, parent keys.ObjectID, host string, l *Link) error {
	b, err := readSidecar(fd, SidecarName(host))
	for _, gone := range []error{unix.ENOENT, unix.ELOOP, disk.ErrNotRegular} {
		if errors.Is(err, gone) {
			return fmt.Errorf("%w: %v", ErrSidecar, err)
		}
	}
	if err != nil {
		return err
	}
	return c.OpenLong(parent, l, b)
}

// readSidecar reads no more than a sidecar can hold, and one byte to see that it
// holds more.
func readSidecar(fd disk.Dir, name string) ([]byte, error) {
	f, err := fd.Open(name, disk.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, MaxName+sidecarOverhead+1)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

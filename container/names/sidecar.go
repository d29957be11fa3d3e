package names

import (
	"errors"
	"io"

	"github.com/cofferfs/coffer/internal/disk"
)

// ReadSidecar reads no more than a sidecar can hold, and one byte to see that it holds more.
func ReadSidecar(fd disk.Dir, name string) ([]byte, error) {
	f, err := fd.Open(name, true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, MaxName+SidecarOverhead+1)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

package fs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Extended attributes are not stored. The host is not asked: the kernel probes security.capability of every file that is written.

// GetXAttr answers that there is none.
func (fs *FS) GetXAttr(_ <-chan struct{}, _ *fuse.InHeader, attr string, _ []byte) (uint32, fuse.Status) {
	if strings.HasPrefix(attr, "security.") {
		return 0, fuse.ENODATA
	}
	return 0, fuse.Status(unix.EOPNOTSUPP)
}

// ListXAttr answers an empty list.
func (fs *FS) ListXAttr(<-chan struct{}, *fuse.InHeader, []byte) (uint32, fuse.Status) {
	return 0, fuse.OK
}

// SetXAttr is refused.
func (fs *FS) SetXAttr(<-chan struct{}, *fuse.SetXAttrIn, string, []byte) fuse.Status {
	return fuse.Status(unix.EOPNOTSUPP)
}

// RemoveXAttr has nothing to remove.
func (fs *FS) RemoveXAttr(<-chan struct{}, *fuse.InHeader, string) fuse.Status {
	return fuse.ENODATA
}

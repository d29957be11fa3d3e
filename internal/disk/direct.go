package disk

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DirectUnit is the least that goes to the host's disk past its page cache: a sector.
const DirectUnit = 512

// DirectBuffer returns n bytes of memory from which every host writes directly.
func DirectBuffer(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % page)
	return b[skip : skip+n : skip+n]
}

// diskType answers which of the filesystems that are known to go to a disk of their own past their page cache a file lies on, else EOPNOTSUPP. On FUSE and network
// filesystems that is up to a server; of an overlay the kernel has the pages elsewhere, so that it counts none.
func diskType(fd int) (magic uint32, err error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, err
	}
	magic = uint32(st.Type) // which has another type on each architecture
	switch magic {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		return magic, nil
	}
	return magic, syscall.EOPNOTSUPP
}

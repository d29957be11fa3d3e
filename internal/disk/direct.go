package disk

import (
	"syscall"
	"unsafe"
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

// CheckDirect answers EINVAL for what a file of OpenDirect does not take.
func CheckDirect(p []byte, off int64) error {
	if len(p)%DirectUnit != 0 || off%DirectUnit != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%DirectUnit != 0 {
		return syscall.EINVAL
	}
	return nil
}

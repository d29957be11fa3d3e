package disk

import "unsafe"

// DirectUnit is the least that goes to the host's disk past its page cache: a sector.
const DirectUnit = 512

// DirectBuffer returns n bytes of memory from which every host writes directly.
func DirectBuffer(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % page)
	return b[skip : skip+n : skip+n]
}

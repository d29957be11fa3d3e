package disktest

import (
	"bytes"
	"syscall"
	"unsafe"

	"github.com/cofferfs/coffer/internal/disk"
)

// memDirect is a file past the page cache.
type memDirect struct {
	memFile
	off    int64 // of what Begin began
	p, was []byte
}

func (f *memDirect) WriteAt(p []byte, off int64) (int, error) {
	if err := CheckDirect(p, off); err != nil {
		return 0, wrap("write", "", err)
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n, err := f.put(p, off)
	if err == nil {
		f.stable(off, int64(n))
	}
	return n, err
}

// Begin has all of it there at once, as reads see it, and nothing of it stable: a cut before End leaves of it what its Loss says.
func (f *memDirect) Begin(p []byte, off int64) error {
	if err := CheckDirect(p, off); err != nil {
		return wrap("write", "", err)
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	_, err := f.put(p, off)
	f.off, f.p, f.was = off, p, bytes.Clone(p)
	return err
}

func (f *memDirect) End() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if !bytes.Equal(f.p, f.was) {
		panic("disktest: what was begun to write was changed before its end")
	}
	err := f.admit("end write", "", f.off, len(f.p))
	if err == nil {
		f.stable(f.off, int64(len(f.p)))
	}
	return wrap("write", "", err)
}

func (f *memDirect) stable(off, n int64) {
	f.m.apply(func(s *state) { s.inodes[f.ino].syncRange(off, n) })
}

// CheckDirect answers EINVAL for what a file of OpenDirect does not take.
func CheckDirect(p []byte, off int64) error {
	if len(p)%disk.DirectUnit != 0 || off%disk.DirectUnit != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%disk.DirectUnit != 0 {
		return syscall.EINVAL
	}
	return nil
}

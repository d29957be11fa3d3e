package disk

import "golang.org/x/sys/unix"

// ReadPast is ReadAt past the host's memory, for a range of which that holds nothing: neither is room made there for it, nor is it copied. p is memory of DirectBuffer; its
// length and off are multiples of 4096. done is false where nothing was read, for whatever reason: ReadAt then serves, or says what is wrong. It is for whoever
// can do without, as NextData.
func (f *osFile) ReadPast(p []byte, off int64) (n int, done bool, err error) {
	fd, err := f.h.use()
	if err != nil {
		return 0, false, nil
	}
	defer f.h.done()
	if f.h.direct.Load() == noDirect {
		return 0, false, nil
	}
	// What is in memory costs no wait; and what was changed there the kernel would write to the disk first.
	var has unix.Cachestat_t
	switch unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(len(p))}, &has, 0) {
	case nil:
	case unix.EINTR:
		return 0, false, nil
	default: // a kernel before 6.5 does not tell, or not who may not change the file
		f.h.direct.CompareAndSwap(0, noDirect)
		return 0, false, nil
	}
	if has.Cache > 0 || !f.h.openDirect(fd) {
		return 0, false, nil
	}
	n, err = unix.Pread(int(f.h.direct.Load()-1), p, off)
	if err != nil || n == 0 {
		return 0, false, nil
	}
	if n < len(p) { // at the end, or on a host that stops before
		more, err := f.ReadAt(p[n:], off+int64(n))
		return n + more, true, err
	}
	return n, true, nil
}

// WritePast writes bufs, one behind the other, from off on past the host's memory, which then holds nothing of that range. Each begins at a multiple of 512 in memory, as
// what DirectBuffer returns and all large slices of their own do; off and the lengths are multiples of 4096. done is false where WriteAt has to do it, or to say what is
// wrong: some of it may stand there. As after WriteAt nothing is durable before a sync. It is for whoever can do without, as NextData.
//
// It leaves out btrfs. There what somebody reads of the range meanwhile cannot always be taken out of memory again when the write ends, and the next sync answers EIO,
// though all is well. From Linux 6.14 on it goes by memory there anyway, for the sake of its checksums.
func (f *osFile) WritePast(bufs [][]byte, off int64) (done bool) {
	fd, err := f.h.use()
	if err != nil {
		return false
	}
	defer f.h.done()
	if magic, err := diskType(fd); err != nil || magic == unix.BTRFS_SUPER_MAGIC || !f.h.openDirect(fd) {
		return false
	}
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	defer f.h.change()
	n, err := unix.Pwritev(int(f.h.direct.Load()-1), bufs, off)
	return err == nil && n == total
}

// noDirect stands in handle.direct where there is no use in trying.
const noDirect = -1

// openDirect opens the second descriptor, which goes with the first, where there is none. The caller has pinned fd.
func (h *handle) openDirect(fd int) bool {
	if have := h.direct.Load(); have != 0 {
		return have > 0
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = diskType(fd)
	}
	direct := -1
	if err == nil {
		direct, err = openat(unix.AT_FDCWD, procLink(fd), unix.O_DIRECT|unix.O_CLOEXEC|unix.O_NONBLOCK|flags&(unix.O_ACCMODE|unix.O_NOATIME), 0)
	}
	switch {
	case err == unix.EMFILE || err == unix.ENFILE:
		return false
	case err != nil:
		h.direct.CompareAndSwap(0, noDirect)
		return false
	case !h.direct.CompareAndSwap(0, int64(direct)+1): // another was faster
		unix.Close(direct)
	}
	return h.direct.Load() > 0
}

// closeDirect closes the second descriptor, before the first is.
func (h *handle) closeDirect() {
	if have := h.direct.Load(); have > 0 {
		unix.Close(int(have - 1))
	}
}

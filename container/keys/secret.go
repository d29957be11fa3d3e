package keys

import (
	"sync"

	"golang.org/x/sys/unix"
)

// secret is a piece of memory of its own, outside of the heap where the system
// allows it.
type secret struct {
	// mu guards the fields; bytes is nil once destroyed. Whoever reads bytes
	// holds it, since a destroyed mapping faults.
	mu     sync.RWMutex
	bytes  []byte
	region []byte // the whole mapping; nil where bytes is on the heap
	locked bool
}

// newSecret returns n zero bytes in an anonymous mapping, left out of core
// dumps and locked. A refused lock (RLIMIT_MEMLOCK) leaves it unlocked, a
// refused mapping puts the bytes on the heap: a key that might be swapped
// serves its user better than a vault that does not open.
func newSecret(n int) *secret {
	size := (n + unix.Getpagesize() - 1) &^ (unix.Getpagesize() - 1)
	region, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return &secret{bytes: make([]byte, n)}
	}
	// Advice: a kernel without it (or a sandbox) dumps cores as it likes, and
	// cmd/mount turns them off for the process anyway.
	_ = unix.Madvise(region, unix.MADV_DONTDUMP)
	return &secret{
		bytes:  region[:n:n],
		region: region,
		locked: unix.Mlock(region) == nil,
	}
}

// use calls f with the bytes, or with nil when they are destroyed. f must not
// keep them.
func (s *secret) use(f func(b []byte)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f(s.bytes)
}

// copyOf returns a copy of bytes from..from+n; nil once destroyed.
func (s *secret) copyOf(from, n int) (c []byte) {
	s.use(func(b []byte) {
		if b != nil {
			c = append(make([]byte, 0, n), b[from:from+n]...)
		}
	})
	return c
}

// destroy wipes and frees the bytes. A second call does nothing.
func (s *secret) destroy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.bytes)
	if s.region != nil {
		free(s.region)
	}
	s.bytes, s.region, s.locked = nil, nil, false
}

// free unmaps a wiped region, which unlocks it. What Mmap returned can be
// unmapped, so there is no error to tell anyone.
func free(region []byte) {
	clear(region)
	_ = unix.Munmap(region)
}

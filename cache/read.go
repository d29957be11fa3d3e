package cache

import (
	"math/bits"

	"github.com/cofferfs/coffer/container"
)

// ReadAt fills dst with the bytes at off and returns how many there are: fewer than len(dst) only at the end of the file, and then
// without an error. On an error, which is the container's, n is 0 and dst holds nothing of use. dst is not kept.
//
// Frames in the cache are copied. Whole frames that are not, and the last frame where the request reaches the end of the file, come straight from the
// container, one call per contiguous run; other partly covered frames are loaded into the cache.
func (f *File) ReadAt(dst []byte, off int64) (int, error) {
	f.rw.RLock()
	defer f.rw.RUnlock()
	if f.closed {
		return 0, container.ErrClosed
	}
	size := f.Size()
	if off < 0 {
		return 0, f.checkRange(off, 0)
	}
	if off >= size || len(dst) == 0 {
		return 0, nil
	}
	end := min(size, off+int64(len(dst)))
	if end < off { // off + len(dst) passed 2^63
		end = size
	}
	dst = dst[:end-off]
	r := reader{f: f, dst: dst, off: off, end: end, size: size}
	f.c.mu.Lock()
	r.none = len(f.segs) == 0
	f.c.mu.Unlock()
	for at := off; at < end; {
		index := uint64(at / f.segmentSize)
		stop := min(end, int64(index+1)*f.segmentSize)
		if err := r.segment(index, at, stop); err != nil {
			return 0, err
		}
		at = stop
	}
	if err := r.direct(); err != nil {
		return 0, err
	}
	return len(dst), nil
}

// reader is the state of one ReadAt. That a frame was absent when it was looked at and is read from the store later is right even if a write came between: what had
// been written before the read began was then stored already.
type reader struct {
	f              *File
	dst            []byte
	off, end, size int64
	none           bool  // nothing of the file was cached
	from, to       int64 // run of bytes to be read past the cache
}

// segment serves [at, stop), which lies in one segment.
func (r *reader) segment(index uint64, at, stop int64) error {
	f := r.f
	from, to := f.frameRange(index, at, stop)
	absent := span(from, to)
	part := r.partial(index, from, to)
	var s *segment
	if part != 0 || !r.none {
		s = f.pin(index, part != 0)
	}
	if s != nil {
		defer f.c.release(s)
		var err error
		if absent, err = r.cached(s, from, to, part); err != nil {
			return err
		}
	}
	return eachRun(absent, func(a, b int) error {
		// Only the run's ends can stick out of the request: a frame that the end of the file cuts.
		first, last := max(at, f.frameStart(index, a)), min(stop, f.frameStart(index, b))
		if r.to != first {
			if err := r.direct(); err != nil {
				return err
			}
			r.from = first
		}
		r.to = last
		return nil
	})
}

// partial returns the frames that go through the cache: those of which the request leaves out something that exists.
func (r *reader) partial(index uint64, from, to int) uint64 {
	var m uint64
	for _, i := range [2]int{from, to - 1} {
		start := r.f.frameStart(index, i)
		a, b := r.f.cover(start, r.off, r.end)
		if a > 0 || b < r.f.frameSize && start+int64(b) < r.size {
			m |= 1 << i
		}
	}
	return m
}

// cached copies what is present of a pinned segment, loading the partly covered frames first, and returns what is absent.
func (r *reader) cached(s *segment, from, to int, part uint64) (absent uint64, err error) {
	f := r.f
	s.mu.Lock()
	defer s.mu.Unlock()
	missed := uint64(0)
	for m := part; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		if s.frames[i] == nil {
			missed |= 1 << i
		}
		if err := f.present(s, i); err != nil {
			return 0, err
		}
		// Copied at once: loading another one releases mu.
		r.copy(s, i)
	}
	hits := bits.OnesCount64(part &^ missed)
	for i := from; i < to; i++ {
		switch {
		case part&(1<<i) != 0:
		case s.frames[i] == nil:
			absent |= 1 << i
		default:
			r.copy(s, i)
			hits++
		}
	}
	f.c.hits.Add(uint64(hits))
	return absent, nil
}

// copy copies what the request covers of a present frame. s.mu is held.
func (r *reader) copy(s *segment, i int) {
	start := r.f.frameStart(s.index, i)
	a, b := r.f.cover(start, r.off, r.end)
	copy(r.dst[start+int64(a)-r.off:], s.frames[i][a:b])
}

// direct reads the run collected so far straight into the reply.
func (r *reader) direct() error {
	if r.from == r.to {
		return nil
	}
	r.f.c.bypassed.Add(1)
	err := r.f.store.ReadAt(r.dst[r.from-r.off:r.to-r.off], r.from)
	r.from, r.to = 0, 0
	return err
}

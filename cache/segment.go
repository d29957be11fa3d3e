package cache

import (
	"math/bits"
	"sync"
)

// segment is the cached part of one segment of a file: up to 64 frames. Whoever uses one has it pinned (refs), which keeps it in its file's
// map; only with refs at 0 may Cache.mu alone stand for mu.
type segment struct {
	file  *File
	index uint64

	// mu guards the fields below it. Bit i of a mask speaks of frames[i].
	mu       sync.Mutex
	loaded   sync.Cond // a bit of loading was cleared
	frames   [][]byte  // nil: absent
	dirty    uint64    // newer than the store's
	inflight uint64    // read by WriteFrames just now; the buffer must not change. Never together with dirty
	loading  uint64    // absent, and somebody reads it from the store
	keep     uint64    // some request touched the frame in part: stay in the cache once clean

	// Cache.mu guards the fields below.
	refs    int
	held    int      // frames present
	pending int      // of those, dirty or in flight
	listed  bool     // in the LRU. A pinned segment may be in it; evict then passes it over and release puts it back
	next    *segment // chain of evicted segments on their way to the shelf
}

// span returns a mask with bits [from, to).
func span(from, to int) uint64 {
	return (^uint64(0) >> (64 - uint(to-from))) << uint(from)
}

// eachRun calls fn for every run of set bits, ascending, until fn returns an error.
func eachRun(m uint64, fn func(from, to int) error) error {
	for m != 0 {
		from := bits.TrailingZeros64(m)
		n := bits.TrailingZeros64(^(m >> uint(from)))
		if err := fn(from, from+n); err != nil {
			return err
		}
		m &^= span(from, from+n)
	}
	return nil
}

// pin returns a segment with one more reference; nil when it is not there and create is false.
func (f *File) pin(index uint64, create bool) *segment {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s := f.segs[index]
	if s == nil {
		if !create {
			return nil
		}
		s = f.shelf.segment(f, index, f.frames)
		f.segs[index] = s
	}
	if s.listed {
		c.lru.Get(s) // for its recency
	}
	s.refs++
	return s
}

// release gives a reference back. The last one lists a clean segment in the LRU, or frees it if it is empty.
func (c *Cache) release(s *segment) {
	c.mu.Lock()
	evicted := c.releaseLocked(s)
	c.mu.Unlock()
	recycleAll(evicted)
}

// releaseLocked is release under c.mu; the segments it returns are to be recycled once c.mu is free.
func (c *Cache) releaseLocked(s *segment) *segment {
	s.refs--
	if s.refs > 0 {
		return nil
	}
	switch {
	case s.pending > 0:
		evicted := c.evictLocked()
		if c.clean > c.cfg.Clean {
			c.shedLocked(s)
		}
		return evicted
	case s.held == 0:
		c.unlinkLocked(s)
		return s
	case !s.listed:
		c.lru.Add(s, struct{}{})
		s.listed = true
	}
	return c.evictLocked()
}

// unlinkLocked takes a segment out of every map.
func (c *Cache) unlinkLocked(s *segment) {
	delete(s.file.segs, s.index)
	if s.listed {
		c.lru.Remove(s)
		s.listed = false
	}
}

// evictLocked takes the oldest unused segments out until the clean bytes fit the budget, and returns them as a chain: their buffers are
// cleared without c.mu.
func (c *Cache) evictLocked() *segment {
	var chain *segment
	for c.clean > c.cfg.Clean {
		s, _, ok := c.lru.RemoveOldest()
		if !ok {
			break
		}
		s.listed = false
		if s.refs > 0 {
			continue
		}
		delete(s.file.segs, s.index)
		c.clean -= int64(s.held) * int64(s.file.frameSize)
		s.next, chain = chain, s
	}
	return chain
}

// shedLocked drops the clean frames of an unused dirty segment. It is the last resort against clean frames that pile up behind dirty ones,
// where eviction cannot get at them; so rare that clearing them under c.mu does not matter.
func (c *Cache) shedLocked(s *segment) {
	for i, b := range s.frames {
		if bit := uint64(1) << i; b != nil && (s.dirty|s.inflight)&bit == 0 {
			s.frames[i] = nil
			s.keep &^= bit
			c.adjustLocked(s, -1, 0)
			s.file.shelf.put(b)
		}
	}
}

// recycleAll recycles a chain. The segments may be of any file.
func recycleAll(s *segment) {
	for s != nil {
		next := s.next
		s.file.shelf.recycle(s)
		s = next
	}
}

// adjustLocked accounts for frames that came or went (held) and that became or ceased to be dirty or in flight (pending). The caller holds the
// segment's mu, or c.mu with no reference on it.
func (c *Cache) adjustLocked(s *segment, held, pending int) {
	f := s.file
	s.held += held
	s.pending += pending
	c.clean += int64(held-pending) * int64(f.frameSize)
	if pending != 0 {
		c.dirtied(f, int64(pending)*int64(f.frameSize))
	}
	switch {
	case s.pending == 0:
		delete(f.dirtySegs, s.index)
	case pending > 0:
		if s.listed {
			c.lru.Remove(s)
			s.listed = false
		}
		f.dirtySegs[s.index] = s
	}
}

// load reads frame i of a pinned segment from the store. s.mu is held on entry and on return but not meanwhile; the frame must be
// absent and nobody loading it. On success it is present, until s.mu is released at least.
func (f *File) load(s *segment, i int) error {
	bit := uint64(1) << i
	s.loading |= bit
	s.mu.Unlock()
	buf := f.shelf.get()
	ok := false
	defer func() { // deferred: a panic below must not leave others waiting for the frame
		s.mu.Lock()
		s.loading &^= bit
		s.loaded.Broadcast()
		if !ok {
			f.shelf.put(buf)
			return
		}
		s.frames[i] = buf
		s.keep |= bit
		f.c.mu.Lock()
		f.c.adjustLocked(s, 1, 0)
		f.c.mu.Unlock()
	}()
	f.c.misses.Add(1)
	start := f.frameStart(s.index, i)
	if start < f.store.Size() { // else there is nothing to read but zeros
		if err := f.store.ReadAt(buf, start); err != nil {
			return err
		}
	}
	ok = true
	return nil
}

// present makes frame i of a pinned segment present: the first one loads it, others wait for that. s.mu is held on entry and on return.
// An error is that of this caller's own attempt.
func (f *File) present(s *segment, i int) error {
	bit := uint64(1) << i
	for s.frames[i] == nil {
		if s.loading&bit != 0 {
			s.loaded.Wait()
			continue
		}
		if err := f.load(s, i); err != nil {
			return err
		}
	}
	return nil
}

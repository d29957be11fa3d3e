package cache

import (
	"fmt"

	"github.com/cofferfs/coffer/container"
)

// Truncate sets the size. What lies behind a smaller size is gone: growing again reads zeros there. Growing is in memory only until
// Flush; shrinking reaches the container at once, which flushes itself. Errors: container.ErrTooLarge, ErrReadOnly, and the
// container's. After one of those of a shrink, bytes behind the new size may read as zeros already; Size says which size stands.
func (f *File) Truncate(size int64) error {
	if err := f.checkRange(size, 0); err != nil {
		return err
	}
	wrote, err := f.truncate(size)
	if wrote {
		f.flushed()
	}
	return err
}

func (f *File) truncate(size int64) (wrote bool, err error) {
	f.flushMu.Lock()
	defer f.flushMu.Unlock()
	f.rw.Lock()
	defer f.rw.Unlock()
	if err := f.changeable(); err != nil {
		return false, err
	}
	old := f.Size()
	if size == old {
		return false, nil
	}
	f.c.mu.Lock()
	f.c.ageLocked(f)
	f.c.mu.Unlock()
	if size > old {
		f.size.Store(size)
		return false, nil
	}
	if f.store.Size() > size {
		wrote = true
		if err = f.store.SetSize(size); err != nil && f.store.Size() != size {
			f.drop(size&^int64(f.frameSize-1), f.maxSize, false)
			return wrote, err
		}
		// With an error here the container is cut but could not flush: it stays dirty, and the cache follows it.
	}
	f.drop(size, f.maxSize, true)
	f.zeroTail(size)
	f.size.Store(size)
	return wrote, err
}

// Grow raises the size to size if it is lower, in memory until a Flush. Unlike a Truncate to a size that was looked up before it cuts nothing that
// was written meanwhile. Errors: container.ErrTooLarge and ErrReadOnly.
func (f *File) Grow(size int64) error {
	if err := f.checkRange(size, 0); err != nil {
		return err
	}
	f.rw.RLock()
	defer f.rw.RUnlock()
	if err := f.changeable(); err != nil {
		return err
	}
	f.grow(size)
	f.c.mu.Lock()
	f.c.ageLocked(f)
	f.c.mu.Unlock()
	return nil
}

// Allocate has the host set aside what writes to a range will need there, so that none of them finds it full. The size stays. It holds until the range is
// discarded or cut off. Errors are the host's: ENOSPC, or EOPNOTSUPP where it cannot.
func (f *File) Allocate(off, n int64) error {
	if err := f.checkRange(off, n); err != nil {
		return err
	}
	f.rw.RLock()
	defer f.rw.RUnlock()
	if err := f.changeable(); err != nil {
		return err
	}
	return f.store.Allocate(off, n)
}

// zeroTail zeroes the cached frame that a smaller size cuts from there on. It is dirty only if it was: the store's is cut already, or was
// never stored. flushMu and rw are held exclusively, as in all that follows: no frame is loading or in flight.
func (f *File) zeroTail(size int64) {
	start := size &^ int64(f.frameSize-1)
	s := f.pin(uint64(start/f.segmentSize), false)
	if s == nil {
		return
	}
	defer f.c.release(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if buf := s.frames[int(start%f.segmentSize)/f.frameSize]; buf != nil {
		clear(buf[size-start:])
	}
}

// drop takes the cached frames that begin in [from, to) out of the cache, those that are dirty only where dirty says so. Without them it is for a
// cut that failed: the store may hold zeros by now, and a clean frame must be what the store holds.
func (f *File) drop(from, to int64, dirty bool) {
	c := f.c
	var hit []*segment
	c.mu.Lock()
	for index, s := range f.segs {
		start := f.frameStart(index, 0)
		if start < to && start+f.segmentSize > from {
			s.refs++
			hit = append(hit, s)
		}
	}
	c.mu.Unlock()
	for _, s := range hit {
		s.mu.Lock()
		held, pending := 0, 0
		for i, buf := range s.frames {
			start, bit := f.frameStart(s.index, i), uint64(1)<<i
			if buf == nil || start < from || start >= to || !dirty && s.dirty&bit != 0 {
				continue
			}
			if s.dirty&bit != 0 {
				s.dirty &^= bit
				pending--
			}
			s.keep &^= bit
			s.frames[i] = nil
			f.shelf.put(buf)
			held--
		}
		c.mu.Lock()
		c.adjustLocked(s, held, pending)
		c.mu.Unlock()
		s.mu.Unlock()
		c.release(s)
	}
}

// Discard makes n bytes at off read as zeros and frees what the host stores of them; the size stays, and what lies beyond it is left out. Frames covered in
// part are zeroed there and become dirty. Errors as Truncate's; after one, whole frames of the range may be zeros already.
func (f *File) Discard(off, n int64) error {
	if off < 0 || n < 0 {
		return fmt.Errorf("cache: discard of %d bytes at %d: %w", n, off, container.ErrTooLarge)
	}
	room := 2 * int64(f.frameSize) // both ends
	if err := f.reserve(room); err != nil {
		return err
	}
	wrote, err := f.discard(off, n)
	f.unreserve(room)
	if wrote {
		f.flushed()
	}
	return err
}

func (f *File) discard(off, n int64) (wrote bool, err error) {
	f.flushMu.Lock()
	defer f.flushMu.Unlock()
	f.rw.Lock()
	defer f.rw.Unlock()
	if err := f.changeable(); err != nil {
		return false, err
	}
	size, mask := f.Size(), int64(f.frameSize-1)
	if off >= size || n == 0 {
		return false, nil
	}
	end := min(size, off+min(n, size))
	head := off &^ mask
	first, last := (off+mask)&^mask, end&^mask // [first, last): whole frames
	if end == size {                           // nothing lies behind it in its frame
		last = (end + mask) &^ mask
	}

	// What can fail comes first: the frames at both ends, then the store.
	var ends [2]*segment
	defer func() {
		for _, s := range ends {
			if s != nil {
				f.c.release(s)
			}
		}
	}()
	if off > head {
		if ends[0], err = f.fetchPartial(head); err != nil {
			return false, err
		}
	}
	if first <= last && last < end { // else the range ends in the head's frame, or with a frame
		if ends[1], err = f.fetchPartial(last); err != nil {
			return false, err
		}
	}
	if stored := min(last, (f.store.Size()+mask)&^mask); first < stored {
		wrote = true
		f.c.mu.Lock()
		f.c.ageLocked(f) // an error may leave the container changed and not flushed
		f.c.mu.Unlock()
		if err := f.store.Discard(first, stored-first); err != nil {
			f.drop(first, last, false)
			return wrote, err
		}
	}
	f.drop(first, last, true)
	f.zeroPartial(ends[0], head, off, end)
	f.zeroPartial(ends[1], last, off, end)
	return wrote, nil
}

// storedFrame reports whether the store holds the frame that starts there.
func (f *File) storedFrame(start int64) (bool, error) {
	at, ok, err := f.store.NextData(start)
	return ok && at < start+int64(f.frameSize), err
}

// fetchPartial makes the frame that starts there present and returns its segment pinned; nil where it is neither cached nor stored, and zeros
// thus.
func (f *File) fetchPartial(start int64) (*segment, error) {
	index, i := uint64(start/f.segmentSize), int(start%f.segmentSize)/f.frameSize
	s := f.pin(index, true)
	s.mu.Lock()
	ok, err := s.frames[i] != nil, error(nil)
	if !ok {
		if ok, err = f.storedFrame(start); err == nil && ok {
			err = f.present(s, i)
		}
	}
	s.mu.Unlock()
	if err != nil || !ok {
		f.c.release(s)
		return nil, err
	}
	return s, nil
}

// zeroPartial zeroes what [off, end) covers of a frame that fetchPartial made present.
func (f *File) zeroPartial(s *segment, start, off, end int64) {
	if s == nil {
		return
	}
	i := int(start%f.segmentSize) / f.frameSize
	a, b := f.cover(start, off, end)
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.frames[i][a:b])
	s.keep |= 1 << i
	if s.dirty&(1<<i) == 0 {
		s.dirty |= 1 << i
		f.c.mu.Lock()
		f.c.adjustLocked(s, 0, 1)
		f.c.mu.Unlock()
	}
}

package cache

import (
	"math/bits"
)

// WriteAt writes p at off and grows the file where that lies beyond its end; bytes between the old end and off read as zeros. p is copied. When it
// returns, reads see the bytes; they reach the host by Flush, pressure or age. It waits while the dirty bytes of the file or of all files are at
// their limit, and then writes dirty frames out itself.
//
// Errors: container.ErrTooLarge and ErrReadOnly before anything is changed; the container's where a partly covered frame cannot be read, or where room had
// to be made and could not be (ENOSPC). What lies before the failing frame's segment may then have been written.
func (f *File) WriteAt(p []byte, off int64) error {
	if err := f.checkRange(off, int64(len(p))); err != nil {
		return err
	}
	if len(p) == 0 {
		f.rw.RLock()
		defer f.rw.RUnlock()
		return f.changeable()
	}
	most := max(int64(f.frameSize), min(batchBytes, f.c.cfg.Window/2)&^int64(f.frameSize-1))
	for len(p) > 0 {
		// In pieces that end between frames, so that one call never needs more room than there can be.
		n := min(int64(len(p)), most-off&int64(f.frameSize-1))
		if err := f.writePiece(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writePiece makes room for a piece and writes it.
func (f *File) writePiece(p []byte, off int64) error {
	end := off + int64(len(p))
	size := int64(f.frameSize)
	room := ((end-1)/size - off/size + 1) * size
	if err := f.reserve(room); err != nil {
		return err
	}
	f.rw.RLock()
	defer f.rw.RUnlock()
	defer func() { f.unreserve(room) }()
	if err := f.changeable(); err != nil {
		return err
	}
	for at := off; at < end; {
		index := uint64(at / f.segmentSize)
		stop := min(end, int64(index+1)*f.segmentSize)
		if err := f.writeSegment(index, p[at-off:stop-off], at, &room); err != nil {
			return err
		}
		at = stop
	}
	return nil
}

// writeSegment writes bytes of one segment in one step under its lock. What becomes dirty is taken off the reservation.
func (f *File) writeSegment(index uint64, p []byte, off int64, room *int64) error {
	s := f.pin(index, true)
	defer f.c.release(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	end := off + int64(len(p))
	from, to := f.frameRange(index, off, end)
	if err := f.readyForWrite(s, from, to, off, end); err != nil {
		return err
	}
	var held, pending, copies int
	for i := from; i < to; i++ {
		bit := uint64(1) << i
		start := f.frameStart(index, i)
		a, b := f.cover(start, off, end)
		whole := a == 0 && b == f.frameSize
		buf := s.frames[i]
		switch {
		case buf == nil:
			buf = f.shelf.get()
			held++
			pending++
		case s.inflight&bit != 0: // WriteFrames reads the old buffer: leave it that one
			old := buf
			buf = f.shelf.get()
			if !whole {
				copy(buf, old)
			}
			s.inflight &^= bit
			copies++
		case s.dirty&bit == 0:
			pending++
		}
		copy(buf[a:b], p[start+int64(a)-off:])
		s.frames[i] = buf
		s.dirty |= bit
		if whole {
			s.keep &^= bit
		} else {
			s.keep |= bit
		}
	}
	f.grow(end)
	c := f.c
	c.mu.Lock()
	c.adjustLocked(s, held, pending)
	if copies > 0 {
		c.dirtied(f, int64(copies)*int64(f.frameSize))
	}
	n := int64(to-from) * int64(f.frameSize)
	*room -= n
	c.unreserveLocked(f, n)
	c.mu.Unlock()
	return nil
}

// readyForWrite sees to it that no frame of the range is being loaded and that partly covered ones are present where they must be. s.mu is held on entry and
// on return, and was not released between its last look and the return.
func (f *File) readyForWrite(s *segment, from, to int, off, end int64) error {
	all := span(from, to)
	for {
		if s.loading&all != 0 {
			s.loaded.Wait()
			continue
		}
		need := uint64(0)
		for _, i := range [2]int{from, to - 1} {
			if s.frames[i] == nil && f.needsOld(f.frameStart(s.index, i), off, end) {
				need |= 1 << i
			}
		}
		if need == 0 {
			return nil
		}
		if err := f.load(s, bits.TrailingZeros64(need)); err != nil {
			return err
		}
	}
}

// needsOld reports whether a write of [off, end) leaves something of an absent frame as it was. Bytes at and beyond the size do not count: they
// are zeros. The size is right for this frame while its segment's mu is held, since a write grows it under that lock.
func (f *File) needsOld(start, off, end int64) bool {
	size := f.Size()
	a, b := f.cover(start, off, end)
	if start >= size {
		return false
	}
	return a > 0 || b < f.frameSize && start+int64(b) < size
}

// grow raises the size to end.
func (f *File) grow(end int64) {
	for {
		size := f.size.Load()
		if end <= size || f.size.CompareAndSwap(size, end) {
			return
		}
	}
}

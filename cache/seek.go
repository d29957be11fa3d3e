package cache

import (
	"math/bits"
	"slices"

	"github.com/cofferfs/coffer/container"
)

// SeekData returns the first offset at or behind off that may hold data: frames that are stored, and dirty ones whatever they hold. ErrNoData where only
// holes follow, and at or beyond the end of the file.
func (f *File) SeekData(off int64) (int64, error) {
	f.rw.RLock()
	defer f.rw.RUnlock()
	return f.seekData(off)
}

// seekData is SeekData under rw.
func (f *File) seekData(off int64) (int64, error) {
	size, err := f.seekable(off)
	if err != nil {
		return 0, err
	}
	// Dirty frames first: one that is flushed between the two looks is then seen twice, not never.
	best, found := f.nextDirty(off)
	at, ok, err := f.store.NextData(off)
	if err != nil {
		return 0, err
	}
	if ok && (!found || at < best) {
		best, found = at, true
	}
	if !found || best >= size {
		return 0, ErrNoData
	}
	return best, nil
}

// SeekHole returns the first offset at or behind off that is in a hole; the end of the file is one. ErrNoData at or beyond it.
func (f *File) SeekHole(off int64) (int64, error) {
	f.rw.RLock()
	defer f.rw.RUnlock()
	size, err := f.seekable(off)
	if err != nil {
		return 0, err
	}
	return f.seekHole(off, size)
}

// seekHole is SeekHole under rw, for an off below the size; it looks no further than limit, and answers that where all before it is data.
func (f *File) seekHole(off, limit int64) (int64, error) {
	for off < limit {
		if f.isDirty(off) {
			off = (off + int64(f.frameSize)) &^ int64(f.frameSize-1)
			continue
		}
		if off >= f.store.Size() {
			return off, nil
		}
		hole, err := f.store.NextHole(off, limit)
		if err != nil {
			return 0, err
		}
		if hole <= off {
			return off, nil
		}
		off = hole
	}
	return limit, nil
}

func (f *File) seekable(off int64) (size int64, err error) {
	if f.closed {
		return 0, container.ErrClosed
	}
	size = f.Size()
	if off < 0 || off >= size {
		return 0, ErrNoData
	}
	return size, nil
}

// isDirty reports whether the frame at off is dirty or in flight.
func (f *File) isDirty(off int64) bool {
	s := f.pin(uint64(off/f.segmentSize), false)
	if s == nil {
		return false
	}
	defer f.c.release(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	return (s.dirty|s.inflight)&(1<<(int(off%f.segmentSize)/f.frameSize)) != 0
}

// nextDirty returns the first offset at or behind off in a frame that is dirty or in flight.
func (f *File) nextDirty(off int64) (int64, bool) {
	first := uint64(off / f.segmentSize)
	var list []uint64
	f.c.mu.Lock()
	for index := range f.dirtySegs {
		if index >= first {
			list = append(list, index)
		}
	}
	f.c.mu.Unlock()
	slices.Sort(list)
	for _, index := range list {
		s := f.pin(index, false)
		if s == nil {
			continue
		}
		s.mu.Lock()
		m := s.dirty | s.inflight
		s.mu.Unlock()
		f.c.release(s)
		if index == first {
			m &^= span(0, int(off%f.segmentSize)/f.frameSize)
		}
		if m != 0 {
			return max(off, f.frameStart(index, bits.TrailingZeros64(m))), true
		}
	}
	return 0, false
}

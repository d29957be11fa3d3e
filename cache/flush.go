package cache

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/cofferfs/coffer/container"
)

// freeBatches bounds the batches kept for reuse.
const freeBatches = flushers

// batch is the scratch memory of one hand-over: what one WriteFrames takes. It is empty between uses.
type batch struct {
	list  []uint64 // segments still to visit, ascending
	segs  []*segment
	ws    []container.SegmentWrite
	slots [][]byte // backs the Frames of ws
	lent  bool     // the frames are the caller's of WriteThrough, and leave the cache with land
}

// grow has the batch hold so many slots.
func (b *batch) grow(n int) {
	if len(b.slots) < n {
		b.slots = make([][]byte, n)
	}
}

// putBack takes a frame that left the cache, unless it was only lent.
func (b *batch) putBack(f *File, frame []byte) {
	if !b.lent {
		f.shelf.put(frame)
	}
}

// takeBatch returns a batch whose list is the dirty segments of the file.
func (f *File) takeBatch() *batch {
	c := f.c
	c.mu.Lock()
	b := c.freeBatchLocked()
	for index := range f.dirtySegs {
		b.list = append(b.list, index)
	}
	c.mu.Unlock()
	slices.Sort(b.list)
	return b
}

// freeBatchLocked returns an empty batch.
func (c *Cache) freeBatchLocked() *batch {
	n := len(c.batches)
	if n == 0 {
		return new(batch)
	}
	b := c.batches[n-1]
	c.batches = c.batches[:n-1]
	return b
}

func (c *Cache) putBatch(b *batch) {
	b.list = b.list[:0]
	c.mu.Lock()
	if len(c.batches) < freeBatches {
		c.batches = append(c.batches, b)
	}
	c.mu.Unlock()
}

// Flush hands everything written so far to the host's files: dirty frames, the size, the container's metadata. It survives the end of this
// process but not a power cut. Writes may go on meanwhile; they may or may not be included. On an error all that was not written
// stays dirty, for the next Flush or the timer. An earlier failure that no caller has seen yet is returned even if this Flush
// succeeded, once.
func (f *File) Flush() error {
	return f.report(f.handOver())
}

// FlushAhead is Flush before somebody calls Flush or Sync: an error is left to that.
func (f *File) FlushAhead() { _ = f.handOver() }

// Sync is Flush and makes what it wrote durable. The errors are Flush's and the container's.
func (f *File) Sync() error {
	err := f.handOver()
	if err == nil {
		late := f.store.Dirty() // written since: part of this Sync too
		err = f.store.Sync()
		if late {
			f.flushed()
		}
	}
	return f.report(err)
}

// report adds what the background had to say to the outcome of a caller's hand-over.
func (f *File) report(err error) error {
	f.c.mu.Lock()
	sticky := f.sticky
	f.sticky = nil
	f.c.mu.Unlock()
	if err == nil && sticky != nil {
		return fmt.Errorf("cache: earlier write-back: %w", sticky)
	}
	return err
}

func (f *File) flushed() {
	if f.hooks.Flushed != nil {
		f.hooks.Flushed()
	}
}

// handOver is Flush without the report of earlier failures.
func (f *File) handOver() error {
	c := f.c
	c.mu.Lock()
	delete(c.aging, f) // what is written from here on ages anew
	c.mu.Unlock()
	wrote, err := f.writeAll(0)
	if err == nil {
		var more bool
		more, err = f.flushStore()
		wrote = wrote || more
	}
	if err != nil {
		c.mu.Lock()
		if _, open := c.files[f]; open {
			c.ageLocked(f) // to be tried again
			c.roomLocked() // and a victim again for those who wait for room
		}
		c.mu.Unlock()
	}
	if wrote {
		f.flushed()
	}
	return err
}

// handOverData hands over dirty frames alone; the metadata that this changes is left to Flush or the timer.
func (f *File) handOverData() error {
	wrote, err := f.writeAll(0)
	if wrote {
		f.flushed()
	}
	return err
}

// makeRoom hands over one batch, for a writer that waits. Its error is the file's too.
func (f *File) makeRoom() error {
	wrote, err := f.writeAll(1)
	if wrote {
		f.flushed()
	}
	if err != nil {
		f.c.mu.Lock()
		f.sticky = err
		f.c.mu.Unlock()
	}
	return err
}

// writeAll writes the frames that are dirty now, segments ascending, batch by batch; most bounds the batches where it is not 0. Between
// batches others may hand over too: each dirty frame of the beginning is written once by somebody, and writers who keep on
// writing cannot make it endless. It stops at the first error.
func (f *File) writeAll(most int) (wrote bool, err error) {
	b := f.takeBatch()
	defer f.c.putBatch(b)
	list := b.list
	for n := 0; len(list) > 0 && (most == 0 || n < most); n++ {
		var some bool
		list, some, err = f.writeBatch(b, list)
		wrote = wrote || some
		if err != nil {
			break
		}
	}
	return wrote, err
}

// writeBatch writes one batch of the listed segments and returns the rest of the list. some says whether WriteFrames was called.
func (f *File) writeBatch(b *batch, list []uint64) (rest []uint64, some bool, err error) {
	f.flushMu.Lock()
	defer f.flushMu.Unlock()
	if f.closed {
		return nil, false, nil // its Close has dealt with the frames
	}
	rest = f.fill(b, list)
	if len(b.ws) == 0 {
		return rest, false, nil
	}
	failed := true
	defer func() { f.land(b, failed) }() // deferred: a panic below must not leave frames in flight
	// The size after the frames: it covers them (File.size).
	err = f.store.WriteFrames(f.Size(), b.ws)
	failed = err != nil
	return rest, true, err
}

// fill moves dirty frames of the listed segments into flight and into the batch, up to batchBytes. A segment goes whole where it can: one write
// within a segment then is one commit. flushMu is held.
func (f *File) fill(b *batch, list []uint64) (rest []uint64) {
	c, left := f.c, batchBytes/f.frameSize
	b.grow(left * f.frames)
	for len(list) > 0 && left > 0 {
		c.mu.Lock()
		s := f.dirtySegs[list[0]]
		if s != nil {
			s.refs++
		}
		c.mu.Unlock()
		if s == nil {
			list = list[1:]
			continue
		}
		s.mu.Lock()
		m := s.dirty
		if bits.OnesCount64(m) > left {
			if len(b.ws) > 0 {
				s.mu.Unlock()
				c.release(s)
				break
			}
			m = lowest(m, left)
		}
		k := len(b.ws)
		frames := b.slots[k*f.frames : (k+1)*f.frames : (k+1)*f.frames]
		for t := m; t != 0; t &= t - 1 {
			i := bits.TrailingZeros64(t)
			frames[i] = s.frames[i]
		}
		s.dirty &^= m
		s.inflight |= m
		done := s.dirty == 0
		s.mu.Unlock()
		b.segs = append(b.segs, s)
		b.ws = append(b.ws, container.SegmentWrite{Segment: s.index, Frames: frames, Dirty: m})
		left -= bits.OnesCount64(m)
		if !done {
			break
		}
		list = list[1:]
	}
	return list
}

// lowest returns the n lowest set bits of m.
func lowest(m uint64, n int) uint64 {
	rest := m
	for ; n > 0 && rest != 0; n-- {
		rest &= rest - 1
	}
	return m &^ rest
}

// land ends the flight of a batch. Frames that were written become clean, or leave the cache if only whole writes touched them, or are lent; on a failure
// they are dirty again, in a buffer of the cache. Buffers that a write has replaced meanwhile are free either way: what it wrote is dirty.
func (f *File) land(b *batch, failed bool) {
	c := f.c
	for k, s := range b.segs {
		w := &b.ws[k]
		s.mu.Lock()
		held, pending, copies := 0, 0, 0
		for t := w.Dirty; t != 0; t &= t - 1 {
			i := bits.TrailingZeros64(t)
			bit := uint64(1) << i
			switch {
			case s.inflight&bit == 0:
				b.putBack(f, w.Frames[i])
				copies++
			case failed:
				if b.lent {
					s.frames[i] = f.shelf.get()
					copy(s.frames[i], w.Frames[i])
				}
				s.dirty |= bit
			default:
				pending--
				if b.lent || s.keep&bit == 0 {
					b.putBack(f, s.frames[i])
					s.frames[i] = nil
					held--
				}
			}
		}
		s.inflight &^= w.Dirty
		c.mu.Lock()
		c.adjustLocked(s, held, pending)
		if copies > 0 {
			c.dirtied(f, -int64(copies)*int64(f.frameSize))
		}
		c.mu.Unlock()
		s.mu.Unlock()
		c.release(s)
	}
	c.mu.Lock()
	f.failed = failed
	c.mu.Unlock()
	clear(b.slots[:len(b.ws)*f.frames])
	clear(b.segs)
	clear(b.ws)
	b.lent = false
	b.segs, b.ws = b.segs[:0], b.ws[:0]
}

// flushStore brings the container's size and metadata to the host. wrote: it had something to write.
func (f *File) flushStore() (wrote bool, err error) {
	f.flushMu.Lock()
	defer f.flushMu.Unlock()
	if f.closed {
		return false, container.ErrClosed
	}
	if size := f.Size(); f.store.Size() < size {
		if err := f.store.SetSize(size); err != nil {
			return false, err
		}
	}
	if !f.store.Dirty() {
		return false, nil
	}
	return true, f.store.Flush()
}

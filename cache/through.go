package cache

import "github.com/cofferfs/coffer/container"

// throughBytes is how much a write must bring for its frames to pass the cache: enough for every worker. What is less is better gathered.
const throughBytes = 256 << 10

// WriteThrough is WriteAt for whoever loses nothing by waiting, as the kernel does when it writes back its pages. Whole frames of a large p are sealed from where
// they are and given to the container before it returns, without a copy here; other bytes are written as by WriteAt. What the container could not take is dirty
// afterwards, as after a failed Flush.
func (f *File) WriteThrough(p []byte, off int64) error {
	if err := f.checkRange(off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := f.through(p[:min(len(p), batchBytes)], off)
		if err == nil && n == 0 { // on to where it may go better: the next frame, where enough of them follow, else the next segment
			n = min(int64(len(p)), f.segmentSize-off%f.segmentSize)
			if rest := -off & int64(f.frameSize-1); rest > 0 && int64(len(p))-rest >= f.c.through {
				n = rest
			}
			err = f.WriteAt(p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// through gives the whole frames that p begins with to the container and returns how many bytes these were: up to the first segment where a frame is dirty, on its
// way to the store or from there, and none where there are few.
func (f *File) through(p []byte, off int64) (done int64, err error) {
	whole := int64(len(p)) &^ int64(f.frameSize-1)
	if off&int64(f.frameSize-1) != 0 || whole < f.c.through {
		return 0, nil
	}
	wrote := false
	defer func() { // after the locks
		if wrote {
			f.flushed()
		}
	}()
	f.flushMu.Lock()
	defer f.flushMu.Unlock()
	f.rw.RLock()
	defer f.rw.RUnlock()
	if err := f.changeable(); err != nil {
		return 0, err
	}
	c := f.c
	c.mu.Lock()
	stuck := f.failed
	b := c.freeBatchLocked()
	c.mu.Unlock()
	defer c.putBatch(b)
	if stuck {
		return 0, nil // WriteAt bounds what piles up
	}
	b.grow(int(whole/f.segmentSize+2) * f.frames)
	for done < whole {
		n := min(whole-done, f.segmentSize-(off+done)%f.segmentSize)
		if !f.lend(b, p[done:done+n], off+done) {
			break
		}
		done += n
	}
	if done == 0 {
		return 0, nil
	}
	b.lent, wrote = true, true
	failed := true // also by a panic below, which must not leave frames in flight
	defer func() { f.land(b, failed) }()
	err = f.store.WriteFrames(f.Size(), b.ws)
	failed = err != nil
	return done, err
}

// lend puts frames of one segment into flight, and into the batch, from where they are in p: they are present until land. It does nothing where one of them
// must not be replaced now. flushMu is held.
func (f *File) lend(b *batch, p []byte, off int64) bool {
	c := f.c
	s := f.pin(uint64(off/f.segmentSize), true)
	from, to := f.frameRange(s.index, off, off+int64(len(p)))
	m := span(from, to)
	s.mu.Lock()
	if (s.dirty|s.inflight|s.loading)&m != 0 {
		s.mu.Unlock()
		c.release(s)
		return false
	}
	defer s.mu.Unlock()
	k, held := len(b.ws), 0
	frames := b.slots[k*f.frames : (k+1)*f.frames : (k+1)*f.frames]
	for i := from; i < to; i++ {
		if old := s.frames[i]; old != nil {
			f.shelf.put(old)
		} else {
			held++
		}
		at := (i - from) * f.frameSize
		frames[i] = p[at : at+f.frameSize : at+f.frameSize]
		s.frames[i] = frames[i]
	}
	s.inflight |= m
	s.keep &^= m
	f.grow(off + int64(len(p)))
	c.mu.Lock()
	c.adjustLocked(s, held, to-from)
	c.mu.Unlock()
	b.segs = append(b.segs, s)
	b.ws = append(b.ws, container.SegmentWrite{Segment: s.index, Frames: frames, Dirty: m})
	return true
}

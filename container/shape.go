package container

import (
	"fmt"

	"github.com/cofferfs/coffer/internal/disk"
)

// SetSize sets the plain size. Growing changes nothing but the size: what is new reads as zeros. Shrinking drops the frames
// beyond and seals the frame that the new end cuts again, shorter, so that a later growth shows zeros; the host file is
// cut last, after its header says so. Dirty plaintext that a cache holds beyond the new end is the caller's to drop first.
func (f *File) SetSize(size int64) error {
	f.commit.Lock()
	defer f.commit.Unlock()
	if err := f.changeable(size); err != nil {
		return err
	}
	if size >= f.hdr.size {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.headerDirty = f.headerDirty || size != f.hdr.size
		f.hdr.size = size
		return nil
	}
	old := f.geo.HostLength(f.hdr.size)
	if err := f.cutFrame(size); err != nil {
		return err
	}
	if err := f.dropFrames(roundUp(size, f.geo.FrameSize), f.geo.MaxSize()); err != nil {
		return err
	}
	f.mu.Lock()
	f.hdr.size, f.headerDirty = size, true
	f.mu.Unlock()
	if f.eng.applier == nil {
		return f.flush()
	}
	length := f.geo.HostLength(size)
	f.cutTo(length, old)
	if err := f.flush(); err != nil {
		return err
	}
	return f.awaitFreed(old - length)
}

// awaitFreed waits for a transaction that freed much to be applied: what is written to these slots next then goes there directly, and not through the
// journal.
func (f *File) awaitFreed(n int64) error {
	const much = 1 << 20
	if n < much {
		return nil
	}
	err := f.drain()
	if disk.IsFull(err) {
		return nil // it takes longer
	}
	return err
}

func roundUp(n int64, unit int) int64 { return (n + int64(unit) - 1) &^ int64(unit-1) }

// cutFrame seals the frame that holds byte size−1 again without what lies behind. Where it is a hole or ends there already there is nothing to do.
func (f *File) cutFrame(size int64) error {
	if f.hdr.kind == bodyInline {
		e, _ := f.hdr.inlineData()
		if int64(e.length()) <= size {
			return nil
		}
		if size == 0 {
			return nil // dropFrames does without opening it
		}
		plain, err := f.openInline()
		if err != nil {
			return err
		}
		defer clear(plain)
		return f.sealInline(f.hdr.size, plain[:size])
	}
	start := size &^ int64(f.geo.FrameSize-1)
	if start == size {
		return nil
	}
	segment, frame := f.geo.segmentOf(start), f.geo.frameOf(start)
	b, err := f.lookup(0, f.groupOf(segment))
	if err != nil || b == nil {
		return err
	}
	f.mu.RLock()
	length := int64(f.recordOf(b, segment).entry(frame).length())
	f.mu.RUnlock()
	if length <= size-start {
		return nil
	}
	plain := make([]byte, f.geo.FrameSize)
	defer clear(plain)
	if err := f.ReadAt(plain[:size-start], start); err != nil {
		return err
	}
	w := SegmentWrite{Segment: segment, Frames: make([][]byte, f.geo.Frames), Dirty: 1 << frame}
	w.Frames[frame] = plain
	return f.rewriteShort(size, w)
}

// rewriteShort writes one frame as if the file ended at size already.
func (f *File) rewriteShort(size int64, w SegmentWrite) error {
	old := f.hdr.size
	f.mu.Lock()
	f.hdr.size = size
	f.mu.Unlock()
	err := f.writeFrames(size, []SegmentWrite{w})
	f.mu.Lock()
	f.hdr.size = old
	f.mu.Unlock()
	return err
}

// Discard turns whole frames into holes: off and n are multiples of the frame size. The host's blocks are freed once the header says so;
// a host that cannot free them keeps them, unused.
func (f *File) Discard(off, n int64) error {
	f.commit.Lock()
	defer f.commit.Unlock()
	if err := f.changeable(0); err != nil {
		return err
	}
	if (off|n)&int64(f.geo.FrameSize-1) != 0 {
		return fmt.Errorf("container: discard of %d bytes at %d: not whole frames: %w", n, off, ErrGeometry)
	}
	end := min(off+n, roundUp(f.hdr.size, f.geo.FrameSize))
	if off >= end {
		return nil
	}
	if end >= f.hdr.size {
		if err := f.dropFrames(off, f.geo.MaxSize()); err != nil {
			return err
		}
		if f.eng.applier != nil {
			from := f.geo.HostLength(off) // not off's own place: the blocks before it that cover nothing else fell away, too
			f.free(from, max(roundUp(f.geo.HostLength(f.hdr.size), BlockSize)-from, 0))
			if err := f.flush(); err != nil {
				return err
			}
			return f.awaitFreed(end - off)
		}
		if err := f.flush(); err != nil {
			return err
		}
		return f.punchRange(off, end)
	}
	for off < end {
		next := min(end, off+discardStep)
		if err := f.dropFrames(off, next); err != nil {
			return err
		}
		if err := f.flush(); err != nil {
			return err
		}
		if f.eng.applier == nil {
			if err := f.punchRange(off, next); err != nil {
				return err
			}
		}
		off = next
	}
	return nil
}

// discardStep is how many plain bytes of a discard are one transaction.
const discardStep = 256 << 20

// punchRange frees the host's blocks of whole frames that are holes by now, group by group. Failing to is no loss.
func (f *File) punchRange(off, end int64) error {
	f.slots.Lock()
	defer f.slots.Unlock()
	defer f.hostChanged.Store(true)
	end = min(end, f.hdr.size)
	for at := off; at < end; {
		stop := min(end, (at>>f.geo.groupShift+1)<<f.geo.groupShift)
		if f.host.Punch(f.geo.hostOffset(at), stop-at) != nil {
			return nil
		}
		at = stop
	}
	return nil
}

// dropFrames makes the frames that begin in [from, to) holes; both are frame-aligned. Whole groups at the end of the file are dropped without being read.
func (f *File) dropFrames(from, to int64) error {
	if from == 0 && (to == f.geo.MaxSize() || f.hdr.kind == bodyInline) {
		f.clearBody()
	}
	switch f.hdr.kind {
	case bodyNone, bodyInline:
		return nil
	case bodyTree:
		if to == f.geo.MaxSize() {
			next := uint64(roundUp(from, int(f.geo.groupPlain)) >> f.geo.groupShift)
			if err := f.drop(next); err != nil {
				return err
			}
			to = int64(next) << f.geo.groupShift
		}
	case bodySingle:
		to = min(to, int64(f.geo.SegmentSize))
	}
	for at := from; at < to; {
		stored, ok, err := f.nextStored(at, to)
		if err != nil || !ok {
			return err
		}
		segment := f.geo.segmentOf(stored)
		b, err := f.writable(0, f.groupOf(segment))
		if err != nil {
			return err
		}
		f.mu.Lock()
		rec := f.recordOf(b, segment)
		rec.begin(segment, f.crypto.id[:])
		at = stored
		for i := f.geo.frameOf(stored); i < f.geo.Frames && at < to; i++ {
			clear(rec.entry(i))
			at += int64(f.geo.FrameSize)
		}
		f.headerDirty = true
		f.mu.Unlock()
		if f.eng.applier != nil {
			f.free(f.geo.hostOffset(stored), at-stored)
		}
	}
	return nil
}

// clearBody makes the whole file holes.
func (f *File) clearBody() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hdr.kind, f.hdr.body, f.headerDirty = bodyNone, nil, true
	f.single = nil
	f.pins = nil
	clear(f.dirty)
	clear(f.made)
	clear(f.placed)
	f.serial = f.eng.serial.Add(1)
}

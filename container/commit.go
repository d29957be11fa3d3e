package container

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// maxDirtyMeta is how many changed meta blocks and nodes a file collects in memory before a write flushes them.
const maxDirtyMeta = 1024

const (
	// maxUnlogged is how many bytes of images a file collects in memory before a write has them logged; see mostLoose for all files.
	maxUnlogged = 1 << 20
	// rideMax is the most fresh bytes of one WriteFrames that are logged beside being written.
	rideMax = 64 << 10
)

// SegmentWrite hands the dirty frames of one segment to WriteFrames. Frames has one buffer of FrameSize plain bytes per frame of the segment; only
// those with their bit set in Dirty are looked at, and they are the caller's again when the call returns.
type SegmentWrite struct {
	Segment uint64
	Frames  [][]byte
	Dirty   uint64
}

// slotRun is a run of frames that lie side by side on the host, sealed into one buffer and written by one call.
type slotRun struct {
	segment uint64 // of the first frame
	frame   int    // first frame within it
	plain   [][]byte
	entries []byte  // sealed entries, entrySize each
	out     *sealed // ciphertext, until a transaction has it
	stored  bool    // some slot of the run holds a frame already
	place   place   // where it goes
}

// place says how a run gets to its slots.
type place uint8

const (
	inPlace place = iota // written to the slots at once
	riding               // the same, and logged as well
	logged               // only logged: the applier writes it to the slots
)

// The commit path: C1 to C3 of doc.go. There is no other way to the host.

// WriteFrames seals frames and writes them to their slots; size is the plain size from now on (a smaller one than the present is ignored), and the
// segments ascend. When it returns, reads see the new frames; Flush makes the host file whole again. On an error some frames may have been written: the caller keeps
// all of them dirty and tries again or gives up. Errors keep the host's errno, so that ENOSPC is seen.
func (f *File) WriteFrames(size int64, ws []SegmentWrite) error {
	f.commit.Lock()
	defer f.commit.Unlock()
	if err := f.writeFrames(size, ws); err != nil {
		return err
	}
	f.placeFull(ws)
	f.startEarly()
	f.mu.RLock()
	pressed := len(f.dirty) > maxDirtyMeta
	f.mu.RUnlock()
	if pressed || f.tx != nil && (f.tx.bytes > maxUnlogged || f.tx.bytes > 0 && f.eng.applier.crowded()) {
		return f.flush()
	}
	return nil
}

func (f *File) writeFrames(size int64, ws []SegmentWrite) error {
	if err := f.changeable(size); err != nil {
		return err
	}
	if err := f.eng.applier.prepare(); err != nil {
		return err
	}
	size = max(size, f.hdr.size)
	if !anyDirty(ws) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.headerDirty = f.headerDirty || size != f.hdr.size
		f.hdr.size = size
		return nil
	}
	if f.hdr.kind == bodyInline {
		return f.outgrow(size, ws)
	}
	return f.writeSlots(size, ws, false)
}

// writeSlots writes frames to their slots, or into the header what fits it. alone says that the caller holds File.slots already, exclusively.
func (f *File) writeSlots(size int64, ws []SegmentWrite, alone bool) error {
	done, ws, err := f.chooseBody(size, ws)
	if done || err != nil {
		return err
	}
	f.fetchBlocks(ws)
	runs, err := f.gather(size, ws)
	if err != nil {
		return err
	}
	f.eng.segs.Add(uint64(len(ws)))
	defer f.dropSealed(runs)
	sealer, err := f.sealWith()
	if err != nil {
		return err
	}

	// C1: seal, and C2: to the slots or to the transaction. No slot is written directly while the applier sets the length.
	run := f.eng.pool.run
	if f.sizeOf(runs) <= aloneUnit {
		run = f.eng.pool.runAlone
	}
	fresh := !slices.ContainsFunc(runs, func(r slotRun) bool { return r.stored || r.place == logged })
	if fresh { // each worker writes what it sealed, while its cache has it
		if !alone {
			f.slots.RLock()
			defer f.slots.RUnlock()
		}
		err = run(len(runs), func(i int, s *scratch) error {
			if err := f.sealRun(s, sealer, &runs[i]); err != nil {
				return err
			}
			return f.writeRun(&runs[i])
		})
	} else { // slots that hold frames get new ones only while no reader works on the old entries
		err = run(len(runs), func(i int, s *scratch) error { return f.sealRun(s, sealer, &runs[i]) })
		if err == nil && !alone {
			f.slots.Lock()
			defer f.slots.Unlock()
		}
	}
	if err != nil {
		return err
	}
	reached, err := f.enterRuns(runs, fresh)
	if err != nil {
		size = reached // what was written lies within the size all the same
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hdr.size, f.headerDirty = size, true
	return err
}

// sizeOf is how many bytes runs have.
func (f *File) sizeOf(runs []slotRun) (n int) {
	for i := range runs {
		n += runs[i].size(f.geo)
	}
	return n
}

// dropSealed gives back the ciphertext of runs that no transaction has.
func (f *File) dropSealed(runs []slotRun) {
	for i := range runs {
		if out := runs[i].out; out != nil {
			f.eng.pool.putSealed(out)
		}
	}
}

// enterRuns enters sealed runs, which are written before unless they are already, into the transaction and the records (C3). reached is the plain size that covers
// all that was entered.
func (f *File) enterRuns(runs []slotRun, written bool) (reached int64, err error) {
	reached = f.hdr.size
	for i := range runs {
		r := &runs[i]
		if !written {
			err = f.writeRun(r)
		}
		if err == nil {
			f.enterRun(r)
			err = f.publish(r)
		}
		if err != nil {
			return reached, asSegmentError("write", r.segment, err)
		}
		reached = max(reached, f.geo.frameStart(r.segment, r.frame)+int64(r.size(f.geo)))
	}
	return reached, nil
}

// sealWith returns what seals frames up to the next flush: whoever reads them at random then meets one prefix for each flush, and not one for each write.
// maxDirtyMeta bounds how many frames that are.
func (f *File) sealWith() (*suite.Sealer, error) {
	if f.sealer == nil {
		s, err := f.crypto.cipher.Sealer()
		if err != nil {
			return nil, err
		}
		f.sealer = s
	}
	return f.sealer, nil
}

// writeRun brings a sealed run to its slots, or sees to it that there is room for it.
func (f *File) writeRun(r *slotRun) error {
	addr := f.geo.slotAddr(r.segment, r.frame)
	var err error
	switch {
	case r.place != logged:
		err = f.writeHost(r.out.b, addr)
	case !r.stored: // the host may have no blocks there: better to learn it now
		err = f.host.Allocate(addr, roundUp(int64(len(r.out.b)), BlockSize))
		f.hostChanged.Store(true)
		if !disk.IsFull(err) {
			err = nil
		}
	}
	if err != nil {
		return &SegmentError{Op: "write", Segment: r.segment, Err: err}
	}
	return nil
}

// enterRun enters a written run into the transaction.
func (f *File) enterRun(r *slotRun) {
	switch {
	case r.place == logged:
		f.overlayRun(f.pending(), r)
	case r.place == riding:
		f.rideRun(f.pending(), r)
	default:
		if f.eng.applier != nil {
			f.pending().direct = true
		}
		from := f.geo.frameStart(r.segment, r.frame)
		f.early.add(from, from+int64(r.size(f.geo)))
	}
}

func anyDirty(ws []SegmentWrite) bool {
	for _, w := range ws {
		if w.Dirty != 0 {
			return true
		}
	}
	return false
}

// changeable checks what every change needs.
func (f *File) changeable(size int64) error {
	f.noteSuspension()
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.closed:
		return ErrClosed
	case f.readOnly:
		return ErrReadOnly
	}
	if err := f.eng.applier.failed(); err != nil {
		return err
	}
	return f.geo.checkRange(0, size)
}

// gather cuts the dirty frames into runs of neighbouring slots and readies their meta blocks.
func (f *File) gather(size int64, ws []SegmentWrite) ([]slotRun, error) {
	total := 0
	for _, w := range ws {
		total += bits.OnesCount64(w.Dirty)
	}
	perRun := ioUnit >> f.geo.frameShift
	runs := make([]slotRun, 0, total/perRun+1)
	plains, entries := make([][]byte, 0, total), make([]byte, total*entrySize) // of all runs, side by side
	fresh, bytes := f.eng.applier == nil || f.freshNow(), 0
	for _, w := range ws {
		if w.Dirty == 0 {
			continue
		}
		b, err := f.writable(0, f.groupOf(w.Segment))
		if err != nil {
			return nil, &SegmentError{Op: "write", Segment: w.Segment, Err: err}
		}
		rec := f.recordOf(b, w.Segment)
		for i := range f.geo.Frames {
			if w.Dirty&(1<<i) == 0 {
				continue
			}
			start := f.geo.frameStart(w.Segment, i)
			if start >= size {
				return nil, fmt.Errorf("container: write of a frame at %d of a file of %d bytes: %w", start, size, ErrCorrupt)
			}
			plain := w.Frames[i][:min(int64(f.geo.FrameSize), size-start)]
			stored, where := !rec.entry(i).hole(), inPlace
			if f.eng.applier != nil && (stored || !fresh) {
				where = logged
			} else {
				bytes += len(plain)
			}
			if n := len(runs); n == 0 || len(runs[n-1].plain) == perRun || runs[n-1].place != where || !f.follows(&runs[n-1], w.Segment, i) {
				k := len(plains)
				runs = append(runs, slotRun{segment: w.Segment, frame: i, place: where, plain: plains[k:k], entries: entries[k*entrySize:]})
			}
			r := &runs[len(runs)-1]
			plains = append(plains, plain)
			r.plain = r.plain[:len(r.plain)+1] // which is plains' last
			r.stored = r.stored || stored
		}
	}
	if f.rides(bytes) {
		for i := range runs {
			if runs[i].place == inPlace {
				runs[i].place = riding
			}
		}
	}
	return runs, nil
}

// rides reports whether so many fresh bytes are logged as well, so that no sync of the host file is needed before the transaction: an fsync then
// costs one device flush. Before the first sync of a file nothing is needed.
func (f *File) rides(bytes int) bool {
	return f.eng.applier != nil && f.durable && bytes <= rideMax && (f.tx == nil || !f.tx.direct && f.tx.bytes < maxUnlogged)
}

// follows reports whether a frame's slot lies right behind the run: in the same group, one frame on.
func (f *File) follows(r *slotRun, segment uint64, frame int) bool {
	if f.groupOf(segment) != f.groupOf(r.segment) {
		return false
	}
	return f.geo.frameStart(r.segment, r.frame+len(r.plain)) == f.geo.frameStart(segment, frame)
}

// at returns segment and frame of the i-th frame of a run.
func (r *slotRun) at(g *Geometry, i int) (segment uint64, frame int) {
	return r.segment + uint64((r.frame+i)/g.Frames), (r.frame + i) % g.Frames
}

// size is how many bytes a run has.
func (r *slotRun) size(g *Geometry) int {
	return (len(r.plain)-1)<<g.frameShift + len(r.plain[len(r.plain)-1])
}

// sealRun seals a run into a buffer of its own (C1). Only the last frame of a file is short, so that the slots are filled without gaps.
func (f *File) sealRun(s *scratch, sealer *suite.Sealer, r *slotRun) error {
	g := f.geo
	n := r.size(g)
	r.out = f.eng.pool.getSealed(n)
	start := time.Now()
	for i, plain := range r.plain {
		segment, frame := r.at(g, i)
		b, _ := f.inMemory(0, f.groupOf(segment)) // gather made it dirty
		h := frameHeader{typ: frameData, segment: segment, frame: uint32(frame), generation: uint32(f.recordOf(b, segment).generation() + 1)}
		e := entry(r.entries[i*entrySize:][:entrySize])
		if err := f.crypto.sealSlot(s, sealer, &h, r.out.b[i<<g.frameShift:n], plain, e); err != nil {
			return frameError("seal", &h, g.frameStart(segment, frame), err)
		}
	}
	f.eng.sealed.Add(uint64(len(r.plain)))
	f.eng.crypto.Add(int64(time.Since(start)))
	return nil
}

// publish enters the frames of a written run into their segment records (C3), once per segment for its generation.
func (f *File) publish(r *slotRun) error {
	for i := 0; i < len(r.plain); {
		segment, _ := r.at(f.geo, i)
		b, err := f.writable(0, f.groupOf(segment))
		if err != nil {
			return err
		}
		f.mu.Lock()
		rec := f.recordOf(b, segment)
		rec.begin(segment, f.crypto.id[:])
		for ; i < len(r.plain); i++ {
			s, frame := r.at(f.geo, i)
			if s != segment {
				break
			}
			copy(rec.entry(frame), r.entries[i*entrySize:][:entrySize])
		}
		f.mu.Unlock()
	}
	return nil
}

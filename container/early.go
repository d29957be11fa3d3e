package container

import "sync/atomic"

const (
	// earlyFirst is how many fresh bytes are written to a file before the host is asked for the first time to bring them to its disk: what is small may be gone
	// again before the host would have done that.
	earlyFirst = 16 << 20
	// earlyNext is how many it is asked for after that.
	earlyNext = 8 << 20
	// earlyLag is how far behind the end of what was written it is asked: the kernel has a few requests under way at a time, in any order.
	earlyLag = 2 << 20
)

// starter is a host file that begins to write what it has in memory of a range to the disk, and does not wait until it is there. It promises nothing.
type starter interface{ Start(off, n int64) }

// early is what was written to fresh slots since the host was asked last. commit guards it, but busy.
type early struct {
	from, to int64 // the plain range that it lies in
	bytes    int64 // of it
	asked    bool  // the host was, before
	busy     atomic.Bool
}

// add notes a run that was written to fresh slots.
func (e *early) add(from, to int64) {
	if e.bytes == 0 {
		e.from, e.to = from, to
	}
	e.from, e.to, e.bytes = min(e.from, from), max(e.to, to), e.bytes+to-from
}

// startEarly has the host begin with what a long write of new data brought: its disk works meanwhile, and a sync does not wait for all of it. Nothing refers to these
// places until a commit, and a power cut may take or leave each, as ever. The caller holds commit.
func (f *File) startEarly() {
	e, least := &f.early, int64(earlyFirst)
	if e.asked {
		least = earlyNext + earlyLag
	}
	h, ok := f.host.(starter)
	if !ok || e.bytes < least || e.busy.Load() {
		return
	}
	from, to, dense := e.from, e.to-earlyLag, e.to-e.from <= 2*e.bytes
	e.bytes = 0
	if !dense || to <= from { // here and there, or the same again: the host may still gather more
		return
	}
	e.add(to, e.to)
	e.asked = true
	off := f.geo.hostOffset(from) - BlockSize // where from begins a group, its meta block
	n := f.geo.hostOffset(to) - BlockSize - off
	e.busy.Store(true)
	go func() {
		defer e.busy.Store(false)
		h.Start(off, n)
	}()
}

// placeFull writes the meta blocks that are new, and have become full, to their fresh places, where the next flush finds them written. The host then has no gaps to
// leave between the pieces that it allocates, whenever it begins to write them. One that changes after that waits for the flush. The segments ascend. The caller holds commit.
func (f *File) placeFull(ws []SegmentWrite) {
	if f.hdr.kind != bodyTree || len(ws) == 0 || !f.freshNow() {
		return
	}
	s := f.eng.pool.getScratch()
	defer f.eng.pool.putScratch(s)
	s.use(f.crypto.digest)
	f.slots.RLock() // the applier does not set the length meanwhile
	defer f.slots.RUnlock()
	for i, w := range ws {
		group := f.groupOf(w.Segment)
		if i+1 < len(ws) && f.groupOf(ws[i+1].Segment) == group {
			continue
		}
		k := metaKey{f.serial, 0, group}
		b := f.dirty[k]
		if _, before := f.placed[k]; before || b == nil || !f.made[k] || !b.full(f.geo) {
			continue
		}
		f.mu.Lock()
		f.finishRecords(k, b, &s.hasher)
		f.mu.Unlock()
		if f.writeBlock(k, b) != nil {
			return // the flush tries again, and says so: an error here would have frames that stand in their places logged as well
		}
		enter(&f.placed, k, true)
	}
}

// full reports whether a meta block has an entry for each frame of its group.
func (b *block) full(g *Geometry) bool {
	for k := range g.perGroup {
		rec := b.record(g, k)
		for i := range g.Frames {
			if rec.entry(i).hole() {
				return false
			}
		}
	}
	return true
}

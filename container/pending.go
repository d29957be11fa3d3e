package container

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"iter"
	"slices"

	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/journal"
)

// image is what is to stand at a place of the host file once the journal that holds it is durable: the frame of one slot, a meta block, a tree
// node or the header. Its bytes do not change any more.
type image struct {
	off     int64
	data    []byte
	of      *sealed      // what data is cut from, which goes back to the pool with the last image of it; nil where it is nobody's else
	sum     uint32       // CRC32C of data, where of is set
	changed []redo.Range // of a block: what of it is to be logged, as patches; nil: all of it

	t *transaction // that applies it; nil where it only rides
}

// transaction gathers what one commit changes (FORMAT.md section 12). WriteFrames, SetSize and Discard add to it, log appends it to the journal,
// the applier brings it to its places.
type transaction struct {
	f       *File
	images  map[int64]*image // by place; to be applied, and in the overlay until then
	covers  []*image         // of earlier ones: need not be applied when this one is to be
	taken   bool             // the applier is at it; guarded by its mu
	riding  []*image         // of what stands in its fresh place already, and is logged so that no sync of the host file is needed before
	bytes   int              // of both
	freed   []redo.Range     // became holes
	frees   bool             // something was freed or cut: counted in File.freeing
	made    *redo.Made       // set where this is all of a new file
	cut     bool             // the host file may be longer than length
	direct  bool             // fresh places were written that do not ride
	length  int64            // of the host file afterwards
	meta    []*image         // those of the images, or that ride, that are the header, meta blocks or nodes
	patches bool             // some of them are logged as patches
	base    journal.LSN      // where the first transaction begins that these need
	begin   journal.LSN      // where this one does
	floor   journal.LSN      // before all that is needed until it is applied
	lsn     journal.LSN
}

// pending returns the transaction that changes go to. The caller holds commit.
func (f *File) pending() *transaction {
	if f.tx == nil {
		t := &transaction{f: f}
		f.mu.Lock()
		f.tx = t
		f.mu.Unlock()
	}
	return f.tx
}

// freshNow reports whether slots that are holes may be written where they lie. They may not while something that was freed may still be in use
// by what is durable: until the transaction that freed it is applied. The caller holds commit.
func (f *File) freshNow() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.freeing == 0
}

// overlayRun enters the frames of a sealed run into the transaction and the overlay.
func (f *File) overlayRun(t *transaction, r *slotRun) {
	all := f.images(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range all {
		f.put(t, &all[i])
		f.cover(&all[i])
	}
}

// cover puts an image of the transaction that is pending into the overlay. The caller holds mu.
func (f *File) cover(m *image) {
	if old := f.overlay[m.off]; old != nil && old.t != m.t {
		m.t.covers = append(m.t.covers, old)
	}
	enter(&f.overlay, m.off, m)
}

// rideRun has the frames of a run that was written to fresh slots logged as well.
func (f *File) rideRun(t *transaction, r *slotRun) {
	all := f.images(r)
	for i := range all {
		t.riding = append(t.riding, &all[i])
		t.bytes += len(all[i].data)
	}
}

// images cuts a sealed run into the images of its slots, which take it over.
func (f *File) images(r *slotRun) []image {
	g := f.geo
	all, addr, out := make([]image, len(r.plain)), g.slotAddr(r.segment, r.frame), r.out
	for i := range all {
		from := i << g.frameShift
		all[i] = image{off: addr + int64(from), data: out.b[from:min(from+g.FrameSize, len(out.b))], of: out}
		all[i].sum = f.sumOf(r, i, all[i].data)
	}
	out.refs.Store(int32(len(all)))
	r.out = nil
	return all
}

// sumOf returns the CRC32C of the ciphertext of the i-th frame of a sealed run. Where leaves are such CRCs it follows from that of the frame.
func (f *File) sumOf(r *slotRun, i int, ciphertext []byte) uint32 {
	if f.crypto.digest != CRC32C || len(ciphertext) < f.geo.FrameSize {
		return crc32.Checksum(ciphertext, castagnoli)
	}
	e := entry(r.entries[i*entrySize:][:entrySize])
	segment, frame := r.at(f.geo, i)
	h := frameHeader{typ: frameData, suite: f.crypto.suite, segment: segment, frame: uint32(frame), length: e.length(), generation: e.generation()}
	var b [frameHeaderSize]byte
	h.put(b[:])
	return f.geo.behind.Rest(crc32.Checksum(b[:], castagnoli), binary.LittleEndian.Uint32(e.leaf()))
}

// release is called when nobody can reach an image any more: readers look for it in the overlay under mu, and copy it before they leave that.
func (f *File) release(m *image) {
	if m.of != nil && m.of.refs.Add(-1) == 0 {
		f.eng.pool.putSealed(m.of)
	}
}

// letGo releases the images of a transaction that is applied, or will never be logged. The caller holds mu.
func (f *File) letGo(t *transaction) {
	for off, m := range t.images {
		if f.overlay[off] == m {
			delete(f.overlay, off)
		}
		f.release(m)
	}
	for _, m := range t.riding {
		f.release(m)
	}
}

// put enters an image in place of an older one. For one that is cut from a run the caller holds mu until the overlay has it: the buffer of the older one may be
// used again from here on.
func (f *File) put(t *transaction, m *image) {
	if old := t.images[m.off]; old != nil {
		t.bytes -= len(old.data)
		f.release(old)
	}
	m.t = t
	enter(&t.images, m.off, m)
	t.bytes += len(m.data)
}

// imagesIn goes through the images of places in [from, to), in whichever way is shorter: a discard of many single frames must not look at all images each time.
// from is a multiple of BlockSize, as all places are. The images may be deleted meanwhile.
func imagesIn(all map[int64]*image, from, to int64) iter.Seq[*image] {
	return func(yield func(*image) bool) {
		if (to-from)/BlockSize < int64(len(all)) {
			for off := from; off < to; off += BlockSize {
				if m := all[off]; m != nil && !yield(m) {
					return
				}
			}
			return
		}
		for off, m := range all {
			if off >= from && off < to && !yield(m) {
				return
			}
		}
	}
}

// forget takes the images of slots in [from, to) of the host file out of the transaction and the overlay: they became holes.
func (f *File) forget(t *transaction, from, to int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for m := range imagesIn(t.images, from, to) {
		t.bytes -= len(m.data)
		delete(t.images, m.off)
		if f.overlay[m.off] == m {
			delete(f.overlay, m.off)
		}
		f.release(m)
	}
	t.riding = slices.DeleteFunc(t.riding, func(m *image) bool {
		gone := m.off >= from && m.off < to
		if gone {
			t.bytes -= len(m.data)
			f.release(m)
		}
		return gone
	})
}

// free notes that slots in [off, off+n) of the host file became holes.
func (f *File) free(off, n int64) {
	t := f.pending()
	f.freeingTx(t)
	clear(f.imaged)
	if n == 0 {
		return
	}
	f.forget(t, off, off+n)
	if k := len(t.freed); k > 0 && t.freed[k-1].Off+t.freed[k-1].Len == off {
		t.freed[k-1].Len += n
	} else {
		t.freed = append(t.freed, redo.Range{Off: off, Len: n})
	}
}

// cutTo notes that all behind length is cut off the host file, which may have been as long as old says or longer. The range counts as freed as well: the
// file may grow again before the transaction is logged.
func (f *File) cutTo(length, old int64) {
	t := f.pending()
	f.mu.RLock()
	old = max(old, f.hostLen)
	f.mu.RUnlock()
	from := roundUp(length, BlockSize)
	f.free(from, max(roundUp(old, BlockSize)-from, 0))
	t.cut = true
}

// freeingTx counts a transaction that freed something.
func (f *File) freeingTx(t *transaction) {
	if !t.frees {
		t.frees = true
		f.mu.Lock()
		f.freeing++
		f.mu.Unlock()
	}
}

// sorted returns all images of a transaction by their place, and the patches, as the head names them and as the bulk holds them, with its CRCs.
func (t *transaction) sorted(g *Geometry) (ranges, patches []redo.Range, sums []uint32, bulk [][]byte) {
	all := make([]*image, 0, len(t.images)+len(t.riding))
	for _, m := range t.images {
		all = append(all, m)
	}
	all = append(all, t.riding...)
	// A place may ride and be overwritten before the transaction is logged: what was written last is an image.
	slices.SortStableFunc(all, func(a, b *image) int { return cmp.Compare(a.off, b.off) })
	ranges, sums, bulk = make([]redo.Range, 0, len(all)), make([]uint32, 0, len(all)+1), make([][]byte, 0, len(all)+1)
	var patched []byte
	for i, m := range all {
		if i > 0 && all[i-1].off == m.off {
			continue
		}
		if m.changed != nil {
			patches = append(patches, m.changed...)
			for _, r := range m.changed {
				patched = append(patched, m.data[r.Off-m.off:r.End()-m.off]...)
			}
			continue
		}
		if n := len(ranges); n > 0 && ranges[n-1].End() == m.off {
			ranges[n-1].Len += int64(len(m.data))
		} else {
			ranges = append(ranges, redo.Range{Off: m.off, Len: int64(len(m.data))})
		}
		if m.of == nil {
			m.sum = crc32.Checksum(m.data, castagnoli)
		} else if n := len(bulk); n > 0 {
			if both, ok := joined(bulk[n-1], m.data); ok {
				sums[n-1], bulk[n-1] = g.combine(sums[n-1], m.sum, len(m.data)), both
				continue
			}
		}
		sums, bulk = append(sums, m.sum), append(bulk, m.data)
	}
	if len(patches) > 0 {
		sums, bulk = append(sums, crc32.Checksum(patched, castagnoli)), append(bulk, patched)
	}
	return ranges, patches, sums, bulk
}

// joined answers a and b as one slice where b lies right behind a in memory, as the frames of a run do: what is written by one call need not be copied
// together first.
func joined(a, b []byte) ([]byte, bool) {
	if len(a) == 0 || len(b) == 0 || cap(a)-len(a) < len(b) {
		return nil, false
	}
	both := a[:len(a)+len(b)]
	return both, &both[len(a)] == &b[0]
}

// merged sorts ranges and joins those that touch.
func merged(rs []redo.Range) []redo.Range {
	slices.SortFunc(rs, func(a, b redo.Range) int { return cmp.Compare(a.Off, b.Off) })
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && out[n-1].End() >= r.Off {
			out[n-1].Len = max(out[n-1].End(), r.End()) - out[n-1].Off
			continue
		}
		out = append(out, r)
	}
	return out
}

// readHost reads bytes of the host file as they are once everything is applied. Within p, places are step bytes apart; those that wait in the
// overlay come from there. It looks there first: what is not there any more stands on the host by then. scattered is that of a readPlan. The answer is as
// io.ReaderAt's.
func (f *File) readHost(p []byte, off int64, step int, scattered bool) (int, error) {
	var have uint64 // places found in the overlay
	f.mu.RLock()
	if len(f.overlay) > 0 {
		for i := 0; i*step < len(p); i++ {
			if m := f.overlay[off+int64(i*step)]; m != nil {
				copy(p[i*step:], m.data)
				have |= 1 << i
			}
		}
	}
	f.mu.RUnlock()
	if have == 0 {
		read := f.host.ReadAt
		if scattered {
			read = f.readScattered
		}
		n, err := read(p, off)
		f.eng.read.Add(int64(n))
		return n, err
	}
	places := (len(p) + step - 1) / step
	for i := 0; i < places; {
		if have&(1<<i) != 0 {
			i++
			continue
		}
		j := i
		for j < places && have&(1<<j) == 0 {
			j++
		}
		from, to := i*step, min(j*step, len(p))
		n, err := f.host.ReadAt(p[from:to], off+int64(from))
		f.eng.read.Add(int64(n))
		if err != nil {
			if j == places {
				return from + n, err
			}
			clear(p[from+n : to]) // cut short by somebody: what is missing will not open
		}
		i = j
	}
	return len(p), nil
}

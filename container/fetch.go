package container

import "sync"

const (
	// streamMin is how much a read must bring to be part of a stream, if it lies within streamWindow of the end of the one before: the kernel has a few of its
	// read-ahead under way at a time, in any order.
	streamMin    = 128 << 10
	streamWindow = 2 << 20
	// maxStreams is how many streams of one file are told apart.
	maxStreams = 4
	// fetchAhead is how far ahead of a stream the host is asked to read, in plain bytes: by as much as the kernel asks for at once.
	fetchAhead = 2 << 20
	// fetchMax bounds one call: hosts take no more than their own read-ahead, or the largest request of the device, and forget the rest.
	fetchMax = 1 << 20
)

// fetcher is a host file that reads into its memory what will be asked for, and does not wait for it.
type fetcher interface{ Fetch(off, n int64) }

// Fetch has the host begin to read what n bytes from off on are stored in, metadata included, where it can, and does not wait.
func (f *File) Fetch(off, n int64) {
	if h, ok := f.host.(fetcher); ok {
		from := f.geo.groupAddr(uint64(off >> f.geo.groupShift))
		h.Fetch(from, f.geo.hostOffset(off+n)-from)
	}
}

// stream is a row of large reads, each about where the one before ended.
type stream struct {
	end     int64 // of the last one
	fetched int64 // up to where on the host that was asked for
}

// streams are those of a file, the one that was read last first.
type streams struct {
	mu  sync.Mutex
	all [maxStreams]stream
}

// next takes [off, end) for the next part of the stream that ended nearest, if one did within streamWindow, else for the beginning of one: found tells which. [from, to) is
// what the host is to be asked for of a stream. What was asked for before may be gone when the file is read from its beginning again.
func (t *streams) next(g *Geometry, off, end int64) (from, to int64, found bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, nearest := len(t.all)-1, int64(streamWindow)
	for i := range t.all {
		if d := max(off-t.all[i].end, t.all[i].end-off); d <= nearest {
			at, nearest, found = i, d-1, true
		}
	}
	s := t.all[at]
	if !found || off == 0 {
		s.fetched = 0
	}
	s.end = end
	if found {
		from, to = max(g.hostOffset(off)-BlockSize, s.fetched), g.hostOffset(min(end+fetchAhead, g.MaxSize())-1)+1
		s.fetched = max(s.fetched, to)
	}
	copy(t.all[1:at+1], t.all[:at])
	t.all[0] = s
	return from, to, found
}

// fetchStream has the host read ahead of a stream of which [off, end) is the next part, each byte once. What a stream reads, meta blocks and all, then is in the host's
// memory by the time it is asked for: nobody waits for one group after the other, and the disk works while frames are opened. It answers whether the part is
// one of a stream.
func (f *File) fetchStream(off, end int64) bool {
	h, ok := f.host.(fetcher)
	if !ok || end-off < streamMin {
		return false
	}
	from, to, found := f.streams.next(f.geo, off, end)
	for ; from < to; from += fetchMax {
		h.Fetch(from, min(fetchMax, to-from))
	}
	return found
}

// lookupFor is lookup of a group's meta block for who reads [at, end) by it. Where the host must be asked for the block it is asked for the slots before, so that
// it has them by the time the block says what they hold: two waits become one. fetched says that this was done.
func (f *File) lookupFor(group uint64, at, end int64, fetched bool) (*block, error) {
	if b, known := f.inMemory(0, group); known {
		return b, nil
	}
	if h, ok := f.host.(fetcher); ok && !fetched {
		g := f.geo
		end = min(end, int64(group+1)<<g.groupShift)
		h.Fetch(g.hostOffset(at), end-at)
	}
	return f.lookup(0, group)
}

// fetchBlocks has the host read the meta blocks that a write changes before the first of them is waited for, if they are several: they come beside each
// other. What is new has none. The segments ascend. The caller holds commit.
func (f *File) fetchBlocks(ws []SegmentWrite) {
	h, ok := f.host.(fetcher)
	if !ok || f.hdr.kind != bodyTree || f.hdr.size == 0 {
		return
	}
	var cold []uint64
	end := f.groupOf(f.geo.segmentOf(f.hdr.size-1)) + 1 // nothing is stored behind
	for i, w := range ws {
		group := f.groupOf(w.Segment)
		if i > 0 && group == f.groupOf(ws[i-1].Segment) || group >= end {
			continue
		}
		if _, known := f.inMemory(0, group); !known {
			cold = append(cold, group)
		}
	}
	if len(cold) < 2 { // one is as well waited for
		return
	}
	for _, group := range cold {
		h.Fetch(f.geo.groupAddr(group), BlockSize)
	}
}

package container

const (
	// streamMin is how much a read must bring to be part of a stream, if it lies within streamWindow of the end of the one before: the kernel has a few of its
	// read-ahead under way at a time, in any order.
	streamMin    = 128 << 10
	streamWindow = 2 << 20
	// fetchAhead is how far ahead of a stream the host is asked to read, in plain bytes: by as much as the kernel asks for at once.
	fetchAhead = 2 << 20
	// fetchMax bounds one call: hosts take no more than their own read-ahead, or the largest request of the device, and forget the rest.
	fetchMax = 1 << 20
)

// fetcher is a host file that reads into its memory what will be asked for, and does not wait for it.
type fetcher interface{ Fetch(off, n int64) }

// fetchStream has the host read ahead of a stream of which [off, end) is the next part, each byte once. What a stream reads, meta blocks and all, then is in the host's
// memory by the time it is asked for: nobody waits for one group after the other, and the disk works while frames are opened. It answers whether the part is
// one of a stream.
func (f *File) fetchStream(off, end int64) bool {
	if end-off < streamMin {
		return false
	}
	last := f.streamed.Swap(end)
	h, ok := f.host.(fetcher)
	stream := ok && last-streamWindow <= off && off <= last+streamWindow
	if !stream || off == 0 { // what was fetched before may be gone
		f.fetched.Store(0)
	}
	if !stream {
		return false
	}
	g := f.geo
	from, to := max(g.hostOffset(off)-BlockSize, f.fetched.Load()), g.hostOffset(min(end+fetchAhead, g.MaxSize())-1)+1
	if from < to {
		f.fetched.Store(to)
	}
	for ; from < to; from += fetchMax {
		h.Fetch(from, min(fetchMax, to-from))
	}
	return true
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

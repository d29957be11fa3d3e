package container

// NextData returns the first plain offset at or after off that a stored frame covers; ok is false where none follows.
func (f *File) NextData(off int64) (int64, bool, error) {
	f.mu.RLock()
	size, kind := f.hdr.size, f.hdr.kind
	var inline int64
	if kind == bodyInline {
		e, _ := f.hdr.inlineData()
		inline = int64(e.length())
	}
	f.mu.RUnlock()
	if off >= size {
		return off, false, nil
	}
	if kind == bodyInline {
		return off, off < inline, nil
	}
	at, ok, err := f.nextStored(off&^int64(f.geo.FrameSize-1), size)
	return max(at, off), ok, err
}

// NextHole returns the first plain offset at or after off that no stored frame covers; Size counts as one. It looks no further than limit, and
// answers that where everything before it is stored.
func (f *File) NextHole(off, limit int64) (int64, error) {
	g, size := f.geo, min(f.Size(), limit)
	if at, ok, err := f.NextData(off); err != nil || !ok || at > off {
		return min(off, size), err
	}
	f.mu.RLock()
	kind := f.hdr.kind
	f.mu.RUnlock()
	for at := off &^ int64(g.FrameSize-1); at < size; {
		group := uint64(at >> g.groupShift)
		b, err := f.lookup(0, group)
		if err != nil {
			return 0, err
		}
		if b == nil && kind == bodyTree {
			return at, nil
		}
		if b == nil { // inline: all data is in the first frame
			return min(int64(g.FrameSize), size), nil
		}
		end := min(size, int64(group+1)<<g.groupShift)
		f.mu.RLock()
		for at < end && !f.recordOf(b, g.segmentOf(at)).entry(g.frameOf(at)).hole() {
			at += int64(g.FrameSize)
		}
		f.mu.RUnlock()
		if at < end {
			return at, nil
		}
	}
	return size, nil
}

// nextStored returns the start of the first stored frame in [from, to), from frame-aligned, skipping over what the tree says is holes.
func (f *File) nextStored(from, to int64) (int64, bool, error) {
	g := f.geo
	for at := from; at < to; {
		group := uint64(at >> g.groupShift)
		b, skip, err := f.lookupSkip(group)
		if err != nil {
			return 0, false, err
		}
		if b == nil {
			at = int64(group+skip) << g.groupShift
			continue
		}
		end := min(to, int64(group+1)<<g.groupShift)
		f.mu.RLock()
		for at < end {
			if !f.recordOf(b, g.segmentOf(at)).entry(g.frameOf(at)).hole() {
				f.mu.RUnlock()
				return at, true, nil
			}
			at += int64(g.FrameSize)
		}
		f.mu.RUnlock()
	}
	return 0, false, nil
}

// lookupSkip is lookup of a meta block; where it is a hole, skip is the number of groups from this one on that the highest hole above it covers.
func (f *File) lookupSkip(group uint64) (b *block, skip uint64, err error) {
	b, err = f.lookup(0, group)
	if b != nil || err != nil {
		return b, 0, err
	}
	f.mu.RLock()
	kind := f.hdr.kind
	f.mu.RUnlock()
	if kind != bodyTree {
		return nil, maxGroups, nil // nothing but the one segment of group 0 can be stored
	}
	if group < headerGroups {
		return nil, 1, nil
	}
	q := group - headerGroups
	for level := uint8(treeLevels); level > 0; level-- {
		shift := fanoutShift * uint(level)
		node, err := f.lookup(level, q>>shift)
		if err != nil {
			return nil, 0, err
		}
		if node == nil {
			return nil, (q>>shift+1)<<shift - q, nil
		}
	}
	return nil, 1, nil
}

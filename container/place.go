package container

import (
	"cmp"
	"slices"
)

// apply writes the last images of transactions that are durable in the journal to their places, then sets the length. Only the applier calls it.
func (f *File) apply(ts []*transaction) error {
	f.hostMu.Lock() // an abandoned file is closed at any time
	defer f.hostMu.Unlock()
	f.mu.RLock()
	gone := f.abandoned
	f.mu.RUnlock()
	if gone || f.hostClosed {
		return nil
	}
	if hooks := f.hooks.Load(); hooks != nil && hooks.Applying != nil {
		hooks.Applying()
	}
	images, frees, cut := lastImages(ts)
	if frees {
		f.punch(ts)
	}
	if err := f.writeImages(images); err != nil {
		return err
	}
	return f.applyLength(ts, cut)
}

// lastImages returns the images that count, by place.
func lastImages(ts []*transaction) (images []*image, frees, cut bool) {
	n := 0
	for _, t := range ts {
		n += len(t.images)
	}
	last := make(map[int64]*image, n)
	for _, t := range ts {
		for _, r := range t.freed {
			for m := range imagesIn(last, r.Off, r.End()) {
				delete(last, m.off)
			}
		}
		for off, m := range t.images {
			last[off] = m
		}
		frees, cut = frees || len(t.freed) > 0, cut || t.cut
	}
	images = make([]*image, 0, len(last))
	for _, m := range last {
		images = append(images, m)
	}
	slices.SortFunc(images, func(a, b *image) int { return cmp.Compare(a.off, b.off) })
	return images, frees, cut
}

// punch frees the host's blocks of what became holes. Failing to is no loss. It comes before the images, which may fill some again.
func (f *File) punch(ts []*transaction) {
	f.slots.Lock() // readers may still use slots that were freed
	defer f.slots.Unlock()
	for _, t := range ts {
		for _, r := range t.freed {
			if f.host.Punch(r.Off, r.Len) != nil {
				return
			}
		}
	}
}

const (
	// pastMin is from how many bytes side by side on that images go past the host's memory. The copy into it, and bringing that to the disk, cost more than the wait;
	// who reads what was written finds it in the kernel's memory for the mount.
	pastMin = 1 << 20
	// pastMost bounds one such call: a disk that is given more at once has each commit wait behind it. It is no more than 1024 blocks, as many slices as a host takes.
	pastMost = 4 << 20
)

// pastWriter is a host file that can write past the host's memory.
type pastWriter interface {
	WritePast(bufs [][]byte, off int64) (done bool)
}

// writeImages writes them: row by row, each of what lies side by side on the host. The caller holds hostMu.
func (f *File) writeImages(images []*image) error {
	var row [][]byte
	for i := 0; i < len(images); {
		off, n := images[i].off, 0
		for row = row[:0]; i < len(images) && images[i].off == off+int64(n) && n+len(images[i].data) <= pastMost; i++ {
			data := images[i].data
			n += len(data)
			if k := len(row) - 1; k >= 0 {
				if both, ok := joined(row[k], data); ok {
					row[k] = both
					continue
				}
			}
			row = append(row, data)
		}
		if n >= pastMin && n%BlockSize == 0 && f.writePast(row, off, n) {
			continue
		}
		for _, data := range row {
			f.unsettled.add(off, int64(len(data)))
			if err := f.writeHost(data, off); err != nil {
				return err
			}
			off += int64(len(data))
		}
	}
	return nil
}

// writePast writes a row of n bytes past the host's memory, if it can.
func (f *File) writePast(row [][]byte, off int64, n int) bool {
	h, ok := f.host.(pastWriter)
	if !ok || !h.WritePast(row, off) {
		return false
	}
	f.hostWritten(off, n)
	return true
}

// applyLength sets the length of the host file: exactly where it may be too long, or nothing more is to come.
func (f *File) applyLength(ts []*transaction, cut bool) error {
	f.slots.Lock() // no direct write extends the file meanwhile, and no reader uses what is cut off
	defer f.slots.Unlock()
	want := ts[len(ts)-1].length
	f.mu.RLock()
	have := f.hostLen
	exact := cut || f.queued == len(ts) && f.tx == nil && !f.headerDirty
	f.mu.RUnlock()
	if have == want || have > want && !exact {
		return nil
	}
	if err := f.host.Truncate(want); err != nil {
		return err
	}
	f.mu.Lock()
	f.hostLen = want
	f.mu.Unlock()
	return nil
}

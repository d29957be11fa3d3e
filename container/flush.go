package container

import "bytes"

// Flush brings the host file to the state of memory: changed meta blocks and nodes, length, header. On an error what was changed stays
// dirty. It promises nothing about power cuts; Sync does.
func (f *File) Flush() error {
	f.commit.Lock()
	defer f.commit.Unlock()
	return f.flush()
}

func (f *File) flush() error {
	if a := f.eng.applier; a != nil {
		a.flushing.RLock()
		defer a.flushing.RUnlock()
	}
	f.noteSuspension()
	f.mu.RLock()
	dirty, closed := f.headerDirty || len(f.dirty) > 0 || f.tx != nil, f.closed
	f.mu.RUnlock()
	switch {
	case closed:
		return ErrClosed
	case !dirty || f.abandoned || f.readOnly || f.eng.applier.isSuspended(): // of the last two it is only what salvage made of the file, which stays in memory
		return nil
	}
	f.flushes.Add(1)
	defer f.flushes.Add(1)
	f.sealer = nil // what is sealed next has another prefix, also where this one fails
	if err := f.eng.applier.prepare(); err != nil {
		return err
	}
	if f.eng.applier == nil || f.virgin && (f.tx == nil || len(f.tx.images) == 0 && !f.tx.frees) {
		return f.flushInPlace()
	}
	return f.log()
}

// flushInPlace writes the metadata where it lies: without a journal, or of a file of which nothing is on the host yet but fresh frames.
func (f *File) flushInPlace() error {
	// C4: digests, CRCs and pins from the meta blocks up; then write, children before parents.
	f.finishMeta()
	for level := uint8(0); level <= treeLevels; level++ {
		for k, b := range f.dirty {
			if k.level != level || f.placed[k] {
				continue
			}
			if err := f.writeBlock(k, b); err != nil {
				return err
			}
		}
	}

	// The host length; that of an empty new file comes with its header. There is no C5 here: FORMAT.md says why.
	f.mu.RLock()
	want, have := f.geo.HostLength(f.hdr.size), f.hostLen
	f.mu.RUnlock()
	if want != have && (want != BlockSize || have != 0) {
		if err := f.setHostLength(want); err != nil {
			return err
		}
	}

	// C6: the header.
	f.hdr.durable = f.hdr.kind <= bodyInline
	b := f.eng.headerBlock()
	defer f.eng.headers.Put(b)
	f.sealHeader(b)
	if err := f.writeHost(b[:], 0); err != nil {
		return &MetaError{Op: "write", Level: headerLevel, Err: err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cleanLocked()
	f.hostLen = want
	f.virgin, f.tx, f.durable = false, nil, f.hdr.durable || f.durable
	return nil
}

// writeBlock writes a meta block or node where it lies.
func (f *File) writeBlock(k metaKey, b *block) error {
	if err := f.writeHost(b[:], f.blockAddr(k.level, k.index)); err != nil {
		return &MetaError{Op: "write", Level: k.level, Index: k.index, Err: err}
	}
	return nil
}

// writeHost writes to the host file, which may get longer, also by a write that fails halfway.
func (f *File) writeHost(p []byte, off int64) error {
	n, err := f.host.WriteAt(p, off)
	f.hostWritten(off, n)
	return err
}

// hostWritten notes that n bytes stand in the host file.
func (f *File) hostWritten(off int64, n int) {
	f.hostChanged.Store(true)
	f.eng.wrote.Add(int64(n))
	f.mu.Lock()
	f.hostLen = max(f.hostLen, off+int64(n))
	f.mu.Unlock()
}

// sealHeader seals the header as it is now into b.
func (f *File) sealHeader(b *block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hdr.sequence++
	mac := f.crypto.takeMAC()
	f.hdr.seal(b, mac)
	f.crypto.putMAC(mac)
}

// cleanLocked is called when the metadata is written or logged. The caller holds mu.
func (f *File) cleanLocked() {
	for k, b := range f.dirty {
		f.eng.cacheMeta(k, b)
	}
	f.dirty, f.made, f.placed, f.was = emptied(f.dirty), emptied(f.made), emptied(f.placed), emptied(f.was)
	f.headerDirty = false
}

// enter puts v into a map, which is made when it is first needed: a file of one segment needs none of its maps.
func enter[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// emptied answers m without what was in it, or another map: one that ever held much takes long to go through, also when it holds little.
func emptied[K comparable, V any](m map[K]V) map[K]V {
	const few = 16
	if len(m) > few {
		return map[K]V{}
	}
	clear(m)
	return m
}

// setHostLength cuts or extends the host file; readers that still use slots behind the cut finish first.
func (f *File) setHostLength(n int64) error {
	f.slots.Lock()
	defer f.slots.Unlock()
	err := f.host.Truncate(n)
	f.hostChanged.Store(true)
	if err != nil {
		return &MetaError{Op: "write", Level: headerLevel, Err: err}
	}
	f.mu.Lock()
	f.hostLen = n
	f.mu.Unlock()
	return nil
}

// finishMeta completes every dirty block and the header body, so that what is in memory can be written as it is. Parents come after
// their children, since they take the children's pins.
func (f *File) finishMeta() {
	s := f.eng.pool.getScratch()
	defer f.eng.pool.putScratch(s)
	s.use(f.crypto.digest)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.single != nil {
		rec := f.single.record(f.geo, 0)
		if !allZero(rec) {
			rec.finish(&s.hasher, f.geo.Frames)
		}
		copy(f.hdr.body, rec)
	}
	for level := uint8(0); level <= treeLevels; level++ {
		for k, b := range f.dirty {
			if k.level != level {
				continue
			}
			if level > 0 {
				b.finishNode()
			} else if !f.placed[k] {
				f.finishRecords(k, b, &s.hasher)
			}
			p := f.crypto.pinOf(level, k.index, b)
			if f.made[k] && b.holes(level) { // what it was made for failed: there may be no place for it in the host file
				p = pin{}
				delete(f.dirty, k)
				delete(f.made, k)
			}
			if plevel, pindex, place, header := parentOf(level, k.index); header {
				f.pins[place] = p
			} else {
				f.dirty[metaKey{k.serial, plevel, pindex}].setPin(place, p)
			}
		}
	}
	if f.hdr.kind == bodyTree {
		for i, p := range f.pins {
			copy(f.hdr.body[i*pinSize:], p[:])
		}
	}
}

// finishRecords completes the records of a dirty meta block. The caller holds mu.
func (f *File) finishRecords(k metaKey, b *block, h *hasher) {
	was := f.was[k]
	for i := range f.geo.perGroup {
		rec := b.record(f.geo, i)
		if was != nil && bytes.Equal(rec, was.record(f.geo, i)) || allZero(rec) {
			continue // as it was finished, or of holes
		}
		rec.finish(h, f.geo.Frames)
	}
}

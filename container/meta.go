package container

import (
	"errors"
	"fmt"
	"io"
)

// loaders is how many locks there are for the loading of blocks of one level: about as many as requests are served at a time.
const loaders = 16

// lookup returns a meta block (level 0) or tree node of the file as it is now, nil where everything below it is holes. The block
// must not be changed and, where it is a dirty one, only be read under f.mu; cached ones never change. Errors are *MetaError.
func (f *File) lookup(level uint8, index uint64) (*block, error) {
	if b, known := f.inMemory(level, index); known {
		return b, nil
	}
	return f.loadBlock(level, index)
}

// inMemory looks where no host call is needed; known is false if the host must be asked.
func (f *File) inMemory(level uint8, index uint64) (b *block, known bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.hdr.kind != bodyTree {
		if level == 0 && index == 0 && f.hdr.kind == bodySingle {
			return f.single, f.single != nil
		}
		return nil, true
	}
	key := metaKey{f.serial, level, index}
	if b := f.dirty[key]; b != nil {
		return b, true
	}
	if b := f.eng.cachedMeta(key); b != nil {
		return b, true
	}
	if _, _, place, header := parentOf(level, index); header && f.pin(place).hole() {
		return nil, true
	}
	return nil, false
}

// loadBlock reads a block from the host and verifies it against its parent's pin, the parent first.
func (f *File) loadBlock(level uint8, index uint64) (*block, error) {
	load := &f.load[level][index%loaders]
	load.Lock()
	defer load.Unlock()
	for {
		before := f.flushes.Load()
		if b, known := f.inMemory(level, index); known {
			return b, nil
		}
		plevel, pindex, place, header := parentOf(level, index)
		var parent *block
		if !header {
			var err error
			if parent, err = f.lookup(plevel, pindex); err != nil || parent == nil {
				return nil, err
			}
		}
		f.mu.RLock()
		if f.closed {
			f.mu.RUnlock()
			return nil, ErrClosed
		}
		serial := f.serial
		var want pin
		if header {
			want = f.pin(place)
		} else {
			want = parent.pin(place)
		}
		f.mu.RUnlock()
		if want.hole() {
			return nil, nil
		}
		if want == unsealedPin {
			continue // a writer made the block since it was looked for: it is in memory now
		}
		b, err := f.readBlock(level, index, want)
		if err == nil {
			f.eng.cacheMeta(metaKey{serial, level, index}, b)
			return b, nil
		}
		if f.flushes.Load() == before {
			return nil, &MetaError{Op: "read", Level: level, Index: index, Err: err}
		}
	}
}

// readBlock reads one block and verifies pin and structure.
func (f *File) readBlock(level uint8, index uint64, want pin) (*block, error) {
	b := new(block)
	addr := f.blockAddr(level, index)
	if _, err := f.readHost(b[:], addr, BlockSize, false); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, ErrTruncated
		}
		return nil, err
	}
	if f.crypto.pinOf(level, index, b) != want {
		return nil, fmt.Errorf("pin: %w", ErrAuth)
	}
	if level > 0 {
		return b, b.checkNode(level, index, f.crypto.id[:])
	}
	for k := range f.geo.perGroup {
		if err := b.record(f.geo, k).check(f.geo, index*uint64(f.geo.perGroup)+uint64(k), f.crypto.id[:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (f *File) blockAddr(level uint8, index uint64) int64 {
	if level == 0 {
		return f.geo.groupAddr(index)
	}
	return f.geo.nodeAddr(level, index)
}

// writable returns a block to change, entered as dirty together with all its ancestors; one that did not exist begins as holes. The
// caller holds f.commit, and changes the block under f.mu.
func (f *File) writable(level uint8, index uint64) (*block, error) {
	if f.hdr.kind == bodySingle && level == 0 && index == 0 {
		return f.single, nil
	}
	k := metaKey{f.serial, level, index}
	f.mu.RLock()
	b := f.dirty[k]
	f.mu.RUnlock()
	if b != nil {
		if f.placed[k] {
			f.placed[k] = false
		}
		return b, nil
	}
	old, err := f.lookup(level, index)
	if err != nil {
		return nil, err
	}
	plevel, pindex, place, header := parentOf(level, index)
	var parent *block
	if !header {
		if parent, err = f.writable(plevel, pindex); err != nil {
			return nil, err
		}
	}
	b = new(block)
	if old != nil {
		*b = *old
		enter(&f.was, k, old)
	} else if level > 0 {
		b.beginNode(level, index, f.crypto.id[:])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	enter(&f.dirty, k, b)
	if old == nil {
		enter(&f.made, k, true)
	}
	f.headerDirty = true
	if header && f.pin(place).hole() {
		f.pins[place] = unsealedPin
	} else if !header && parent.pin(place).hole() {
		parent.setPin(place, unsealedPin)
	}
	return b, nil
}

// recordOf returns the record of a segment within its group's meta block.
func (f *File) recordOf(b *block, segment uint64) record {
	return b.record(f.geo, int(segment%uint64(f.geo.perGroup)))
}

func (f *File) groupOf(segment uint64) uint64 { return segment / uint64(f.geo.perGroup) }

// drop makes all groups from the first one on holes, without reading any block that falls away as a whole. The caller holds f.commit.
func (f *File) drop(group uint64) error {
	// The first child to drop on each level; a parent that keeps some of its children is changed, the ones after it are dropped in turn.
	first := group
	var keep []func()
	for level := uint8(0); level <= treeLevels; level++ {
		if level == 0 && first < headerGroups {
			from := int(first)
			keep = append(keep, func() { clear(f.pins[from:headerGroups]) })
			first = headerGroups
		}
		plevel, pindex, place, header := parentOf(level, first)
		if header {
			from := place
			keep = append(keep, func() { clear(f.pins[from:]) })
			break
		}
		if place > 0 {
			known, err := f.lookup(plevel, pindex)
			if err != nil {
				return err
			}
			if known != nil {
				parent, err := f.writable(plevel, pindex)
				if err != nil {
					return err
				}
				keep = append(keep, func() { clear(parent[nodePins+pinSize*place : nodePins+pinSize*nodeFanout]) })
			}
			pindex++
		}
		first = pindex
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, change := range keep {
		change()
	}
	// Dropped blocks must not come back from the cache when their place is used again, so the file's blocks get a new serial; dirty ones
	// that stay move over.
	serial := f.eng.serial.Add(1)
	kept := make(map[metaKey]*block, len(f.dirty))
	made := map[metaKey]bool{}
	for k, b := range f.dirty {
		if !f.dropped(k, group) {
			kept[metaKey{serial, k.level, k.index}] = b
			made[metaKey{serial, k.level, k.index}] = f.made[k]
		}
	}
	f.serial, f.dirty, f.made, f.headerDirty = serial, kept, made, true
	clear(f.placed)
	return nil
}

// dropped reports whether all that a block covers lies at or after the first dropped group.
func (f *File) dropped(k metaKey, group uint64) bool {
	if k.level == 0 {
		return k.index >= group
	}
	return headerGroups+k.index<<(fanoutShift*uint(k.level)) >= group
}

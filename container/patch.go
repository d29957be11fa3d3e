package container

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cofferfs/coffer/container/redo"
)

// A commit changes some bytes of a meta block, of each node above it and of the header. Such a block is logged whole the first time, and after that as
// patches: only the bytes that changed, as long as the journal keeps the whole one (FORMAT.md section 12, C6). Replay begins with the whole block, so that
// one that a power cut tore or destroyed in its place comes back. In memory images are whole at any time; the applier knows no patches.
//
//	File.imaged       per block, where the transaction begins that has all of it; forgotten with whatever takes images away from a replay
//	transaction.base  the least of these: the journal keeps it until the transaction is applied (applier.keepFor)
//	applier.cutoff    set by a checkpoint as it begins: what is older is no base any more, so that what it gives up is not needed again

const (
	mostImaged  = 8192          // blocks of a file that are known to be in the journal
	mostPatched = BlockSize / 2 // bytes of a block, its ranges included, beyond which it is logged whole
	rangeCost   = 16            // bytes of a range in the head: what lies between two is logged where that is no more
)

// errGivenUp: the journal may not keep a whole block that was to be patched.
var errGivenUp = errors.New("container: the journal was recycled meanwhile")

// usePatch enters a block of metadata into the transaction, as patches where that will do. was is what the journal has of it, nil where that is not known.
// The caller holds commit.
func (f *File) usePatch(t *transaction, m *image, was *block) {
	t.meta = append(t.meta, m)
	begin, known := f.imaged[m.off]
	if was == nil || !known {
		return
	}
	if m.changed = differences(was, (*block)(m.data), m.off); m.changed == nil {
		return
	}
	if !t.patches || begin < t.base {
		t.base = begin
	}
	t.patches = true
}

// differences returns the ranges of the host file in which a block at off differs, by whole words; nil where there are none, or more than a few.
func differences(was, now *block, off int64) (all []redo.Range) {
	const step, word = 256, 8
	total := int64(0)
	for at := 0; at < BlockSize; at += step {
		if bytes.Equal(was[at:at+step], now[at:at+step]) {
			continue
		}
		for i := at; i < at+step; i += word {
			if binary.NativeEndian.Uint64(was[i:]) == binary.NativeEndian.Uint64(now[i:]) {
				continue
			}
			here := off + int64(i)
			if n := len(all); n > 0 && here-all[n-1].End() <= rangeCost {
				total += here + word - all[n-1].End()
				all[n-1].Len = here + word - all[n-1].Off
				continue
			}
			total += rangeCost + word
			all = append(all, redo.Range{Off: here, Len: word})
		}
		if total > mostPatched {
			return nil
		}
	}
	return all
}

// wholeBlocks has all blocks logged whole.
func (t *transaction) wholeBlocks() {
	t.patches = false
	for _, m := range t.meta {
		m.changed = nil
	}
}

// noteBlocks notes which blocks a transaction has whole that was appended, with this header.
func (f *File) noteBlocks(t *transaction, header *block) {
	if len(f.imaged)+len(t.meta) > mostImaged {
		clear(f.imaged)
	}
	for _, m := range t.meta {
		if m.changed == nil {
			enter(&f.imaged, m.off, t.begin)
		}
	}
	f.wasHeader, t.meta = header, nil
}

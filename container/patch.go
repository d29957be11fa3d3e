package container

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/bits"

	"github.com/cofferfs/coffer/container/redo"
)

// A commit changes some bytes of a meta block, of each node above it and of the header. Such a block is logged whole the first time, and after that as
// patches: only the sectors that changed, as long as the journal keeps the whole one (FORMAT.md section 12, C6). Replay begins with the whole block, so that
// one that a power cut tore or destroyed in its place comes back. In memory images are whole at any time; the applier knows no patches.
//
//	File.imaged       per block, where the transaction begins that has all of it; forgotten with whatever takes images away from a replay
//	transaction.base  the least of these: the journal keeps it until the transaction is applied (applier.keepFor)
//	applier.cutoff    set by a checkpoint as it begins: what is older is no base any more, so that what it gives up is not needed again

const (
	sectorSize = 512
	mostImaged = 8192 // blocks of a file that are known to be in the journal
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
	for i := range BlockSize / sectorSize {
		if from := i * sectorSize; !bytes.Equal(m.data[from:from+sectorSize], was[from:from+sectorSize]) {
			m.changed |= 1 << i
		}
	}
	if m.changed == 0 || m.changed == 1<<(BlockSize/sectorSize)-1 {
		m.changed = 0
		return
	}
	if !t.patches || begin < t.base {
		t.base = begin
	}
	t.patches = true
}

// wholeBlocks has all blocks logged whole.
func (t *transaction) wholeBlocks() {
	t.patches = false
	for _, m := range t.meta {
		m.changed = 0
	}
}

// noteBlocks notes which blocks a transaction has whole that was appended, with this header.
func (f *File) noteBlocks(t *transaction, header *block) {
	if len(f.imaged)+len(t.meta) > mostImaged {
		clear(f.imaged)
	}
	for _, m := range t.meta {
		if m.changed == 0 {
			f.imaged[m.off] = t.begin
		}
	}
	f.wasHeader, t.meta = header, nil
}

// patch appends the changed sectors of a block, neighbours together, and their CRCs.
func (m *image) patch(ranges []redo.Range, sums []uint32, bulk [][]byte) ([]redo.Range, []uint32, [][]byte) {
	for left := m.changed; left != 0; {
		i := bits.TrailingZeros8(left)
		n := bits.TrailingZeros8(^(left >> i))
		left &^= (1<<n - 1) << i
		from := i * sectorSize
		ranges = append(ranges, redo.Range{Off: m.off + int64(from), Len: int64(n) * sectorSize})
		data := m.data[from : from+n*sectorSize]
		sums, bulk = append(sums, crc32.Checksum(data, castagnoli)), append(bulk, data)
	}
	return ranges, sums, bulk
}

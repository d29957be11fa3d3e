package container

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cofferfs/coffer/container/suite"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcExcept is the CRC32C of b with the four bytes at off taken as zero.
func crcExcept(b []byte, off int) uint32 {
	var zero [4]byte
	crc := crc32.Update(0, castagnoli, b[:off])
	crc = crc32.Update(crc, castagnoli, zero[:])
	return crc32.Update(crc, castagnoli, b[off+4:])
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// entry is a view of one 56-byte frame entry inside a segment record:
//
//	0               3     4          8       32    48
//	| plain length  |flags|generation| nonce | tag | leaf |
type entry []byte

func (e entry) length() uint32     { return binary.LittleEndian.Uint32(e) & 0xffffff }
func (e entry) generation() uint32 { return binary.LittleEndian.Uint32(e[4:]) }
func (e entry) nonce() []byte      { return e[8:32] }
func (e entry) tag() []byte        { return e[32:48] }
func (e entry) leaf() []byte       { return e[48:56] }
func (e entry) hole() bool         { return e.length() == 0 }

func (e entry) set(length, generation uint32, nonce, tag []byte, leaf [leafSize]byte) {
	binary.LittleEndian.PutUint32(e, length)
	binary.LittleEndian.PutUint32(e[4:], generation)
	copy(e[8:32], nonce)
	copy(e[32:32+suite.TagSize], tag)
	copy(e[48:56], leaf[:])
}

// check rejects what no writer writes. The pin has been verified before, so that a failure here is a writer's bug or a forged key.
func (e entry) check(limit int) error {
	switch {
	case e[3] != 0:
		return fmt.Errorf("frame entry flags %#x: %w", e[3], ErrCorrupt)
	case e.length() > uint32(limit):
		return fmt.Errorf("frame of %d bytes: %w", e.length(), ErrCorrupt)
	case e.hole() && !allZero(e[:entrySize]):
		return fmt.Errorf("hole with contents: %w", ErrCorrupt)
	}
	return nil
}

// record is a view of one segment record inside a meta block or a header:
//
//	0      4     8       16         24      40       48             80     128
//	| magic| CRC |segment|generation|file id|last LSN|segment digest|0 (48)| n frame entries | 0 |
type record []byte

const recordMagic = "CSR1"

func (r record) segment() uint64    { return binary.LittleEndian.Uint64(r[8:]) }
func (r record) generation() uint64 { return binary.LittleEndian.Uint64(r[16:]) }
func (r record) entry(i int) entry  { return entry(r[recordHead+entrySize*i:][:entrySize]) }

// begin makes a record of zeros one of this segment and raises the generation of any.
func (r record) begin(segment uint64, id []byte) {
	copy(r, recordMagic)
	binary.LittleEndian.PutUint64(r[8:], segment)
	binary.LittleEndian.PutUint64(r[16:], r.generation()+1)
	copy(r[24:40], id)
}

// finish recomputes digest and CRC after entries have changed.
func (r record) finish(h *hasher, frames int) {
	sum := h.segment(r.segment(), r[24:40], frames, func(i int) []byte { return r.entry(i).leaf() })
	copy(r[48:80], sum[:])
	binary.LittleEndian.PutUint32(r[4:], crcExcept(r, 4))
}

// check verifies the structure of a record read from the host; a record of zeros is a segment of holes.
func (r record) check(g *Geometry, segment uint64, id []byte) error {
	if allZero(r) {
		return nil
	}
	if string(r[:4]) != recordMagic || crcExcept(r, 4) != binary.LittleEndian.Uint32(r[4:]) {
		return fmt.Errorf("segment record %d: %w", segment, ErrCorrupt)
	}
	if r.segment() != segment || !bytes.Equal(r[24:40], id) {
		return fmt.Errorf("segment record %d of another segment: %w", segment, ErrCorrupt)
	}
	if !allZero(r[80:recordHead]) || !allZero(r[recordHead+entrySize*g.Frames:]) {
		return fmt.Errorf("segment record %d: reserved bytes: %w", segment, ErrCorrupt)
	}
	for i := range g.Frames {
		if err := r.entry(i).check(g.FrameSize); err != nil {
			return fmt.Errorf("segment record %d: frame %d: %w", segment, i, err)
		}
	}
	return nil
}

// block is one meta block or tree node in memory.
type block [BlockSize]byte

// record returns the record of the k-th segment of a meta block's group.
func (b *block) record(g *Geometry, k int) record {
	return record(b[k*g.record : (k+1)*g.record])
}

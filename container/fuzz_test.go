package container

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
)

// FuzzRecord: a segment record that passes its check has nothing in it that does not come back when it is built again from its fields. The CRC is made
// right, to reach what lies behind it.
func FuzzRecord(f *testing.F) {
	const segment = 5
	r := newRig(f, geometries[8], suite.XAES256GCM, BLAKE3)
	g, id := r.eng.Geometry(), testID(1)
	whole := make(record, g.record)
	whole.begin(segment, id[:])
	whole.entry(0).set(uint32(g.FrameSize), 1, random(24), random(16), [leafSize]byte{1})
	whole.entry(3).set(77, 1, random(24), random(16), [leafSize]byte{2})
	f.Add([]byte(whole))
	f.Add(make([]byte, g.record))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rec := make(record, g.record)
		copy(rec, raw)
		if err := rec.check(g, segment, id[:]); err != nil && !refused(err) {
			t.Fatalf("error without a class: %v", err)
		}
		binary.LittleEndian.PutUint32(rec[4:], crcExcept(rec, 4))
		if err := rec.check(g, segment, id[:]); err != nil {
			if !refused(err) {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		if allZero(rec) {
			return
		}
		again := make(record, g.record)
		again.begin(segment, id[:])
		copy(again[16:24], rec[16:24]) // generation
		copy(again[40:80], rec[40:80]) // LSN, segment digest
		for i := range g.Frames {
			if e := rec.entry(i); !e.hole() {
				again.entry(i).set(e.length(), e.generation(), e.nonce(), e.tag(), [leafSize]byte(e.leaf()))
			}
		}
		binary.LittleEndian.PutUint32(again[4:], crcExcept(again, 4))
		if !bytes.Equal(again, rec) {
			t.Fatalf("what passes does not encode to the same bytes; first at %d", firstDiff(again, rec))
		}
	})
}

// FuzzNode is FuzzRecord for tree nodes.
func FuzzNode(f *testing.F) {
	const level, index = 2, 3
	id := testID(1)
	var whole block
	whole.beginNode(level, index, id[:])
	whole.setPin(7, pin(random(pinSize)))
	whole.finishNode()
	f.Add(whole[:])
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b block
		copy(b[:], raw)
		if err := b.checkNode(level, index, id[:]); err != nil && !refused(err) {
			t.Fatalf("error without a class: %v", err)
		}
		b.finishNode()
		if b.checkNode(level, index, id[:]) != nil {
			return
		}
		var again block
		again.beginNode(level, index, id[:])
		copy(again[24:32], b[24:32]) // LSN
		for i := range nodeFanout {
			again.setPin(i, b.pin(i))
		}
		again.finishNode()
		if again != b {
			t.Fatalf("what passes does not encode to the same bytes; first at %d", firstDiff(again[:], b[:]))
		}
	})
}

// FuzzFrameHeader: what parses encodes to the same bytes.
func FuzzFrameHeader(f *testing.F) {
	for _, h := range []frameHeader{
		{typ: frameData, suite: suite.XAES256GCM, segment: 5, frame: 3, length: 4096, generation: 9},
		{typ: frameInline, suite: suite.XChaCha20Poly1305, length: inlineMax},
		{typ: frameDigest, suite: suite.XAES256GCM, segment: 1 << 40, frame: 16, length: digestPayload},
	} {
		var b [frameHeaderSize]byte
		h.put(b[:])
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var h frameHeader
		if err := h.parse(raw, 0); err != nil {
			if !refused(err) {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		var again [frameHeaderSize]byte
		h.put(again[:])
		if !bytes.Equal(again[:], raw[:frameHeaderSize]) {
			t.Fatal("what parses does not encode to the same bytes")
		}
	})
}

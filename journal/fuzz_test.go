package journal

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// FuzzReader: whatever was changed in two pieces of a vector, nothing panics, no head is delivered that was not written, in another order or with another length, and
// memory stays within what the files hold. Since no fuzzer forges a MAC, the record at one position also gets right CRCs, or a right MAC.
func FuzzReader(f *testing.F) {
	var names []string
	all := buildVectors(f)
	for name, v := range all {
		if d := vectorDisk(f, v); d.names[pieceName(0)] != nil && d.names[pieceName(1)] != nil {
			names = append(names, name)
		}
	}
	if slices.Sort(names); len(names) < 15 {
		f.Fatalf("only %d seeds", len(names))
	}
	for i := range names {
		f.Add(uint8(i), []byte{0, 0, 0, 0}, uint8(i), uint8(i))
		f.Add(uint8(i), []byte{0x80, 0x10, byte(i), 1, 0x80, 0x10, byte(2 * i), 0x80}, uint8(0), uint8(i))
	}
	_, txs := vectorLog(f, true)
	heads := map[string]bool{}
	for _, x := range txs {
		heads[string(x.head)] = true
	}
	for n := range 7 {
		heads[string(testTx(n, 50, 0).head)] = true
	}
	f.Fuzz(func(t *testing.T, vector uint8, edits []byte, at, how uint8) {
		d := vectorDisk(t, all[names[int(vector)%len(names)]])
		a, b := d.names[pieceName(0)].cur, d.names[pieceName(1)].cur
		for ; len(edits) >= 4; edits = edits[4:] {
			p, off := a, int(binary.BigEndian.Uint16(edits[1:]))
			if edits[0]&1 != 0 {
				p = b
			}
			if edits[0]&0x80 != 0 { // a field of a record, where most edits should go
				off = pieceHeader + (off>>8%8)*sector + off&0xff
			}
			if off < len(p) {
				p[off] ^= edits[3]
			}
		}
		forged := mend(a, at, how)
		r, err := Open(vectorConfig(d))
		if err != nil {
			if !errors.Is(err, ErrVersion) && !errors.Is(err, ErrPieces) {
				t.Fatal(err)
			}
			return
		}
		defer r.Close()
		var last LSN
		var seen int64
		_, err = r.Each(func(x *Transaction, bulk func([]byte, int64) error) error {
			seen += int64(len(x.Head)) + x.BulkLen
			if x.LSN <= last || seen > 8*vectorPiece {
				t.Fatalf("LSN %d after %d, %d bytes", x.LSN, last, seen)
			}
			if !forged && !heads[string(x.Head)] {
				t.Fatalf("a head that nobody wrote: %x", x.Head)
			}
			last = x.LSN
			return bulk(make([]byte, x.BulkLen), 0)
		})
		if err != nil && !(forged && errors.Is(err, ErrMalformed)) {
			t.Fatal(err)
		}
		if cap(r.head) > 2*vectorPiece {
			t.Fatalf("%d bytes of memory for a head", cap(r.head))
		}
	})
}

// mend makes what is fuzzed get past the checks: of the header, or of one record. It reports whether it made something authentic of it.
func mend(p []byte, at, how uint8) (forged bool) {
	if how&1 != 0 && len(p) >= sector {
		resealPiece(p)
		if how&2 != 0 {
			clear(p[8:12])
			pieceMAC(testMAC(), (*[sector]byte)(p), p[pieceMACAt:pieceMACAt])
			resealPiece(p)
			forged = true
		}
	}
	off := pieceHeader + int(at%8)*sector
	if how&4 == 0 || len(p) < off+sector {
		return forged
	}
	b := p[off:]
	n := int64(binary.LittleEndian.Uint32(b[16:])) + int64(binary.LittleEndian.Uint32(b[20:]))
	if n > int64(len(b)-recordHeader) {
		return forged
	}
	resealRecord(b)
	if how&8 == 0 || at%8 != 0 {
		return forged
	}
	head := min(int(binary.LittleEndian.Uint32(b[16:])), int(n))
	s := sealer{mac: testMAC()}
	s.begin((*chain)(p[88:]), b)
	s.mac.Write(b[recordHeader : recordHeader+head])
	mac := s.end()
	sealRecord(b, &mac)
	return true
}

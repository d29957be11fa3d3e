package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors of this package")

const (
	vectorDir   = "testdata/vectors"
	vectorPiece = pieceHeader + 8*sector // 4 KiB of log each
)

var expectations = map[string]error{"success": nil, "unknown version": ErrVersion, "contradiction": ErrPieces}

func vectorConfig(d *memDisk) Config {
	c := testConfig(d, 4)
	c.pieceSize, c.Size = vectorPiece, 8*vectorPiece
	return c
}

// vectorLog writes a log of six transactions in three pieces; the fourth spans two of them, the last takes four sectors. With synced each is
// synced, so that each record but the first states that all before is durable.
func vectorLog(t testing.TB, synced bool) (*memDisk, []tx) {
	d := newMemDisk()
	j := open(t, vectorConfig(d))
	var all []tx
	for n, size := range []int{700, 0, 1900, 3000, 300, 1700} {
		all = append(all, put(t, j, testTx(n, min(size, 40+n), max(0, size-40-n))))
		if synced {
			ok(t, j.Sync(all[n].lsn))
		}
	}
	ok(t, j.Sync(j.End()))
	return d, all
}

// at returns the bytes at a log position, up to the end of its piece.
func (d *memDisk) at(pos LSN) []byte {
	return d.names[pieceName(int(pos/span(vectorPiece)))].cur[pieceHeader+int64(pos%span(vectorPiece)):]
}

// zeroFrom makes everything from a log position to limit as if it had never been written.
func (d *memDisk) zeroFrom(pos, limit LSN) {
	for ; pos < limit; pos += sector {
		clear(d.at(pos)[:sector])
	}
}

// resealPiece makes the CRC of a header right.
func resealPiece(b []byte) {
	clear(b[8:12])
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:sector], castagnoli))
}

// resealRecord makes both CRCs of the record in b right, but not its MAC.
func resealRecord(b []byte) {
	n := binary.LittleEndian.Uint32(b[16:]) + binary.LittleEndian.Uint32(b[20:])
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[recordHeader:recordHeader+n], castagnoli))
	clear(b[4:8])
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[:recordHeader], castagnoli))
}

// vectorBuilder collects vectors: the pieces as they stand on d, and what a reader must make of them.
type vectorBuilder map[string]*vectors.Vector

func (all vectorBuilder) add(name, comment string, d *memDisk, torn, lost bool, want []tx) {
	v := all.fail(name, "success", comment, d)
	v.Set("torn", fmt.Sprint(torn)).Set("lost", fmt.Sprint(lost)).SetUint("transactions", uint64(len(want)))
	for i, x := range want {
		v.SetUint(fmt.Sprintf("lsn_%d", i), uint64(x.lsn)).SetHex(fmt.Sprintf("head_%d", i), x.head).SetHex(fmt.Sprintf("bulk_%d", i), x.bulk)
	}
}

func (all vectorBuilder) fail(name, expect, comment string, d *memDisk) *vectors.Vector {
	c := vectorConfig(d)
	v := new(vectors.Vector).Set("expect", expect).Set("comment", comment).SetHex("key", bytes.Repeat([]byte{7}, 32))
	v.SetHex("vault", c.Vault[:]).SetHex("id", c.ID[:])
	var names []string
	for name := range d.names {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b := d.names[name].cur
		field := strings.Replace(name, ".", "_", 1)
		v.SetUint(field, uint64(len(b)))
		for i := 0; i < len(b); i += sector {
			if s := b[i:min(i+sector, len(b))]; !allZero(s) {
				v.SetHex(fmt.Sprintf("%s_at_%d", field, i), s)
			}
		}
	}
	all["journal_"+name] = v
	return v
}

func buildVectors(t testing.TB) vectorBuilder {
	all := vectorBuilder{}
	d, txs := vectorLog(t, true)
	all.add("clean", "six transactions in three pieces, each synced", d, false, false, txs)
	last, n := txs[4].lsn, len(txs)

	for i := range int((txs[5].lsn - last) / sector) {
		d, _ := vectorLog(t, true)
		d.zeroFrom(last+LSN(i*sector), txs[5].lsn)
		all.add(fmt.Sprintf("torn_tail_%d", i), fmt.Sprintf("of the last transaction only %d sectors were written", i), d, i > 0, false, txs[:n-1])
	}
	for i := range int((txs[5].lsn - last) / sector) {
		d, _ := vectorLog(t, true)
		d.zeroFrom(last+LSN(i*sector), last+LSN(i+1)*sector)
		all.add(fmt.Sprintf("torn_hole_%d", i), fmt.Sprintf("of the last transaction sector %d was not written", i), d, true, false, txs[:n-1])
	}
	damaged := func(name, comment string, synced, torn, lost bool, keep int, damage func(d *memDisk)) {
		d, _ := vectorLog(t, synced)
		damage(d)
		all.add(name, comment, d, torn, lost, txs[:keep])
	}
	damaged("missing_commit", "the second record of a transaction that spans two pieces, and all behind it, was not written", true, true, false, 3, func(d *memDisk) {
		d.zeroFrom(span(vectorPiece), 3*span(vectorPiece))
		for _, name := range []string{pieceName(1), pieceName(2)} {
			clear(d.names[name].cur)
		}
	})
	damaged("flipped_bit", "a bit of bulk in the middle; nothing says that it was durable", false, true, false, 2, func(d *memDisk) { d.at(txs[1].lsn)[sector] ^= 1 })
	damaged("flipped_bit_proven", "a bit of bulk in the middle; later records say that it was durable", true, true, true, 2, func(d *memDisk) { d.at(txs[1].lsn)[sector] ^= 1 })
	damaged("head_forged", "a changed head with right CRCs", true, true, true, 2, func(d *memDisk) { b := d.at(txs[1].lsn); b[recordHeader] ^= 1; resealRecord(b) })
	damaged("record_zeroed", "a record in the middle is zeros", true, true, true, 1, func(d *memDisk) { d.zeroFrom(txs[0].lsn, txs[1].lsn) })
	damaged("length_unbounded", "a record with a right CRC that is longer than its piece", true, true, true, 2, func(d *memDisk) {
		b := d.at(txs[1].lsn)
		binary.LittleEndian.PutUint32(b[20:], 0xffffffff)
		clear(b[4:8])
		binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[:recordHeader], castagnoli))
	})
	damaged("cut_tail", "the last piece is missing: nothing that is left can tell", true, true, false, 5, func(d *memDisk) { delete(d.names, pieceName(2)) })
	damaged("cut_file", "the last piece ends within a record", true, true, false, 5, func(d *memDisk) {
		i := d.names[pieceName(2)]
		i.cur = i.cur[:pieceHeader+sector]
	})
	damaged("piece_missing", "the piece in the middle is missing, and the one behind says what was durable", true, true, true, 3, func(d *memDisk) { delete(d.names, pieceName(1)) })
	damaged("names_swapped", "two pieces have each other's name: the order is that of their sequences", true, false, false, 6, func(d *memDisk) {
		d.names[pieceName(0)], d.names[pieceName(1)] = d.names[pieceName(1)], d.names[pieceName(0)]
	})
	damaged("pieces_swapped", "two pieces have each other's records", true, true, true, 0, func(d *memDisk) {
		a, b := d.names[pieceName(0)].cur, d.names[pieceName(1)].cur
		for i := pieceHeader; i < len(a); i++ {
			a[i], b[i] = b[i], a[i]
		}
	})
	damaged("piece_of_fork", "the last piece is an authentic one of another history of the same journal", true, true, false, 5, func(d *memDisk) {
		fork := newMemDisk()
		j := open(t, vectorConfig(fork))
		for n, size := range []int{700, 0, 1900, 3000, 300, 1700} {
			put(t, j, testTx(n+10, min(size, 40+n), max(0, size-40-n)))
		}
		d.names[pieceName(2)] = fork.names[pieceName(2)]
	})
	damaged("header_forged", "the header of the last piece was changed and has a right CRC", true, true, false, 5, func(d *memDisk) {
		b := d.names[pieceName(2)].cur
		b[72] ^= 1
		resealPiece(b)
	})
	damaged("old_id", "pieces of an earlier journal id", true, false, false, 0, func(d *memDisk) {
		for name := range d.names {
			d.names[name].cur = otherID(t, d.names[name].cur)
		}
	})
	recycledVectors(t, all)

	d, _ = vectorLog(t, true)
	d.names["journal.0007"] = d.names[pieceName(1)]
	all.fail("piece_copied", "contradiction", "a piece stands there twice", d)
	d, _ = vectorLog(t, true)
	b := d.names[pieceName(0)].cur
	b[12] = 2
	resealPiece(b)
	all.fail("version_unknown", "unknown version", "a header of version 2", d)
	return all
}

// otherID makes the header of a piece that of another journal, authentically.
func otherID(t testing.TB, b []byte) []byte {
	c := vectorConfig(nil)
	h, state := decodeHeader((*[sector]byte)(slices.Clone(b[:sector])), testMAC(), c.Vault, c.ID)
	if state != headerGood {
		t.Fatal("no header")
	}
	h.id[0]++
	b = slices.Clone(b)
	copy(b, h.encode(testMAC())[:])
	return b
}

// recycledVectors adds those of a ring that went round.
func recycledVectors(t testing.TB, all vectorBuilder) {
	build := func(count int) (*memDisk, []tx) {
		d := newMemDisk()
		j := open(t, vectorConfig(d))
		var txs []tx
		for n := range count {
			txs = append(txs, put(t, j, testTx(n, 50, 1800)))
			ok(t, j.Sync(txs[n].lsn))
			if n == 3 {
				j.Recycle(txs[2].lsn)
			}
		}
		return d, txs
	}
	d, txs := build(7)
	all.add("recycled", "a piece was given up and is used again; what is behind its new records belongs to its old use", d, false, false, txs[3:])
	after := d.names[pieceName(0)].cur
	d, _ = build(4)
	copy(d.names[pieceName(0)].cur[headerStep:], after[headerStep:headerStep+200])
	all.add("header_torn", "the new header of a piece that was to be used again is torn, its old one and its records stand", d, false, false, txs[:4])
	d, _ = build(7)
	r, err := Open(vectorConfig(d))
	ok(t, err)
	d.before = func(call, _ string) (int, error) {
		if call == "unlink" {
			return 0, errors.New("power cut")
		}
		return 0, nil
	}
	if r.Remove() == nil {
		t.Fatal("removed")
	}
	d.before = nil
	all.add("emptied", "the newest header gives up all: removal had begun", d, false, false, nil)
}

func TestVectors(t *testing.T) {
	vectors.Run(t, vectors.Sync(t, vectorDir, "journal_", buildVectors(t), *update), expectations, runVector)
}

// vectorDisk puts the pieces of a vector on a disk.
func vectorDisk(t testing.TB, v *vectors.Vector) *memDisk {
	t.Helper()
	d := newMemDisk()
	for _, field := range v.Names() {
		digits, isPiece := strings.CutPrefix(field, "journal_")
		if isPiece && len(digits) == 4 {
			d.names["journal."+digits] = &memInode{cur: make([]byte, v.Uint(field))}
		} else if isPiece {
			var off int
			if _, err := fmt.Sscanf(digits[4:], "_at_%d", &off); err != nil {
				t.Fatal(err)
			}
			copy(d.names["journal."+digits[:4]].cur[off:], v.Hex(field))
		}
	}
	return d
}

func runVector(t *testing.T, v *vectors.Vector) error {
	c := vectorConfig(vectorDisk(t, v))
	copy(c.ID[:], v.Hex("id"))
	copy(c.Vault[:], v.Hex("vault"))
	if !v.Has("transactions") {
		_, err := Open(c)
		return err
	}
	got, log := replay(t, c)
	var txs []tx
	for i := range v.Uint("transactions") {
		txs = append(txs, tx{LSN(v.Uint(fmt.Sprintf("lsn_%d", i))), v.Hex(fmt.Sprintf("head_%d", i)), v.Hex(fmt.Sprintf("bulk_%d", i))})
	}
	mustEqual(t, got, txs)
	if fmt.Sprint(log.Torn) != v.Get("torn") || fmt.Sprint(log.Lost) != v.Get("lost") {
		t.Errorf("%+v, want torn %s, lost %s", log, v.Get("torn"), v.Get("lost"))
	}
	return nil
}

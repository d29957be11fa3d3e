package journal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
)

const testPiece = pieceHeader + 16*sector // 8 KiB of log each

func testMAC() hash.Hash { return hmac.New(sha256.New, bytes.Repeat([]byte{7}, 32)) }

func testConfig(d disk.Dir, pieces int64) Config {
	c := Config{Dir: d, MAC: testMAC, Size: pieces * testPiece, pieceSize: testPiece}
	copy(c.Vault[:], "vault of a test.")
	copy(c.ID[:], "journal of tests")
	return c
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, c Config) *Journal {
	t.Helper()
	j, err := New(c)
	ok(t, err)
	return j
}

// tx is a transaction as a test wrote or read it.
type tx struct {
	lsn        LSN
	head, bulk []byte
}

func (a tx) equal(b tx) bool {
	return a.lsn == b.lsn && bytes.Equal(a.head, b.head) && bytes.Equal(a.bulk, b.bulk)
}

// testTx makes a transaction whose bytes follow from its number.
func testTx(n, head, bulk int) tx {
	fill := func(b []byte, salt byte) []byte {
		for i := range b {
			b[i] = byte(n*31+i*7) ^ salt ^ byte(i>>8)
		}
		if len(b) >= 8 {
			binary.LittleEndian.PutUint64(b, uint64(n))
		}
		return b
	}
	return tx{head: fill(make([]byte, head), 0), bulk: fill(make([]byte, bulk), 0xa5)}
}

// durable is the LSN up to which a Sync has nothing left to do.
func durable(j *Journal) LSN { j.mu.Lock(); defer j.mu.Unlock(); return j.synced }

// sticky is the error that ended the journal, nil as long as all is well.
func sticky(j *Journal) error { j.mu.Lock(); defer j.mu.Unlock(); return j.err }

// put appends t, its bulk cut in three.
func put(t testing.TB, j *Journal, x tx) tx {
	t.Helper()
	var err error
	x.lsn, err = j.Append(Entry{Head: x.head, Bulk: [][]byte{x.bulk[:len(x.bulk)/3], nil, x.bulk[len(x.bulk)/3 : len(x.bulk)/2], x.bulk[len(x.bulk)/2:]}})
	ok(t, err)
	return x
}

// replay reads the log, twice, and its bulk in odd parts.
func replay(t testing.TB, c Config) ([]tx, Log) {
	t.Helper()
	r, err := Open(c)
	ok(t, err)
	defer r.Close()
	var first []tx
	var log Log
	for pass := range 2 {
		var list []tx
		var kept []Bulk
		got, err := r.Each(func(x *Transaction, bulk func([]byte, int64) error) error {
			b := make([]byte, x.BulkLen)
			if err := bulk(b, 0); err != nil {
				return err
			}
			for at := int64(0); at < x.BulkLen; at += 1777 {
				p := make([]byte, min(1999, x.BulkLen-at))
				if err := bulk(p, at); err != nil {
					return err
				}
				if !bytes.Equal(p, b[at:at+int64(len(p))]) {
					return errors.New("parts of the bulk differ from the whole")
				}
			}
			if bulk(make([]byte, 1), x.BulkLen) == nil || bulk(nil, -1) == nil {
				return errors.New("bulk reads beyond its bounds")
			}
			list, kept = append(list, tx{x.LSN, bytes.Clone(x.Head), b}), append(kept, x.Keep())
			return nil
		})
		ok(t, err)
		for i, k := range kept {
			b := make([]byte, len(list[i].bulk))
			if err := k.ReadAt(b, 0); err != nil || !bytes.Equal(b, list[i].bulk) || k.ReadAt(make([]byte, 1), int64(len(b))) == nil {
				t.Fatalf("the bulk of transaction %d reads otherwise after the pass: %v", i, err)
			}
		}
		if pass == 1 && (!slices.EqualFunc(first, list, tx.equal) || got != log) {
			t.Fatal("the second pass differs from the first")
		}
		first, log = list, got
	}
	if log.Transactions != len(first) || len(first) > 0 && log.End != first[len(first)-1].lsn {
		t.Fatalf("%d transactions, log %+v", len(first), log)
	}
	return first, log
}

func mustEqual(t testing.TB, got, want []tx) {
	t.Helper()
	for i := range want {
		if i >= len(got) || !got[i].equal(want[i]) {
			t.Fatalf("%d of %d transactions, number %d is missing or differs", len(got), len(want), i)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d transactions, want %d", len(got), len(want))
	}
}

func TestEmpty(t *testing.T) {
	d := newMemDisk()
	list, log := replay(t, testConfig(d, 4))
	if len(list) != 0 || log != (Log{}) {
		t.Fatalf("%v, %+v", list, log)
	}
	calls := 0
	d.before = func(string, string) (int, error) { calls++; return 0, nil }
	j := open(t, testConfig(d, 4))
	ok(t, j.Sync(0))
	ok(t, j.Close(true))
	if calls != 0 {
		t.Errorf("%d host calls for nothing", calls)
	}
	if _, err := j.Append(Entry{}); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
}

func TestSize(t *testing.T) {
	for size, want := range map[int64]bool{0: true, 4 * PieceSize: true, 4*PieceSize - 1: false, maxPieces * PieceSize: true, (maxPieces + 1) * PieceSize: false, -1: false} {
		_, err := New(Config{MAC: testMAC, Size: size})
		if (err == nil) != want || err != nil && !errors.Is(err, ErrSize) {
			t.Errorf("%d: %v", size, err)
		}
	}
}

// Transactions of every size around the edges of sectors and pieces, each alone in a journal and all in one.
func TestRoundTrip(t *testing.T) {
	var all []tx
	big := newMemDisk()
	jb := open(t, testConfig(big, 200))
	for n, size := range []int{0, 1, 415, 416, 417, 8000, 8095, 8096, 8097, 8192, 16000, 16192, maxTransaction(4, testPiece)} {
		for _, head := range []int{0, 1, 300, size} {
			if head > size {
				continue
			}
			x := testTx(n, head, size-head)
			d := newMemDisk()
			j := open(t, testConfig(d, 4))
			one := put(t, j, x)
			ok(t, j.Sync(one.lsn))
			if j.End() != one.lsn || durable(j) != one.lsn || j.Used() != int64(one.lsn) {
				t.Errorf("end %d, synced %d, used %d, want %d", j.End(), durable(j), j.Used(), one.lsn)
			}
			got, log := replay(t, testConfig(d.crash(nil, 0), 4))
			mustEqual(t, got, []tx{one})
			if log.Torn || log.Lost || log.Bytes != int64(size) {
				t.Errorf("%+v", log)
			}
			all = append(all, put(t, jb, x))
		}
	}
	ok(t, jb.Sync(jb.End()))
	got, _ := replay(t, testConfig(big.crash(nil, 0), 4))
	mustEqual(t, got, all)
	ok(t, jb.Close(true))
	if len(big.names) != 0 || len(big.durable) != 0 {
		t.Errorf("%d pieces stay after removal, %d names durably", len(big.names), len(big.durable))
	}
}

func TestTooLarge(t *testing.T) {
	d := newMemDisk()
	j := open(t, testConfig(d, 4))
	n := maxTransaction(4, testPiece)
	if _, err := j.Append(Entry{Head: make([]byte, 10), Bulk: [][]byte{make([]byte, n-9)}}); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	for range 20 { // the longest fits wherever it begins
		x := put(t, j, testTx(1, 10, n-10))
		ok(t, j.Sync(x.lsn))
		j.Recycle(x.lsn)
		x = put(t, j, testTx(1, 0, 1000))
		ok(t, j.Sync(x.lsn))
		j.Recycle(x.lsn)
	}
	if n := maxTransaction(4, PieceSize); n < 24<<20-3*pieceHeader-3*recordHeader {
		t.Error(n)
	}
	if len(d.names) != 4 {
		t.Errorf("%d pieces", len(d.names))
	}
}

// Pieces are used again in place, whatever is not given up is delivered, and no transaction twice.
func TestRecycle(t *testing.T) {
	d := newMemDisk()
	j := open(t, testConfig(d, 4))
	var all []tx
	from := 0
	for n := range 300 {
		all = append(all, put(t, j, testTx(n, n%700, n*37%3000)))
		ok(t, j.Sync(all[n].lsn))
		got, log := replay(t, testConfig(d.crash(nil, 0), 4))
		if log.Lost || log.Torn || log.Recycled > all[n].lsn {
			t.Fatalf("%+v", log)
		}
		mustEqual(t, got, all[n+1-len(got):])
		if len(got) < n+1-from {
			t.Fatalf("transaction %d: %d are delivered, %d were not given up", n, len(got), n+1-from)
		}
		if j.Used() > 2*int64(span(testPiece)) {
			from = n - 1
			j.Recycle(all[n-2].lsn)
		}
	}
	if len(d.names) != 4 {
		t.Errorf("%d pieces, want 4", len(d.names))
	}
	for name, i := range d.names {
		if len(i.cur) != testPiece {
			t.Errorf("%s has %d bytes", name, len(i.cur))
		}
	}
}

// What was given up is not delivered once any later record says so.
func TestRecycleStated(t *testing.T) {
	d := newMemDisk()
	j := open(t, testConfig(d, 4))
	var all []tx
	for n := range 4 {
		all = append(all, put(t, j, testTx(n, 10, 10)))
		ok(t, j.Sync(all[n].lsn))
		if n == 2 {
			j.Recycle(all[1].lsn)
		}
	}
	got, log := replay(t, testConfig(d, 4))
	mustEqual(t, got, all[2:])
	if log.Recycled != all[1].lsn {
		t.Errorf("%+v", log)
	}
}

// What is not synced is not given up.
// Given follows what the disk says: a recycled LSN counts once a record that was written later is synced.
func TestGiven(t *testing.T) {
	c := testConfig(newMemDisk(), 4)
	j := open(t, c)
	given := func(want LSN) {
		t.Helper()
		if got := j.Given(); got != want {
			t.Errorf("given up to %d, not %d", got, want)
		}
		_, log := replay(t, c)
		if log.Recycled < want {
			t.Errorf("%d is given, a replay begins at %d", want, log.Recycled)
		}
	}
	x := put(t, j, testTx(1, 40, 100))
	ok(t, j.Sync(x.lsn))
	j.Recycle(x.lsn)
	ok(t, j.Sync(x.lsn))
	given(0) // nothing was written since
	y := put(t, j, testTx(2, 40, 100))
	given(0) // and not synced
	ok(t, j.Sync(y.lsn))
	given(x.lsn)
}

func TestRecycleBeyondSynced(t *testing.T) {
	j := open(t, testConfig(newMemDisk(), 4))
	a := put(t, j, testTx(0, 10, 10))
	j.Recycle(a.lsn)
	if j.Used() == 0 {
		t.Error("an unsynced transaction was given up")
	}
	ok(t, j.Sync(a.lsn))
	j.Recycle(a.lsn + 100)
	if j.Used() != 0 {
		t.Errorf("%d bytes are used", j.Used())
	}
}

// Pieces of another journal are neither replayed nor in the way.
func TestOtherJournal(t *testing.T) {
	d := newMemDisk()
	old := open(t, testConfig(d, 8))
	for n := range 10 {
		put(t, old, testTx(n, 10, 3000))
	}
	ok(t, old.Sync(old.End()))
	ok(t, old.Close(false))
	c := testConfig(d, 8)
	c.ID[0]++
	if got, log := replay(t, c); len(got) != 0 || log.Lost || log.Torn {
		t.Fatalf("%d transactions of another journal, %+v", len(got), log)
	}
	j := open(t, c)
	x := put(t, j, testTx(0, 10, 100))
	ok(t, j.Sync(x.lsn))
	got, log := replay(t, c)
	mustEqual(t, got, []tx{x})
	if log.Lost || log.Torn {
		t.Errorf("%+v", log)
	}
	r, err := Open(c)
	ok(t, err)
	ok(t, r.SyncAll())
	ok(t, r.Remove())
	if len(d.names) != 0 || len(d.durable) != 0 {
		t.Errorf("%d pieces stay", len(d.names))
	}
}

// The real file system: default sizes, and nothing is left.
func TestOnHost(t *testing.T) {
	dir, err := disk.OpenRoot(t.TempDir())
	ok(t, err)
	defer dir.Close()
	c := testConfig(dir, 0)
	c.Size, c.pieceSize = 0, 0
	j := open(t, c)
	var all []tx
	for n, size := range []int{0, 4096, 200 << 10, 1 << 20, 9 << 20} {
		all = append(all, put(t, j, testTx(n, 200, size)))
	}
	ok(t, j.Sync(j.End()))
	got, log := replay(t, c)
	mustEqual(t, got, all)
	if log.Torn || log.Lost {
		t.Errorf("%+v", log)
	}
	ok(t, j.Close(true))
	ok(t, dir.List(func(name string, _ uint64, _ uint8) error { return fmt.Errorf("%s is left", name) }))
}

func TestAppendAllocatesNothing(t *testing.T) {
	c := testConfig(newMemDisk(), 4)
	c.pieceSize, c.Size = 1<<20, 4<<20
	j := open(t, c)
	head := make([]byte, 200)
	_, err := j.Append(Entry{Head: head})
	ok(t, err)
	for _, p := range j.live {
		p.f = nullFile{}
	}
	bulk := [][]byte{make([]byte, 4096), make([]byte, 70<<10), make([]byte, 500)}
	if n := testing.AllocsPerRun(5, func() {
		if _, err := j.Append(Entry{Head: head, Bulk: bulk}); err != nil {
			t.Fatal(err)
		}
		if err := j.Sync(j.End()); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// nullFile takes writes and drops them.
type nullFile struct{ disk.File }

func (nullFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nullFile) Datasync() error                        { return nil }
func (nullFile) Close() error                           { return nil }

// TestKnownSums: transactions whose CRCs the caller gives read back as any, those that are cut over pieces too; and they are what counts: a wrong one ends the log.
func TestKnownSums(t *testing.T) {
	c := testConfig(newMemDisk(), 16)
	j := open(t, c)
	var want []tx
	for n, size := range []int{0, 1, 500, 5000, 3 * testPiece / 2, 3*testPiece + 7, 100} {
		x := testTx(n, 30*n, size)
		var bulk [][]byte
		var sums []uint32
		for at, step := 0, 0; at <= size; at, step = at+step, 900*step/400+1 { // an empty slice first
			bulk = append(bulk, x.bulk[at:min(size, at+step)])
			sums = append(sums, crc32.Checksum(bulk[len(bulk)-1], castagnoli))
		}
		var err error
		x.lsn, err = j.Append(Entry{Head: x.head, Bulk: bulk, Sums: sums})
		ok(t, err)
		want = append(want, x)
	}
	ok(t, j.Sync(want[len(want)-1].lsn))
	got, _ := replay(t, c)
	mustEqual(t, got, want)
	x := testTx(99, 10, 100) // one record
	_, err := j.Append(Entry{Head: x.head, Bulk: [][]byte{x.bulk}, Sums: []uint32{crc32.Checksum(x.bulk, castagnoli) + 1}})
	ok(t, err)
	got, _ = replay(t, c)
	mustEqual(t, got, want)
}

package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
)

// workload appends, syncs and recycles at random until a call fails or steps are done. all holds what Append answered for, in order.
type workload struct {
	j        *Journal
	all      []tx
	synced   LSN // what Sync answered for
	recycled LSN // what may be given up
	failed   error
}

func (w *workload) run(rng *rand.Rand, steps int) {
	// All is decided by rng alone, so that a failed call changes nothing but what comes after it.
	for range steps {
		if w.failed != nil {
			return
		}
		switch rng.IntN(10) {
		case 0, 1:
			lsn := w.j.End()
			if w.failed = w.j.Sync(lsn); w.failed == nil {
				w.synced = lsn
			}
		case 2:
			w.recycleUpTo(rng)
		default:
			x := testTx(len(w.all), rng.IntN(600), rng.IntN(1+rng.IntN(6000)))
			if w.j.Used()+int64(len(x.head)+len(x.bulk)) > 2*int64(span(testPiece)) { // never wait: nobody would recycle
				lsn := w.j.End()
				if w.failed = w.j.Sync(lsn); w.failed != nil {
					return
				}
				w.synced = lsn
				w.recycleUpTo(rng)
				continue
			}
			hurry := []Hurry{Later, Later, Later, Soon, Ahead}[rng.IntN(5)]
			x.lsn, w.failed = w.j.Append(Entry{Head: x.head, Bulk: [][]byte{x.bulk}, Hurry: hurry})
			if w.failed != nil {
				return
			}
			w.all = append(w.all, x)
			if hurry == Later || hurry == Ahead && rng.IntN(4) == 0 {
				continue
			}
			if w.failed = w.j.Sync(x.lsn); w.failed == nil {
				w.synced = x.lsn
			}
		}
	}
}

func (w *workload) recycleUpTo(rng *rand.Rand) {
	var can []LSN
	for _, x := range w.all {
		if x.lsn <= w.synced && x.lsn > w.recycled {
			can = append(can, x.lsn)
		}
	}
	if len(can) > 0 {
		w.recycled = can[len(can)-1-rng.IntN(1+len(can)/2)]
		w.j.Recycle(w.recycled)
	}
}

// judge compares what a replay delivers with what was appended: a run of it without a gap, from at most the first that was not given up to at least
// the last that was synced.
func (w *workload) judge(t testing.TB, got []tx, log Log) {
	t.Helper()
	if log.Damaged() {
		t.Fatalf("damage after a crash: %+v, synced %d", log, w.synced)
	}
	if given := w.j.Given(); log.Recycled < given {
		t.Fatalf("%d was given up for good, and the log begins at %d", given, log.Recycled)
	}
	i := 0
	for i < len(w.all) && w.all[i].lsn <= log.Recycled {
		i++
	}
	if log.Recycled > w.recycled {
		t.Fatalf("recycled up to %d, only %d was given up", log.Recycled, w.recycled)
	}
	for k, x := range got {
		if i+k >= len(w.all) || !x.equal(w.all[i+k]) {
			t.Fatalf("transaction %d of the replay is not the one that was appended as %d of %d", k, i+k, len(w.all))
		}
	}
	if log.End < w.synced {
		t.Fatalf("%d was synced, the log ends at %d", w.synced, log.End)
	}
}

// rounds is how many random cases a crash test runs.
func rounds(short int) int {
	if os.Getenv("COFFER_LONG") == "1" {
		return short * 50
	}
	return short
}

var keepProbabilities = []float64{0, 0.2, 0.5, 0.9, 1}

// The power goes after any number of calls of a random workload, and any subset of unsynced sectors and names stays.
func TestPowerCut(t *testing.T) {
	torn, delivered, direct, ended, spares := 0, 0, 0, 0, 0
	for seed := range rounds(150) {
		func() {
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			d := newMemDisk()
			at, n := rng.IntN(250), 0
			d.cached = rng.IntN(4)
			d.roomy = rng.IntN(2) == 0
			partial := rng.IntN(3) == 0
			d.before = func(call, name string) (int, error) {
				if n++; n <= at {
					return 0, nil
				}
				if partial && n == at+1 {
					return rng.IntN(3000), syscall.EIO
				}
				return 0, syscall.EIO
			}
			c := testConfig(d, 4+int64(rng.IntN(3)))
			c.inline = true
			w := &workload{j: open(t, c)}
			w.run(rng, 200)
			if d.altered {
				t.Fatalf("seed %d: what was on its way to the disk was changed", seed)
			}
			direct += d.direct
			ended += d.ended
			spares += w.j.tried
			removed := rng.IntN(len(keepProbabilities))
			for i, p := range keepProbabilities {
				after := d.crash(rng, p)
				t.Logf("seed %d, %d calls, keep %v", seed, at, p)
				got, log := replay(t, testConfig(after, 4))
				w.judgePartial(t, got, log, partial)
				delivered += len(got)
				if log.Torn {
					torn++
				}
				if i == removed {
					cutRemoval(t, rng, after, got, log)
				}
			}
		}()
	}
	if torn == 0 || delivered == 0 || ended == 0 || direct <= ended || spares == 0 {
		t.Errorf("%d torn logs, %d transactions and %d direct writes, %d of them that flew, %d spare pieces in all rounds: the test tests nothing",
			torn, delivered, direct, ended, spares)
	}
}

// The same on a host that has room for a few pieces only, one among them: the log goes around in those there are.
func TestPowerCutFull(t *testing.T) {
	errNoRoom := errors.New("no room")
	around := 0
	for seed := range rounds(150) {
		rng := rand.New(rand.NewPCG(uint64(seed), 3))
		d := newMemDisk()
		at, n, room := 30+rng.IntN(400), 0, 1+rng.IntN(3)
		d.before = func(call, name string) (int, error) {
			if n++; n > at {
				return 0, syscall.EIO
			}
			if call == "create" && len(d.names) >= room {
				return 0, syscall.ENOSPC
			}
			return 0, nil
		}
		c := testConfig(d, 5)
		c.inline, d.roomy = true, rng.IntN(2) == 0 // and says that it has more
		c.Pressed = func(LSN) error { return errNoRoom }
		w := &workload{j: open(t, c)}
		for w.failed == nil {
			x := testTx(len(w.all), rng.IntN(600), rng.IntN(6000))
			switch x.lsn, w.failed = w.j.Append(Entry{Head: x.head, Bulk: [][]byte{x.bulk}}); {
			case errors.Is(w.failed, errNoRoom):
				lsn := w.j.End()
				if w.failed = w.j.Sync(lsn); w.failed == nil {
					w.synced, w.recycled = lsn, lsn
					w.j.Recycle(lsn)
				}
			case w.failed == nil:
				w.all = append(w.all, x)
				w.recycled = max(w.recycled, w.j.recycled) // beyond the end of the last one where the rest of a piece is left out
			case !errors.Is(w.failed, syscall.EIO):
				t.Fatalf("seed %d, room for %d: %v", seed, room, w.failed)
			}
		}
		if room == 1 && len(w.all) > 0 && w.all[len(w.all)-1].lsn > 2*span(testPiece) {
			around++
		}
		for _, p := range keepProbabilities {
			t.Logf("seed %d, %d calls, room for %d, keep %v", seed, at, room, p)
			got, log := replay(t, testConfig(d.crash(rng, p), 5))
			w.recycled = max(w.recycled, w.j.recycled)
			w.judge(t, got, log)
		}
	}
	if around == 0 {
		t.Error("the log never went around in one piece")
	}
}

// judgePartial allows that the very call in which the power went had reached the host.
func (w *workload) judgePartial(t testing.TB, got []tx, log Log, partial bool) {
	t.Helper()
	if partial && len(got) > 0 && (len(w.all) == 0 || got[len(got)-1].lsn > w.all[len(w.all)-1].lsn) {
		got = got[:len(got)-1]
		if log.End = log.Recycled; len(got) > 0 {
			log.End = got[len(got)-1].lsn
		}
	}
	w.judge(t, got, log)
}

// cutRemoval cuts the power at every call of Remove: what is left reads as before, or as empty.
func cutRemoval(t testing.TB, rng *rand.Rand, d *memDisk, want []tx, wantLog Log) {
	t.Helper()
	for at := 0; ; at++ {
		c := d.crash(rng, 1)
		r, err := Open(testConfig(c, 4))
		ok(t, err)
		n := 0
		c.before = func(call, name string) (int, error) {
			if n++; n > at {
				return 0, syscall.EIO
			}
			return 0, nil
		}
		err = r.Remove()
		c.before = nil
		if err == nil && len(c.durable)+len(c.names) > 0 {
			t.Fatal("pieces stay")
		}
		for _, p := range keepProbabilities {
			got, log := replay(t, testConfig(c.crash(rng, p), 4))
			if log.Lost {
				t.Fatalf("removal cut at call %d: lost", at)
			}
			if len(got) > 0 {
				mustEqual(t, got, want)
				if log.End != wantLog.End {
					t.Fatalf("%+v", log)
				}
			}
		}
		if err == nil {
			return
		}
	}
}

// A clean end is cut at every call: the log reads as it was or as empty.
func TestCloseCut(t *testing.T) {
	for at := 0; ; at++ {
		rng := rand.New(rand.NewPCG(uint64(at), 2))
		d := newMemDisk()
		w := &workload{j: open(t, testConfig(d, 5))}
		w.run(rng, 60)
		ok(t, w.j.Sync(w.j.End()))
		want, _ := replay(t, testConfig(d, 5))
		n := 0
		d.before = func(string, string) (int, error) {
			if n++; n > at {
				return 0, syscall.EIO
			}
			return 0, nil
		}
		err := w.j.Close(true)
		d.before = nil
		for range 20 {
			got, log := replay(t, testConfig(d.crash(rng, rng.Float64()), 5))
			if log.Lost {
				t.Fatalf("cut at call %d: lost", at)
			}
			if len(got) > len(want) {
				t.Fatalf("%d transactions, there were %d", len(got), len(want))
			}
			if len(got) > 0 {
				mustEqual(t, got, want[len(want)-len(got):])
			}
		}
		if err == nil {
			return
		}
	}
}

// The n-th host call fails, alone, for n = 0, 1, 2 …; with and without an effect. What Append refused is never delivered, what Sync answered for always, also
// when the power goes right after, and the error is sticky, but of a spare piece.
func TestEveryCallFails(t *testing.T) {
	tried := 0
	for _, keep := range []int{0, 700, 1 << 20} {
		for at := 0; ; at++ {
			rng := rand.New(rand.NewPCG(3, uint64(keep)))
			d := newMemDisk()
			d.roomy = keep > 0
			n, struck, spare := 0, "", false
			c := testConfig(d, 4)
			c.inline = true
			w := &workload{j: open(t, c)}
			d.before = func(call, name string) (int, error) {
				if n++; n == at+1 {
					struck, spare = call+" "+name, w.j.making
					return keep, syscall.EIO
				}
				return 0, nil
			}
			w.run(rng, 80)
			d.before = nil
			if struck == "" {
				if at < 50 {
					t.Fatalf("only %d calls", at)
				}
				break
			}
			if strings.HasPrefix(struck, "open direct") {
				if w.failed != nil {
					t.Fatalf("without direct writes: %v", w.failed)
				}
				continue
			}
			if spare {
				if w.failed != nil {
					t.Fatalf("call %d (%s) failed, which can be done later: %v", at, struck, w.failed)
				}
				got, log := replay(t, testConfig(d.crash(rng, rng.Float64()), 4))
				w.judge(t, got, log)
				if err := w.j.Close(true); err != nil || len(d.names) > 0 {
					t.Fatalf("call %d (%s) failed: %d pieces stay: %v", at, struck, len(d.names), err)
				}
				tried++
				continue
			}
			if w.failed == nil || !errors.Is(w.failed, ErrFailed) || !errors.Is(w.failed, syscall.EIO) || sticky(w.j) == nil {
				t.Fatalf("call %d (%s) failed, and the journal says %v", at, struck, w.failed)
			}
			if _, err := w.j.Append(Entry{}); !errors.Is(err, ErrFailed) {
				t.Fatalf("append after a failure: %v", err)
			}
			if err := w.j.Sync(w.j.End()); w.j.End() > durable(w.j) && !errors.Is(err, ErrFailed) {
				t.Fatalf("sync after a failure: %v", err)
			}
			if err := w.j.Close(true); len(d.names) > 0 && err == nil {
				t.Fatal("a failed journal was removed")
			}
			for _, p := range append(keepProbabilities, -1) {
				c := d
				if p >= 0 {
					c = d.crash(rng, p)
				}
				t.Logf("call %d (%s), keep %v", at, struck, p)
				got, log := replay(t, testConfig(c, 4))
				w.judge(t, got, log)
			}
		}
	}
	if tried < 10 {
		t.Errorf("only %d calls of spare pieces", tried)
	}
}

// The n-th call of a replay fails: an error, never a shorter log.
func TestReplayFails(t *testing.T) {
	d := newMemDisk()
	w := &workload{j: open(t, testConfig(d, 5))}
	w.run(rand.New(rand.NewPCG(4, 4)), 100)
	want, wantLog := replay(t, testConfig(d, 5))
	for at := 0; ; at++ {
		n := 0
		d.before = func(string, string) (int, error) {
			if n++; n == at+1 {
				return 0, syscall.EIO
			}
			return 0, nil
		}
		got, log, err := readAll(testConfig(d, 5))
		d.before = nil
		if n <= at {
			ok(t, err)
			mustEqual(t, got, want)
			if log != wantLog || at < 5 {
				t.Fatalf("%+v after %d calls", log, at)
			}
			return
		}
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("call %d failed: %v", at, err)
		}
	}
}

func readAll(c Config) (list []tx, log Log, err error) {
	r, err := Open(c)
	if err != nil {
		return nil, Log{}, err
	}
	defer r.Close()
	if err := r.SyncAll(); err != nil {
		return nil, Log{}, err
	}
	log, err = r.Each(func(x *Transaction, bulk func([]byte, int64) error) error {
		b := make([]byte, x.BulkLen)
		if err := bulk(b, 0); err != nil {
			return err
		}
		list = append(list, tx{x.LSN, append([]byte(nil), x.Head...), b})
		return nil
	})
	return list, log, err
}

// The order of J2 is what keeps the pieces behind a reused one, as long as nothing durable says that it is: without the sync of its header they would be lost.
func TestHeaderBeforeRecords(t *testing.T) {
	d := newMemDisk()
	j := open(t, testConfig(d, 4))
	var calls []string
	put(t, j, testTx(0, 0, maxTransaction(4, testPiece)))
	ok(t, j.Sync(j.End()))
	j.Recycle(j.End())
	d.before = func(call, name string) (int, error) { calls = append(calls, call+" "+name); return 0, nil }
	put(t, j, testTx(1, 0, 9000))
	if len(calls) != 6 {
		t.Fatalf("recycled pieces are not used first: %v", calls)
	}
	for i, name := range []string{"journal.0000", "journal.0001"} {
		got := calls[3*i : 3*i+3]
		if fmt.Sprint(got) != fmt.Sprintf("[write %s fdatasync %s write %s]", name, name, name) {
			t.Fatalf("calls %v", calls)
		}
	}
}

// Where what is durable says that a piece was recycled, nobody misses what it held: its header comes to the disk with the records.
func TestHeaderWithRecords(t *testing.T) {
	d := newMemDisk()
	j := open(t, testConfig(d, 4))
	put(t, j, testTx(0, 0, maxTransaction(4, testPiece)))
	ok(t, j.Sync(j.End()))
	j.Recycle(j.End())
	put(t, j, testTx(1, 0, 0)) // which says so
	ok(t, j.Sync(j.End()))
	var calls []string
	d.before = func(call, name string) (int, error) { calls = append(calls, call+" "+name); return 0, nil }
	last := put(t, j, testTx(2, 0, 9000))
	ok(t, j.Sync(j.End()))
	if want := "[write journal.0000 write journal.0001 write journal.0001 fdatasync journal.0000 fdatasync journal.0001]"; fmt.Sprint(calls) != want {
		t.Fatalf("calls %v, want %s", calls, want)
	}
	j.Recycle(last.lsn)
	calls = nil
	lsn, err := j.Append(Entry{Bulk: [][]byte{make([]byte, 9000)}, Hurry: Soon})
	ok(t, err)
	if got := fmt.Sprint(calls); strings.Count(got, "fdatasync") != 1 {
		t.Fatalf("a record past the page cache before its header: %s", got)
	}
	ok(t, j.Sync(lsn))
}

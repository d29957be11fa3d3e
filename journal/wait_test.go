package journal

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A full journal waits for Recycle, and asks for it.
func TestWaits(t *testing.T) {
	var j *Journal
	var pressed atomic.Int64
	ask := make(chan LSN, 100)
	c := testConfig(newMemDisk(), 4)
	c.Pressed = func(lsn LSN) error { pressed.Add(1); ask <- lsn; return nil }
	j = open(t, c)
	var wg sync.WaitGroup
	wg.Go(func() {
		for lsn := range ask {
			ok(t, j.Sync(lsn))
			j.Recycle(lsn)
		}
	})
	var writers sync.WaitGroup
	for g := range 8 {
		writers.Go(func() {
			for n := range 60 {
				x := testTx(n, 100+g, (n*977+g*311)%(maxTransaction(4, testPiece)-200))
				if n%3 > 0 {
					x = testTx(n, 100, 300)
				}
				if _, err := j.Append(Entry{Head: x.head, Bulk: [][]byte{x.bulk}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(ask)
	wg.Wait()
	if pressed.Load() == 0 {
		t.Error("room was never asked for")
	}
}

// Whoever waits for room is woken by Close, by Fail and by a failed Sync.
func TestWaitEnds(t *testing.T) {
	for _, how := range []string{"close", "fail", "sync"} {
		d := newMemDisk()
		c := testConfig(d, 4)
		waits := make(chan struct{}, 100)
		c.Pressed = func(LSN) error { waits <- struct{}{}; return nil }
		j := open(t, c)
		put(t, j, testTx(0, 0, maxTransaction(4, testPiece)))
		for len(waits) > 0 {
			<-waits
		}
		result := make(chan error, 1)
		go func() {
			_, err := j.Append(Entry{Bulk: [][]byte{make([]byte, 9000)}})
			result <- err
		}()
		<-waits
		want := ErrFailed
		switch how {
		case "close":
			want = ErrClosed
			ok(t, j.Close(false))
		case "fail":
			j.Fail(syscall.EROFS)
		case "sync":
			d.mu.Lock()
			d.before = func(call, _ string) (int, error) {
				if call == "fdatasync" {
					return 0, syscall.EIO
				}
				return 0, nil
			}
			d.mu.Unlock()
			if err := j.Sync(j.End()); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Errorf("sync: %v", err)
			}
		}
		if err := <-result; !errors.Is(err, want) {
			t.Errorf("%s: %v", how, err)
		}
	}
}

// Transactions are gathered while a sync runs, and one sync serves them all.
func TestGroupCommit(t *testing.T) {
	d := newMemDisk()
	j := open(t, testConfig(d, 8))
	put(t, j, testTx(0, 10, 10)) // makes a piece
	ok(t, j.Sync(j.End()))
	x := put(t, j, testTx(1, 10, 10))
	inSync, goOn := make(chan struct{}), make(chan struct{})
	syncs := atomic.Int64{}
	d.mu.Lock()
	d.before = func(call, _ string) (int, error) {
		if call == "fdatasync" && syncs.Add(1) == 1 {
			d.mu.Unlock() // as the host does, let others write meanwhile
			close(inSync)
			<-goOn
			d.mu.Lock()
		}
		return 0, nil
	}
	d.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { ok(t, j.Sync(x.lsn)) })
	<-inSync
	for n := range 8 { // each Append returns although the sync still runs
		y := put(t, j, testTx(n, 10, 20))
		wg.Go(func() {
			ok(t, j.Sync(y.lsn))
			if durable(j) < y.lsn {
				t.Error("not durable after Sync")
			}
		})
	}
	close(goOn)
	wg.Wait()
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d device syncs for 9 transactions, want 2", n)
	}
}

func TestConcurrent(t *testing.T) {
	d := newMemDisk()
	c := testConfig(d, 64)
	j := open(t, c)
	var mu sync.Mutex
	all := map[LSN]tx{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range 30 {
				x := put(t, j, testTx(g*1000+n, 60, n*50))
				mu.Lock()
				all[x.lsn] = x
				mu.Unlock()
				if n%3 == 0 {
					ok(t, j.Sync(x.lsn))
				}
			}
		})
	}
	wg.Wait()
	ok(t, j.Sync(j.End()))
	ok(t, j.Close(false))
	got, _ := replay(t, testConfig(d.crash(nil, 0), 4))
	for _, x := range got {
		if !x.equal(all[x.lsn]) {
			t.Fatalf("transaction at %d differs", x.lsn)
		}
	}
	if len(got) != len(all) {
		t.Errorf("%d transactions, want %d", len(got), len(all))
	}
}

// A full host: what there is is used, the error is not sticky, and the journal grows once there is space.
func TestHostFull(t *testing.T) {
	d := newMemDisk()
	c := testConfig(d, 8)
	ask := make(chan LSN, 1000)
	c.Pressed = func(lsn LSN) error { ask <- lsn; return nil }
	j := open(t, c)
	d.space = testPiece - 1
	if _, err := j.Append(Entry{Bulk: [][]byte{make([]byte, 100)}}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("without any space: %v", err)
	}
	if len(d.names) != 0 || sticky(j) != nil {
		t.Fatalf("%d files, %v", len(d.names), sticky(j))
	}
	d.space = 2*testPiece + 10
	full := true // a host that allocates late answers to the sync
	d.before = func(call, _ string) (int, error) {
		if call == "fdatasync" && full {
			full = false
			return 0, syscall.ENOSPC
		}
		return 0, nil
	}
	if _, err := j.Append(Entry{}); !errors.Is(err, syscall.ENOSPC) || sticky(j) != nil || len(d.names) != 0 {
		t.Fatalf("late allocation: %v, sticky %v, %d files", err, sticky(j), len(d.names))
	}
	d.space = 2*testPiece + 10
	if _, err := j.Append(Entry{Bulk: [][]byte{make([]byte, 2*testPiece)}}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a transaction longer than the pieces that can be made: %v", err)
	}
	done := make(chan struct{})
	go func() {
		for lsn := range ask {
			if err := j.Sync(lsn); err != nil {
				t.Error(err)
			}
			j.Recycle(lsn)
		}
		close(done)
	}()
	var last tx
	for n := range 40 {
		last = put(t, j, testTx(n, 100, 3000))
	}
	if len(d.names) != 2 {
		t.Errorf("%d pieces, there is space for 2", len(d.names))
	}
	d.mu.Lock()
	d.space = -1
	d.mu.Unlock()
	last = put(t, j, testTx(99, 100, 2*testPiece))
	close(ask)
	<-done
	ok(t, j.Sync(last.lsn))
	got, _ := replay(t, testConfig(d.crash(nil, 0), 4))
	mustEqual(t, got[len(got)-1:], []tx{last})
}

// A host may refuse what flies only when that ends: it is written the other way then, and all that follows.
func TestRefusedLate(t *testing.T) {
	for _, how := range []string{"sync", "append", "close"} {
		d := newMemDisk()
		d.cached, d.late = 1, true
		j := open(t, testConfig(d, 4))
		all := []tx{put(t, j, testTx(0, 100, 100))}
		ok(t, j.Sync(j.End()))
		x := testTx(1, 100, 100)
		var err error
		x.lsn, err = j.Append(Entry{Head: x.head, Bulk: [][]byte{x.bulk}, Hurry: Ahead})
		ok(t, err)
		all = append(all, x)
		if j.flying == nil {
			t.Fatal("it did not fly")
		}
		switch how {
		case "append":
			all = append(all, put(t, j, testTx(2, 100, 100)))
			fallthrough
		case "sync":
			ok(t, j.Sync(j.End()))
		}
		ok(t, j.Close(false))
		got, _ := replay(t, testConfig(d.crash(nil, 0), 4))
		mustEqual(t, got, all)
		if d.direct > 0 {
			t.Errorf("%s: %d direct writes", how, d.direct)
		}
	}
}

// What cannot fly, since what lies before it is in the host's page cache alone, goes there too, and the host begins to write both.
func TestStarts(t *testing.T) {
	d := newMemDisk()
	j := open(t, testConfig(d, 4))
	ahead := func(n int) {
		t.Helper()
		x := testTx(n, 100, 100)
		_, err := j.Append(Entry{Head: x.head, Bulk: [][]byte{x.bulk}, Hurry: Ahead})
		ok(t, err)
	}
	put(t, j, testTx(0, 100, 100))
	ok(t, j.Sync(j.End()))
	from := j.End()
	put(t, j, testTx(1, 100, 100))
	if len(d.started) > 0 {
		t.Errorf("without hurry the host is asked for %v", d.started)
	}
	ahead(2)
	h := &j.live[0].header
	want := [][2]int64{{h.offset(from), h.offset(j.End())}}
	if !slices.Equal(d.started, want) || j.flying != nil {
		t.Errorf("the host is asked for %v, want %v", d.started, want)
	}
	ok(t, j.Sync(j.End()))
	ahead(3)
	if len(d.started) > 1 || j.flying == nil {
		t.Errorf("what can fly: the host is asked for %v", d.started)
	}
}

// held has the creation of a piece wait: begun says that it does, goOn what it then answers.
func (d *memDisk) held(name string) (begun chan struct{}, goOn chan error) {
	begun, goOn = make(chan struct{}), make(chan error)
	d.before = func(call, of string) (int, error) {
		if call != "create" || of != name {
			return 0, nil
		}
		d.before = nil
		d.mu.Unlock() // as the host does, let others write meanwhile
		defer d.mu.Lock()
		close(begun)
		return 0, <-goOn
	}
	return begun, goOn
}

// halfFull is a journal that makes its second piece, and fills the rest of its first meanwhile.
func halfFull(t *testing.T, d *memDisk) (j *Journal, all []tx, goOn chan error) {
	d.roomy = true
	begun, goOn := d.held(pieceName(1))
	j = open(t, testConfig(d, 4))
	for n := range 15 { // a sector each, of 16
		all = append(all, put(t, j, testTx(n, 100, 100)))
	}
	<-begun
	return j, all, goOn
}

// The next piece is made while the one in use fills. Who needs it meanwhile waits for it, and makes none.
func TestSpare(t *testing.T) {
	d := newMemDisk()
	j, all, goOn := halfFull(t, d)
	done := make(chan struct{})
	go func() {
		all = append(all, put(t, j, testTx(15, 0, 3000)))
		close(done)
	}()
	select {
	case <-done:
		t.Fatal("a transaction that needs the next piece did not wait for it")
	case <-time.After(20 * time.Millisecond):
	}
	goOn <- nil
	<-done
	ok(t, j.Sync(j.End()))
	got, _ := replay(t, testConfig(d.crash(nil, 0), 4))
	mustEqual(t, got, all)
	if len(d.names) != 2 {
		t.Errorf("%d pieces, want 2", len(d.names))
	}
	begun, goOn := d.held(pieceName(2))
	put(t, j, testTx(16, 0, 3000)) // and so on
	put(t, j, testTx(17, 0, 100))
	<-begun
	goOn <- nil
	ok(t, j.Close(true))
	if len(d.names) != 0 {
		t.Errorf("%d pieces stay", len(d.names))
	}
}

// Large transactions fill a piece as fast as one is made: the spare one is made at once. Small ones wait for the half.
func TestSpareSoon(t *testing.T) {
	for _, c := range []struct{ bytes, pieces int }{{100, 1}, {2000, 2}} {
		d := newMemDisk()
		d.roomy = true
		config := testConfig(d, 4)
		config.inline = true
		j := open(t, config)
		put(t, j, testTx(0, 0, c.bytes))
		put(t, j, testTx(1, 0, c.bytes))
		if len(d.names) != c.pieces {
			t.Errorf("%d pieces after two transactions of %d bytes, want %d", len(d.names), c.bytes, c.pieces)
		}
		ok(t, j.Close(true))
	}
}

// A spare piece that cannot be made harms nobody: the transaction that needs it makes it, or says why not.
func TestNoSpare(t *testing.T) {
	d := newMemDisk()
	j, all, goOn := halfFull(t, d)
	goOn <- syscall.EIO
	j.awaitSpare(0)
	begun, _ := d.held(pieceName(1))
	all = append(all, put(t, j, testTx(15, 100, 100)))
	select {
	case <-begun:
		t.Error("tried once more")
	case <-time.After(20 * time.Millisecond):
	}
	d.mu.Lock()
	d.space, d.before = 0, nil
	d.mu.Unlock()
	if _, err := j.Append(Entry{Bulk: [][]byte{make([]byte, testPiece)}}); !errors.Is(err, syscall.ENOSPC) || sticky(j) != nil {
		t.Fatalf("on a full host: %v, sticky %v", err, sticky(j))
	}
	d.mu.Lock()
	d.space = -1
	d.mu.Unlock()
	all = append(all, put(t, j, testTx(16, 0, testPiece)))
	ok(t, j.Sync(j.End()))
	got, _ := replay(t, testConfig(d.crash(nil, 0), 4))
	mustEqual(t, got, all)
}

// Close waits for a piece that is being made, and leaves none. On a host with little room no spare one is made.
func TestCloseWaitsForPiece(t *testing.T) {
	d := newMemDisk()
	j, _, goOn := halfFull(t, d)
	closed := make(chan error)
	go func() { closed <- j.Close(true) }()
	select {
	case <-closed:
		t.Fatal("closed while a piece was being made")
	case <-time.After(20 * time.Millisecond):
	}
	goOn <- nil
	ok(t, <-closed)
	if len(d.names) != 0 {
		t.Errorf("%d pieces stay", len(d.names))
	}

	d = newMemDisk()
	c := testConfig(d, 4)
	c.inline = true
	j = open(t, c)
	for n := range 15 {
		put(t, j, testTx(n, 100, 100))
	}
	if len(d.names) != 1 || j.tried != 1 {
		t.Errorf("%d pieces on a host with little room, %d tried", len(d.names), j.tried)
	}
}

package container

import (
	"bytes"
	"errors"
	mrand "math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// slowSync is a root whose SyncAll tells of each call and goes on when it is let.
type slowSync struct {
	disk.Dir
	begun chan struct{}
	let   chan struct{}
}

func (s *slowSync) SyncAll() error {
	s.begun <- struct{}{}
	<-s.let
	return s.Dir.SyncAll()
}

// newSlowFill returns an engine on such a root.
func newSlowFill(t *testing.T) (*fill, *slowSync) {
	t.Helper()
	f := &fill{logRig: newLogRig(t, geometries[0])}
	f.must(f.eng.Close(true))
	slow := &slowSync{Dir: f.root, begun: make(chan struct{}, 8), let: make(chan struct{}, 8)}
	f.root = slow
	f.eng = f.engine(geometries[0])
	return f, slow
}

// until waits for what another goroutine is about to do.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

// Whoever is told that a file is idle may close it: nothing of it waits any more, and nobody tells again.
func TestIdle(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	c, a := f.file(0, 3), f.eng.applier
	f.must(c.drain())
	waiting := []int{}
	c.SetHooks(Hooks{Idle: func() { waiting = append(waiting, a.files[c]) }}) // under a.mu
	for range 2 {
		f.must(f.write(c, 0, 1))
		f.must(c.Flush())
		f.must(f.write(c, 1, 1))
		f.must(c.Flush())
		f.must(c.drain())
	}
	if len(waiting) < 2 || slices.Max(waiting) > 0 {
		t.Errorf("told with so many transactions waiting: %v", waiting)
	}
	f.must(c.Close())
}

// What became of names comes to the journal in the order in which it came about, also where it had no room for the first of it: a replay makes a file where it was last.
func TestNotesInOrder(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	id, a := testID(1), f.eng.applier
	a.owed = append(a.owed, nameNote{id: id, payload: (&redo.Head{ID: id, Path: []string{"the-second-name"}, Length: -1}).Append(nil)})
	f.must(f.eng.NoteMoved(id, []string{"the-third-name"}))
	f.must(f.eng.SyncNames())
	h, err := f.dir.Open("journal.0000", disk.ReadOnly)
	f.must(err)
	log := make([]byte, 64<<10)
	_, err = h.ReadAt(log, 0)
	f.must(err)
	second, third := bytes.Index(log, []byte("the-second-name")), bytes.Index(log, []byte("the-third-name"))
	if second < 0 || third < second {
		t.Errorf("the notes are at %d and %d of the journal", second, third)
	}
	f.must(h.Close())
	f.must(f.eng.Close(true))
}

// Who asks for a checkpoint while none is under way waits for one, and the host syncs once for it.
func TestCheckpointOnce(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	c, a := f.file(0, 3), f.eng.applier
	f.must(f.write(c, 0, 1))
	f.must(c.Flush())
	f.must(f.eng.Checkpoint())
	until(t, "end of the round", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !a.working && !a.press && !a.now
	})
	a.mu.Lock()
	rounds := a.rounds
	a.mu.Unlock()
	if rounds != 1 || c.Pending() {
		t.Errorf("%d checkpoints, and that something waits is %v", rounds, c.Pending())
	}
	f.must(c.Close())
}

// A suspension waits for a checkpoint that runs: after it that one would give up what the next journal holds.
func TestSuspendWaitsForCheckpoint(t *testing.T) {
	f, slow := newSlowFill(t)
	a := f.eng.applier
	c := f.file(0, 3)
	f.must(c.drain())

	a.mu.Lock()
	a.anywhere, a.press = true, true
	a.mu.Unlock()
	a.signal()
	<-slow.begun // the checkpoint is at it, and nothing is asked for any more
	ended := make(chan error, 1)
	go func() { ended <- f.eng.Suspend() }()
	until(t, "suspension", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.now || len(slow.begun) > 0 || len(ended) > 0
	})
	if len(slow.begun) > 0 || len(ended) > 0 {
		t.Error("the suspension does not wait for the checkpoint")
	}
	slow.let <- struct{}{}
	<-slow.begun
	slow.let <- struct{}{}
	f.must(<-ended)
	f.must(f.eng.Resume([16]byte{3}))
	slow.let <- struct{}{} // for the end
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

// Before the applier passes over what a file without a name has in the journal, the next checkpoint is one of the host's filesystem, or a power cut could
// bring the name back without it.
func TestAbandonOrder(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	c := f.file(0, 3)
	f.must(f.eng.Checkpoint())
	a := f.eng.applier
	until(t, "end of the checkpoints", func() bool { // which may be one more than were waited for
		a.mu.Lock()
		defer a.mu.Unlock()
		return !a.press && !a.now && !a.working
	})
	anywhere := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.anywhere
	}
	if anywhere() {
		t.Fatal("the next checkpoint is one of the host's filesystem already")
	}
	f.must(f.write(c, 1, 1))
	f.must(c.Flush())
	f.must(f.root.Unlink("file0"))
	c.mu.RLock() // Abandon comes as far as this
	var wg sync.WaitGroup
	wg.Go(c.Abandon)
	until(t, "note for the checkpoint before the file is given up", anywhere)
	if c.abandoned || len(c.overlay) == 0 {
		t.Error("the file is given up already")
	}
	c.mu.RUnlock()
	wg.Wait()
	if !c.abandoned || len(c.overlay) > 0 {
		t.Error("the file is not given up")
	}
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

// The header that holds a file is durable by its first sync, not by its flush, which only writes it.
func TestInlineFirstSync(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	plain := []byte("what the file holds")
	h, err := f.root.Create("f", 0o600)
	f.must(err)
	f.must(f.root.Sync())
	c, err := f.eng.Create(h, testID(1), ObjectFile)
	f.must(err)
	f.must(c.WriteFrames(int64(len(plain)), segmentWrites(c.geo, plain, 0, 1)))
	f.must(c.Flush())
	if !c.durable || c.held {
		t.Error("the file is not what this test is about")
	}
	f.must(c.Sync())
	cut := f.disk.Cut(disktest.LoseAll, mrand.New(mrand.NewPCG(1, 1)))
	host, err := cut.Root().Open("f", disk.ReadOnly)
	f.must(err)
	back, err := f.eng.Open(host, testID(1), OpenOptions{ReadOnly: true, TrustLength: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(plain))
	if err := back.ReadAt(got, 0); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%q, %v", got, err)
	}
	f.must(back.Close())
	syncs := 0
	f.disk.SetTrace(func(op, name string, _ int64, _ int) {
		if name == "f" && (op == "fdatasync" || op == "fsync") {
			syncs++
		}
	})
	f.must(c.WriteFrames(int64(len(plain)), segmentWrites(c.geo, plain, 0, 1)))
	f.must(c.Sync())
	f.disk.SetTrace(nil)
	if syncs > 0 {
		t.Errorf("the second sync syncs the host file %d times", syncs)
	}
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

// After a suspension, too, the journal has a piece before data takes the last room on the host: what is stored can still be truncated.
func TestResumePrepares(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	c := f.file(0, 20)
	f.must(f.eng.Suspend())
	f.must(f.eng.Resume([16]byte{3}))
	h, err := f.root.Create("other", 0o600)
	f.must(err)
	other, err := f.eng.Create(h, testID(9), ObjectFile)
	f.must(err)
	f.must(other.Sync())
	f.disk.SetSpace(0)
	f.must(c.SetSize(100))
	f.disk.SetSpace(1 << 30)
	f.must(other.Close())
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

// A file may be closed while all is suspended, and what it has to say about its time is in its place then: nothing is logged, and whoever thaws meanwhile
// does not race.
func TestSuspendedNoteTime(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	c := f.file(0, 3)
	f.must(f.write(c, 1, 1))
	f.must(c.Flush())
	if logged, err := c.NoteTime(unix.Timespec{Sec: 1}); !logged || err != nil {
		t.Fatalf("before: logged %v, %v", logged, err)
	}
	f.must(f.eng.Suspend())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range int64(1000) {
			if logged, err := c.NoteTime(unix.Timespec{Sec: 2 + i}); logged || err != nil {
				t.Errorf("logged %v, %v", logged, err)
				return
			}
		}
	})
	f.must(f.eng.Resume([16]byte{3}))
	wg.Wait()
	f.must(f.write(c, 1, 1))
	f.must(c.Sync())
	if logged, err := c.NoteTime(unix.Timespec{Sec: 3000}); !logged || err != nil {
		t.Errorf("after: logged %v, %v", logged, err)
	}
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

// An engine that failed does not end cleanly, also where nothing was left to be done.
func TestCloseAfterFailure(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	f.must(f.eng.Suspend())
	cause := errors.New("cause")
	if err := f.eng.Fail("test", cause); !errors.Is(err, cause) {
		t.Errorf("fail: %v", err)
	}
	if err := f.eng.Close(true); !errors.Is(err, cause) {
		t.Errorf("close: %v", err)
	}
}

// Of each place the last image waits, however often it was logged. What the applier is at already stays with it. In a bubble it begins nothing by itself before the
// test waits for it, however slow the machine.
func TestLastImagesWait(t *testing.T) { synctest.Test(t, testLastImagesWait) }

func testLastImagesWait(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[8])}
	c := f.file(0, 20)
	f.must(c.drain())
	a := f.eng.applier
	waits := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.bytes
	}
	again := func() {
		f.must(f.write(c, 3, 1))
		f.must(c.Flush())
	}
	again()
	once := waits()
	for range 20 {
		again()
	}
	if n := waits(); n == 0 || n > once {
		t.Errorf("%d bytes wait, %d after the first time", n, once)
	}

	begun, let := make(chan struct{}, 9), make(chan struct{})
	c.SetHooks(Hooks{Applying: func() {
		begun <- struct{}{}
		<-let
	}})
	var drained sync.WaitGroup
	drained.Go(func() { f.must(c.drain()) })
	<-begun
	for range 3 {
		again()
	}
	if n := waits(); n > 2*once {
		t.Errorf("%d bytes wait beside those that the applier is at, %d after the first time", n, once)
	}
	close(let)
	drained.Wait()
	if n := waits(); n != 0 {
		t.Errorf("%d bytes wait when all is in its place", n)
	}
	want := make([]byte, c.Size())
	f.must(c.ReadAt(want, 0))
	f.must(c.Close())
	h, err := f.root.Open("file0", disk.ReadOnly)
	f.must(err)
	back, err := f.eng.Open(h, testID(1), OpenOptions{ReadOnly: true, TrustLength: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := back.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is in its place is not what was written last: %v", err)
	}
	f.must(back.Close())
	f.must(f.eng.Close(true))
}

// Who waits for a checkpoint when the engine is closed is told that there will be none.
func TestCheckpointAtClose(t *testing.T) {
	for range 100 {
		f := &fill{logRig: newLogRig(t, geometries[0])}
		a := f.eng.applier
		ended := make(chan error, 1)
		go func() { ended <- f.eng.Checkpoint() }()
		for range 3 {
			runtime.Gosched()
		}
		f.must(a.close(true))
		if err := <-ended; err != nil && !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	}
}

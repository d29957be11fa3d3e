package cache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/internal/event"
)

// faults lets calls from number at on fail, as many as length.
type faults struct {
	mu         sync.Mutex
	n          int
	at, length int
	hits       int
}

func (x *faults) hook(string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.n
	x.n++
	if n >= x.at && n < x.at+x.length {
		x.hits++
		return fmt.Errorf("call %d: %w", n, errFake)
	}
	return nil
}

func (x *faults) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.hits
}

// scriptOp is an operation that can be tried again as it was.
type scriptOp struct {
	name   string
	off, n int64
}

func (m *model) script(n int) []scriptOp {
	names := []string{"write", "write", "write", "write", "write", "read", "read", "truncate", "discard", "discard", "flush", "sync", "seek"}
	ops := make([]scriptOp, n)
	for i := range ops {
		m.data = make([]byte, m.rnd.Int64N(m.most)) // what offset goes by
		ops[i] = scriptOp{names[m.rnd.IntN(len(names))], m.offset(m.most), m.length()}
	}
	m.data = nil
	return ops
}

func (m *model) apply(i int, o scriptOp) error {
	var err error
	switch o.name {
	case "write":
		_, err = m.write(bytes.Repeat([]byte{byte(i + 1)}, int(min(o.n, m.most-o.off))), o.off)
	case "read":
		dst := make([]byte, o.n)
		var n int
		n, err = m.f.ReadAt(dst, o.off)
		if want := m.data[min(o.off, int64(len(m.data))):min(o.off+o.n, int64(len(m.data)))]; err == nil && !bytes.Equal(dst[:n], want) {
			m.t.Fatalf("op %d, read of %d at %d: %s", i, o.n, o.off, firstDiff(dst[:n], want))
		}
		if err != nil && n != 0 {
			m.t.Errorf("read returned %d bytes with %v", n, err)
		}
	case "truncate":
		_, err = m.truncate(o.off)
	case "discard":
		_, err = m.discard(o.off, o.n)
	case "flush":
		err = m.f.Flush()
	case "sync":
		err = m.f.Sync()
	case "seek":
		err = m.seek(o.off)
	}
	return err
}

// TestFaults lets store call n fail, and with length some after it, for n = 0, 1, 2 … until the script meets no failure. Every operation is tried again until it
// succeeds: all that was done is in the store after a Flush, and every failure was returned to somebody.
func TestFaults(t *testing.T) {
	seed := random(t).Uint64()
	for _, v := range []struct {
		name   string
		cfg    Config
		length int
		torn   bool
	}{
		{"quiet", Config{MaxAge: time.Hour}, 1, false},
		{"quiet_torn", Config{MaxAge: time.Hour}, 4, true},
		{"tiny", Config{Clean: 16 << 10, Dirty: 32 << 10, Window: 16 << 10, MaxAge: time.Millisecond}, 1, false},
		{"tiny_torn", Config{Clean: -1, Dirty: 1, Window: 1, MaxAge: time.Millisecond}, 5, true},
	} {
		t.Run(v.name, func(t *testing.T) {
			n := 0
			for ; ; n++ {
				x := &faults{at: n, length: v.length}
				runFaults(t, seed, v.cfg, x, v.torn)
				if t.Failed() {
					t.Fatalf("with a failure from call %d on", n)
				}
				if x.count() == 0 {
					break
				}
			}
			if n < 20 {
				t.Errorf("only %d calls", n)
			}
		})
	}
}

func runFaults(t *testing.T, seed uint64, cfg Config, x *faults, torn bool) {
	st := newFake(t, 16<<10, 4<<10)
	st.hook, st.torn = x.hook, torn
	c := newCache(t, cfg)
	m := &model{t: t, rnd: rand.New(rand.NewPCG(seed, 2)), f: c.open(st, Hooks{}), most: 5 * 16 << 10}
	quiet := cfg.MaxAge == time.Hour // nothing happens in the background: every failure is the operation's that met it
	reports := 0
	do := func(i int, o scriptOp) {
		for try := 0; ; try++ {
			before := x.count()
			err := m.apply(i, o)
			if met := x.count() > before; quiet && met != (err != nil) {
				t.Errorf("op %d, %s: met a failure: %v, returned %v", i, o.name, met, err)
			}
			if err == nil {
				break
			}
			reports++
			if !errors.Is(err, errFake) || try == 20 {
				t.Fatalf("op %d, %s, try %d: %v", i, o.name, try, err)
			}
		}
		if o.name == "flush" || o.name == "sync" {
			if got := st.content(); !bytes.Equal(got, m.data) {
				t.Fatalf("op %d, the store after a flush: %s", i, firstDiff(got, m.data))
			}
		}
	}
	script := m.script(60)
	for i, o := range script {
		do(i, o)
	}
	_ = c.Close() // from here on nobody is left to report late
	do(len(script), scriptOp{name: "flush"})
	do(len(script), scriptOp{name: "read", n: m.most})
	if m.f.Dirty() {
		t.Error("dirty after a flush")
	}
	checkCache(t, c)
	if hits := x.count(); (hits > 0) != (reports > 0) || quiet && hits != reports {
		t.Errorf("%d failures, %d returned", hits, reports)
	}
	before := x.count()
	if err := m.f.Close(); (err != nil) != (x.count() > before) {
		t.Errorf("close: %v", err)
	}
}

// TestBackgroundFailure: what fails in the background is an event, and the next Flush, Sync or Close returns it, once; meanwhile the data
// stays readable and dirty, and the timer tries again.
func TestBackgroundFailure(t *testing.T) {
	for _, next := range []string{"Flush", "Sync", "Close"} {
		for _, op := range []string{"WriteFrames", "SetSize", "Flush"} {
			for _, healed := range []bool{false, true} { // by the timer's next attempt
				t.Run(fmt.Sprintf("%s_%s_%v", next, op, healed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { backgroundFailure(t, next, op, healed) })
				})
			}
		}
	}
}

func backgroundFailure(t *testing.T, next, op string, healed bool) {
	st := newFake(t, 16<<10, 4<<10)
	var broken atomic.Bool
	broken.Store(true)
	st.hook = func(o string) error {
		if o == op && broken.Load() {
			return errFake
		}
		return nil
	}
	var f *File
	var events []event.Event
	c := newCache(t, Config{MaxAge: 8 * time.Second, Events: func(e event.Event) { events = append(events, e) }})
	f = c.open(st, Hooks{})
	want := make([]byte, 10000)
	if op != "SetSize" { // which comes where no frame takes the size along
		copy(want, bytes.Repeat([]byte{7}, 5000))
		if err := f.WriteAt(want[:5000], 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(10000); err != nil {
		t.Fatal(err)
	}
	time.Sleep(8*time.Second + 1)
	synctest.Wait()
	if len(events) != 1 || events[0].Kind != event.Failed || !errors.Is(events[0].Err, errFake) || events[0].Object != st.ID().String() {
		t.Fatalf("events %v", events)
	}
	if got := readAll(t, f); !bytes.Equal(got, want) {
		t.Errorf("after the failure: %s", firstDiff(got, want))
	}
	if !f.Dirty() {
		t.Error("not dirty after a failure")
	}
	broken.Store(false)
	if healed {
		time.Sleep(8*time.Second + 1)
		synctest.Wait()
		if got := st.content(); !bytes.Equal(got, want) {
			t.Errorf("after the second attempt: %s", firstDiff(got, want))
		}
	}
	err := map[string]func() error{"Flush": f.Flush, "Sync": f.Sync, "Close": f.Close}[next]()
	if !errors.Is(err, errFake) || !strings.Contains(err.Error(), "earlier") {
		t.Errorf("%s after a failure in the background: %v", next, err)
	}
	if got := st.content(); !bytes.Equal(got, want) {
		t.Errorf("the store after %s: %s", next, firstDiff(got, want))
	}
	if next != "Close" {
		if err := f.Flush(); err != nil {
			t.Errorf("a second time: %v", err)
		}
		finish(t, c, f)
	} else if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// breakStore has every call of the store fail as long as broken is set, as it is at first.
func breakStore(st *fakeStore) (broken *atomic.Bool) {
	broken = new(atomic.Bool)
	broken.Store(true)
	st.hook = func(string) error {
		if broken.Load() {
			return errFake
		}
		return nil
	}
	return broken
}

// TestEventAfterError: who is told of a failure in the background gets it from Flush.
func TestEventAfterError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFake(t, 16<<10, 4<<10)
		broken := breakStore(st)
		var f *File
		var err error
		c := newCache(t, Config{MaxAge: time.Second, Events: func(event.Event) {
			broken.Store(false)
			err = f.Flush()
		}})
		f = c.open(st, Hooks{})
		if err := f.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second + 1)
		synctest.Wait()
		if !errors.Is(err, errFake) {
			t.Errorf("flush after the event: %v", err)
		}
		finish(t, c, f)
	})
}

// TestFailedFlushIsReportedOnce: a Flush that fails itself takes an earlier failure with it, and what it returned does not come back.
func TestFailedFlushIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFake(t, 16<<10, 4<<10)
		broken := breakStore(st)
		c := newCache(t, Config{MaxAge: time.Minute})
		f := c.open(st, Hooks{})
		if err := f.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + 1)
		synctest.Wait()
		if err := f.Flush(); !errors.Is(err, errFake) {
			t.Errorf("flush: %v", err)
		}
		if err := f.Sync(); !errors.Is(err, errFake) {
			t.Errorf("sync: %v", err)
		}
		broken.Store(false)
		if err := f.Flush(); err != nil {
			t.Errorf("flush once all is well: %v", err)
		}
		finish(t, c, f)
	})
}

// TestCloseFails: Close reports the first failure, frees everything and closes the container even then.
func TestCloseFails(t *testing.T) {
	for _, op := range []string{"WriteFrames", "Flush", "Close"} {
		st := newFake(t, 16<<10, 4<<10)
		st.hook = func(o string) error {
			if o == op {
				return errFake
			}
			return nil
		}
		c := newCache(t, Config{MaxAge: time.Hour})
		f := c.open(st, Hooks{})
		if err := f.WriteAt(make([]byte, 10000), 100); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); !errors.Is(err, errFake) {
			t.Errorf("%s fails: close: %v", op, err)
		}
		checkGone(t, c, f) // before another call could put it right
		if st.count("Close") != 1 {
			t.Errorf("%s fails: the container was closed %d times", op, st.count("Close"))
		}
		if err := f.WriteAt([]byte("x"), 0); !errors.Is(err, container.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		if err := f.Flush(); !errors.Is(err, container.ErrClosed) {
			t.Errorf("flush after close: %v", err)
		}
		if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, container.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFailedCut: after a truncate or discard that failed half-way, reads see what the store holds, and what was dirty is still to be handed over.
func TestFailedCut(t *testing.T) {
	const n = 2 * testSegment
	for _, x := range []struct {
		name string
		op   string // that fails
		cut  func(f *File) error
	}{
		{"truncate", "SetSize", func(f *File) error { return f.Truncate(3*testFrame + 100) }},
		{"discard", "Flush", func(f *File) error { return f.Discard(3*testFrame+100, 3*testFrame) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCache(t, Config{MaxAge: time.Hour})
			f, st, data := stored(t, c, n)
			for off := int64(0); off < n; off += testFrame {
				wantRead(t, f, off+1, data[off+1:][:10]) // in part: it stays in the cache
			}
			const dirty = 5 * testFrame
			mustWrite(t, f, []byte("dirty"), dirty)
			copy(data[dirty:], "dirty")
			st.torn, st.hook = true, failing(x.op)
			if err := x.cut(f); !errors.Is(err, errFake) {
				t.Fatal(err)
			}
			st.torn, st.hook = false, nil
			checkCache(t, c)
			seen := readAll(t, f)
			mustFlush(t, f)
			if got := st.content(); !bytes.Equal(got, seen) {
				t.Errorf("the store after a flush: %s", firstDiff(got, seen))
			}
			if f.Size() != n || !bytes.Equal(seen[:3*testFrame], data[:3*testFrame]) {
				t.Errorf("the cut took more than it was to: size %d", f.Size())
			}
			if !bytes.Equal(seen[dirty:dirty+testFrame], data[dirty:dirty+testFrame]) {
				t.Error("what was dirty is lost")
			}
			finish(t, c, f)
		})
	}
}

package cache

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	testSegment = 16 << 10
	testFrame   = 4 << 10
)

// pattern is n bytes that differ between frames and are never zero.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(1 + (i+i/testFrame)%255)
	}
	return p
}

// stored returns a file of n bytes whose frames are all in the store and none in the cache.
func stored(t testing.TB, c *Cache, n int) (*File, *fakeStore, []byte) {
	t.Helper()
	st, data := newFake(t, testSegment, testFrame), pattern(n)
	f := c.open(st, Hooks{})
	if err := errors.Join(f.WriteAt(data, 0), f.Close()); err != nil {
		t.Fatal(err)
	}
	st.closed = false
	return c.open(st, Hooks{}), st, data
}

func mustWrite(t testing.TB, f *File, p []byte, off int64) {
	t.Helper()
	if err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func mustFlush(t testing.TB, f *File) {
	t.Helper()
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t testing.TB, f *File, off int64, want []byte) {
	t.Helper()
	dst := make([]byte, len(want))
	if n, err := f.ReadAt(dst, off); err != nil || !bytes.Equal(dst[:n], want) {
		t.Errorf("read at %d: %v, %s", off, err, firstDiff(dst[:n], want))
	}
}

// TestSingleFlight: many who need a part of the same absent frame cost one call, readers and writers alike.
func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, Config{MaxAge: time.Hour})
		f, st, data := stored(t, c, 2*testSegment)
		gate := make(chan struct{})
		st.hook = func(op string) error {
			if op == "ReadAt" {
				<-gate
			}
			return nil
		}
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() { wantRead(t, f, int64(testFrame+64*i), data[testFrame+64*i:][:64]) })
		}
		wg.Go(func() {
			if err := f.WriteAt([]byte{0}, 2*testFrame-1); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if n := st.count("ReadAt"); n != 1 {
			t.Errorf("%d loads under way", n)
		}
		// Whoever wants another frame does not wait for this one.
		wg.Go(func() { wantRead(t, f, 10, data[10:20]) })
		synctest.Wait()
		if n := st.count("ReadAt"); n != 2 {
			t.Errorf("%d loads of two frames under way", n)
		}
		close(gate)
		wg.Wait()
		data[2*testFrame-1] = 0
		wantRead(t, f, testFrame+1, data[testFrame+1:2*testFrame])
		if s := c.Stats(); st.count("ReadAt") != 2 || s.Misses != 2 || s.Bypassed != 0 {
			t.Errorf("%d calls, %+v", st.count("ReadAt"), s)
		}
		finish(t, c, f)
	})
}

// TestFailedLoad: the error of a load is that of the one who tried; those who waited try themselves.
func TestFailedLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, Config{MaxAge: time.Hour})
		f, st, data := stored(t, c, testSegment)
		gate := make(chan error)
		st.hook = func(op string) error {
			if op == "ReadAt" {
				return <-gate
			}
			return nil
		}
		var failed, good atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				dst := make([]byte, 100)
				n, err := f.ReadAt(dst, 5)
				switch {
				case errors.Is(err, errFake) && n == 0:
					failed.Add(1)
				case err == nil && bytes.Equal(dst, data[5:105]):
					good.Add(1)
				default:
					t.Errorf("read: %d, %v", n, err)
				}
			})
		}
		synctest.Wait()
		gate <- errFake
		synctest.Wait()
		gate <- errFake
		synctest.Wait()
		gate <- nil
		wg.Wait()
		if failed.Load() != 2 || good.Load() != 6 {
			t.Errorf("%d failed, %d succeeded", failed.Load(), good.Load())
		}
		finish(t, c, f)
	})
}

// TestBypass: what a request covers whole is read straight from the store and not kept, one call per contiguous run.
func TestBypass(t *testing.T) {
	const f0, f1 = testFrame, 2 * testFrame
	for _, v := range []struct {
		name       string
		dirty      []int // frames in the cache beforehand
		off, n     int64
		reads      [][2]int64
		kept, hits int
	}{
		{"one frame", nil, f0, f0, [][2]int64{{f0, f0}}, 0, 0},
		{"several segments", nil, 0, 2 * testSegment, [][2]int64{{0, 2 * testSegment}}, 0, 0},
		{"to the end, which cuts a frame", nil, f0, 1 << 20, [][2]int64{{f0, 2*testSegment + 100 - f0}}, 0, 0},
		{"the cut frame alone", nil, 2 * testSegment, 100, [][2]int64{{2 * testSegment, 100}}, 0, 0},
		{"parts at both ends", nil, 10, f1, [][2]int64{{0, f0}, {f1, f0}, {f0, f0}}, 2, 0},
		{"part at the end", nil, 0, f1 + 10, [][2]int64{{f1, f0}, {0, f1}}, 1, 0},
		{"dirty ones in between", []int{1, 5}, 0, 2 * testSegment, [][2]int64{{0, f0}, {f1, 3 * f0}, {6 * f0, f1}}, 2, 2},
		{"dirty at the ends", []int{0, 7}, 0, 2 * testSegment, [][2]int64{{f0, 6 * f0}}, 2, 2},
		{"all dirty", []int{0, 1, 2, 3}, 5, testSegment - 10, nil, 4, 4},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := newCache(t, Config{MaxAge: time.Hour})
			f, st, data := stored(t, c, 2*testSegment+100)
			for _, i := range v.dirty {
				fresh := bytes.Repeat([]byte{byte(200 + i)}, testFrame)
				copy(data[i*testFrame:], fresh)
				mustWrite(t, f, fresh, int64(i)*testFrame)
			}
			end := min(v.off+v.n, int64(len(data)))
			dst := make([]byte, v.n)
			n, err := f.ReadAt(dst, v.off)
			if err != nil || !bytes.Equal(dst[:n], data[v.off:end]) {
				t.Errorf("%v, %s", err, firstDiff(dst[:n], data[v.off:end]))
			}
			if !slices.Equal(st.reads, v.reads) {
				t.Errorf("calls %v, want %v", st.reads, v.reads)
			}
			s := c.Stats()
			if kept := int((s.Clean + s.Dirty) / testFrame); kept != v.kept || int(s.Hits) != v.hits {
				t.Errorf("%d frames kept, want %d; %+v", kept, v.kept, s)
			}
			finish(t, c, f)
		})
	}
}

// TestKeep: after a hand-over frames that were written in part stay, others leave.
func TestKeep(t *testing.T) {
	c := newCache(t, Config{MaxAge: time.Hour})
	f, st, data := stored(t, c, testSegment)
	mustWrite(t, f, data[:testFrame+10], 0)
	mustFlush(t, f)
	if s := c.Stats(); s.Clean != testFrame || s.Dirty != 0 {
		t.Errorf("%+v", s)
	}
	st.reads = nil
	wantRead(t, f, testFrame, data[testFrame:2*testFrame])
	if len(st.reads) != 0 {
		t.Errorf("calls %v for a frame that is there", st.reads)
	}
	finish(t, c, f)
}

// TestEvict: clean frames stay within the budget, the oldest go first, and dirty ones are never among them.
func TestEvict(t *testing.T) {
	c := newCache(t, Config{Clean: 2 * testFrame, MaxAge: time.Hour})
	f, st, data := stored(t, c, 8*testSegment)
	mustWrite(t, f, []byte{9}, 7*testSegment)
	data[7*testSegment] = 9
	touch := func(segment int) int {
		before := len(st.reads)
		wantRead(t, f, int64(segment*testSegment+1), data[segment*testSegment+1:][:10])
		checkCache(t, c)
		return len(st.reads) - before
	}
	for i, v := range []struct{ segment, calls int }{{0, 1}, {1, 1}, {0, 0}, {2, 1}, {0, 0}, {1, 1}, {2, 1}, {7, 0}} {
		if n := touch(v.segment); n != v.calls {
			t.Errorf("step %d, segment %d: %d calls, want %d", i, v.segment, n, v.calls)
		}
	}
	finish(t, c, f)
}

// TestShed: clean frames beside dirty ones, whose segment cannot be evicted, stay within the budget too.
func TestShed(t *testing.T) {
	c := newCache(t, Config{Clean: 2 * testFrame, MaxAge: time.Hour})
	f, _, data := stored(t, c, testSegment)
	mustWrite(t, f, []byte{9}, 0)
	data[0] = 9
	for i := range 4 {
		wantRead(t, f, int64(i*testFrame), data[i*testFrame:][:10])
		checkCache(t, c)
	}
	wantRead(t, f, 0, data)
	finish(t, c, f)
}

// TestZeros: what lies between an old end and what comes behind it reads as zeros, in the cache and in the store.
func TestZeros(t *testing.T) {
	const n = testSegment + 2*testFrame + 300
	for _, state := range []string{"stored", "clean", "dirty"} {
		for _, cut := range []int64{0, 1, testFrame - 1, testFrame, testSegment, testSegment + testFrame + 7, n - 1} {
			for _, grow := range []string{"truncate", "write", "write in the frame"} {
				c := newCache(t, Config{MaxAge: time.Hour})
				f, st, want := stored(t, c, n)
				switch state {
				case "clean":
					for off := int64(1); off < n; off += testFrame {
						wantRead(t, f, off, want[off:off+1])
					}
				case "dirty":
					mustWrite(t, f, want, 0)
				}
				if err := f.Truncate(cut); err != nil {
					t.Fatal(err)
				}
				wantRead(t, f, 0, want[:cut])
				clear(want[cut:])
				switch grow {
				case "truncate":
					if err := f.Truncate(n); err != nil {
						t.Fatal(err)
					}
				case "write":
					mustWrite(t, f, []byte{1}, n-1)
					want[n-1] = 1
				case "write in the frame":
					if at := cut + 20; at < n {
						mustWrite(t, f, []byte{1}, at)
						want[at] = 1
						want = want[:at+1]
					} else {
						want = want[:cut]
					}
				}
				wantRead(t, f, 0, want)
				wantRead(t, f, cut/2+1, want[min(cut/2+1, int64(len(want))):]) // by parts
				checkCache(t, c)
				mustFlush(t, f)
				if got := st.content(); !bytes.Equal(got, want) {
					t.Errorf("%s, cut at %d, %s: in the store %s", state, cut, grow, firstDiff(got, want))
				}
				finish(t, c, f)
				if t.Failed() {
					t.Fatalf("%s, cut at %d, %s", state, cut, grow)
				}
			}
		}
	}
}

// inFlight returns a file of one segment with frame 1 in flight: WriteFrames is under way until land is called with its outcome.
func inFlight(t *testing.T, c *Cache) (f *File, st *fakeStore, data []byte, land func(error)) {
	st = newFake(t, testSegment, testFrame)
	f = c.open(st, Hooks{})
	gate, done := make(chan error), make(chan error)
	first := true
	st.hook = func(op string) error {
		if op == "WriteFrames" && first {
			first = false
			return <-gate
		}
		return nil
	}
	data = make([]byte, 3*testSegment)
	copy(data[testFrame:], pattern(testFrame))
	mustWrite(t, f, data[testFrame:2*testFrame], testFrame)
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	go func() { done <- f.Flush() }()
	synctest.Wait()
	return f, st, data, func(outcome error) {
		t.Helper()
		gate <- outcome
		if err := <-done; !errors.Is(err, outcome) {
			t.Errorf("flush: %v", err)
		}
	}
}

// TestInFlight: a frame that WriteFrames has is readable and may be written; what it has does not change (fakeStore looks), and what is written is not
// lost whether it fails or not.
func TestInFlight(t *testing.T) {
	for _, outcome := range []error{nil, errFake} {
		for name, p := range map[string][]byte{"whole": bytes.Repeat([]byte{0xaa}, testFrame), "part": {0xbb, 0xbb}, "": nil} {
			synctest.Test(t, func(t *testing.T) {
				c := newCache(t, Config{MaxAge: time.Hour})
				f, st, data, land := inFlight(t, c)
				wantRead(t, f, 0, data)
				wantRead(t, f, testFrame+5, data[testFrame+5:][:10])
				dirty := int64(testFrame)
				for range 2 { // the second time the copy is there
					if p != nil {
						mustWrite(t, f, p, testFrame)
						copy(data[testFrame:], p)
						dirty = 2 * testFrame
					}
					wantRead(t, f, 0, data)
					if got := c.Stats().Dirty; got != dirty {
						t.Errorf("%q: %d dirty bytes, want %d", name, got, dirty)
					}
				}
				land(outcome)
				checkCache(t, c)
				wantRead(t, f, 0, data)
				if got, want := c.Stats().Dirty > 0, p != nil || outcome != nil; got != want {
					t.Errorf("%q: dirty after %v: %v", name, outcome, got)
				}
				mustFlush(t, f)
				if got := st.content(); !bytes.Equal(got, data) {
					t.Errorf("%q after %v: %s", name, outcome, firstDiff(got, data))
				}
				finish(t, c, f)
			})
		}
	}
}

// wantSeek checks SeekData and SeekHole from an offset; -1 stands for ErrNoData.
func wantSeek(t *testing.T, f *File, off, data, hole int64) {
	t.Helper()
	for _, v := range []struct {
		name string
		fn   func(int64) (int64, error)
		want int64
	}{{"data", f.SeekData, data}, {"hole", f.SeekHole, hole}} {
		at, err := v.fn(off)
		if errors.Is(err, ErrNoData) {
			at, err = -1, nil
		}
		if err != nil || at != v.want {
			t.Errorf("%s from %d: %d, %v; want %d", v.name, off, at, err, v.want)
		}
	}
}

func TestSeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, Config{MaxAge: time.Hour})
		f, _, data, land := inFlight(t, c) // frame 1 in flight
		size := int64(len(data))
		wantSeek(t, f, 0, testFrame, 0)
		wantSeek(t, f, testFrame+1, testFrame+1, 2*testFrame)
		wantSeek(t, f, 2*testFrame, -1, 2*testFrame)
		mustWrite(t, f, []byte{1}, 2*testFrame) // frame 2 dirty, beside it
		mustWrite(t, f, []byte{1}, testSegment+testFrame-1)
		wantSeek(t, f, 0, testFrame, 0)
		wantSeek(t, f, testFrame, testFrame, 3*testFrame)
		wantSeek(t, f, 3*testFrame, testSegment, 3*testFrame)
		wantSeek(t, f, testSegment, testSegment, testSegment+testFrame)
		mustWrite(t, f, []byte{1}, testFrame) // in flight and dirty again
		wantSeek(t, f, 10, testFrame, 10)
		land(nil) // stored 1, dirty 1, 2 and 4
		wantSeek(t, f, 0, testFrame, 0)
		wantSeek(t, f, testFrame, testFrame, 3*testFrame)
		mustFlush(t, f)
		wantSeek(t, f, testFrame, testFrame, 3*testFrame)
		wantSeek(t, f, testSegment+testFrame, -1, testSegment+testFrame)
		mustWrite(t, f, []byte{1}, size-1) // stored up to 4, dirty the last
		wantSeek(t, f, testSegment+testFrame, size-testFrame, testSegment+testFrame)
		wantSeek(t, f, size-1, size-1, size)
		wantSeek(t, f, size, -1, -1)
		wantSeek(t, f, -1, -1, -1)
		wantRead(t, f, 3*testFrame+1, make([]byte, 100)) // a clean frame in the cache, and a hole
		wantSeek(t, f, 3*testFrame, testSegment, 3*testFrame)
		if err := f.Discard(testFrame, 2*testFrame); err != nil {
			t.Fatal(err)
		}
		wantSeek(t, f, 0, testSegment, 0)
		finish(t, c, f)
	})
}

// TestAllocs: once warm, neither reads nor writes of cached frames allocate.
func TestAllocs(t *testing.T) {
	c := newCache(t, Config{MaxAge: time.Hour})
	f := c.open(newFake(t, testSegment, testFrame), Hooks{})
	p := make([]byte, testFrame)
	mustWrite(t, f, make([]byte, 2*testSegment), 0)
	for name, fn := range map[string]func(){
		"read":           func() { _, _ = f.ReadAt(p, 2*testFrame) },
		"read of parts":  func() { _, _ = f.ReadAt(p, testFrame+100) },
		"write":          func() { _ = f.WriteAt(p, testFrame) },
		"write of parts": func() { _ = f.WriteAt(p, testFrame+100) },
	} {
		if n := testing.AllocsPerRun(100, fn); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	finish(t, c, f)
}

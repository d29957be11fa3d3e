package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stress is a file under load. It is made of units, a quarter of a frame each, and every write covers whole units; all words of a unit hold
// its number and the sequence of the write. So what a read returns says which writes it saw, and a mixture within a unit shows.
//
// Each unit has one writer, which makes the order of its writes known: a read must see the last one that ended before the read
// began, or a later one that has begun. Units behind steady may be cut and discarded as well: those read as zeros too, but never as
// something that a cut has ended.
type stress struct {
	t       *testing.T
	f       *File
	unit    int64
	steady  int
	stripes [][2]int // units of one writer each
	begun   []atomic.Uint64
	done    []atomic.Uint64
	dead    []atomic.Uint64 // gone by a cut or discard
}

func newStress(t *testing.T, f *File, rnd *rand.Rand, segments int) *stress {
	n := segments * f.frames * 4
	x := &stress{t: t, f: f, unit: int64(f.frameSize) / 4, steady: n / 2, begun: make([]atomic.Uint64, n), done: make([]atomic.Uint64, n), dead: make([]atomic.Uint64, n)}
	for from := 0; from < n; {
		to := min(n, from+1+rnd.IntN(2*4*f.frames)) // most share a frame with their neighbours, some span segments
		x.stripes = append(x.stripes, [2]int{from, to})
		from = to
	}
	return x
}

// write writes some units of a stripe that is the caller's.
func (x *stress) write(rnd *rand.Rand, stripe [2]int) {
	from := stripe[0] + rnd.IntN(stripe[1]-stripe[0])
	to := from + 1 + rnd.IntN(stripe[1]-from)
	p := make([]byte, 0, int64(to-from)*x.unit)
	for u := from; u < to; u++ {
		word := uint64(u)<<32 | x.begun[u].Add(1)
		for range x.unit / 8 {
			p = binary.LittleEndian.AppendUint64(p, word)
		}
	}
	x.again("write", func() error { return writeEither(rnd, x.f, p, int64(from)*x.unit) })
	for u := from; u < to; u++ {
		x.done[u].Store(x.begun[u].Load())
	}
}

// again repeats what fails for a fault that a test put in.
func (x *stress) again(what string, fn func() error) {
	var err error
	for range 10000 {
		if err = fn(); err == nil {
			return
		}
		if !errors.Is(err, errFake) {
			break
		}
	}
	x.t.Errorf("%s: %v", what, err)
}

// read reads a random range and checks every unit of it.
func (x *stress) read(rnd *rand.Rand) {
	off := rnd.Int64N(int64(len(x.done))*x.unit) &^ 7
	dst := make([]byte, 8+rnd.Int64N(2*x.f.segmentSize)&^7)
	if rnd.IntN(4) == 0 { // whole frames
		off, dst = off&^int64(x.f.frameSize-1), make([]byte, int64(x.f.frameSize)*(1+rnd.Int64N(4)))
	}
	first, last := int(off/x.unit), min(len(x.done), int((off+int64(len(dst))-1)/x.unit)+1)
	low, dead := make([]uint64, last), make([]uint64, last)
	for u := first; u < last; u++ {
		low[u], dead[u] = x.done[u].Load(), x.dead[u].Load()
	}
	n, err := x.f.ReadAt(dst, off)
	if err != nil {
		if !errors.Is(err, errFake) {
			x.t.Errorf("read: %v", err)
		}
		return
	}
	for u := first; u < last; u++ {
		at := max(off, int64(u)*x.unit)
		end := min(off+int64(len(dst)), int64(u+1)*x.unit)
		if end > off+int64(n) {
			if u < x.steady && low[u] > 0 {
				x.t.Errorf("unit %d was written and is behind the end", u)
			}
			break
		}
		x.check(u, dst[at-off:end-off], low[u], dead[u])
	}
}

func (x *stress) check(u int, b []byte, low, dead uint64) {
	word := binary.LittleEndian.Uint64(b)
	for i := 8; i < len(b); i += 8 {
		if w := binary.LittleEndian.Uint64(b[i:]); w != word {
			x.t.Errorf("unit %d: %#x beside %#x", u, w, word)
			return
		}
	}
	seq := word & (1<<32 - 1)
	switch {
	case word == 0:
		if u < x.steady && low > 0 {
			x.t.Errorf("unit %d: zeros after write %d", u, low)
		}
	case word>>32 != uint64(u):
		x.t.Errorf("unit %d holds unit %d", u, word>>32)
	case u < x.steady && seq < low:
		x.t.Errorf("unit %d: write %d after %d had ended", u, seq, low)
	case seq <= dead:
		x.t.Errorf("unit %d: write %d, cut off together with %d", u, seq, dead)
	case seq > x.begun[u].Load():
		x.t.Errorf("unit %d: write %d has not begun", u, seq)
	}
}

// cut truncates or discards units behind the steady ones.
func (x *stress) cut(rnd *rand.Rand) {
	from := x.steady + rnd.IntN(len(x.done)-x.steady)
	to := len(x.done)
	do := func() error { return x.f.Truncate(int64(from) * x.unit) }
	if rnd.IntN(2) == 0 {
		to = from + 1 + rnd.IntN(to-from)
		do = func() error { return x.f.Discard(int64(from)*x.unit, int64(to-from)*x.unit) }
	}
	ended := make([]uint64, to)
	for u := from; u < to; u++ {
		ended[u] = x.done[u].Load()
	}
	if err := do(); err != nil {
		if !errors.Is(err, errFake) {
			x.t.Errorf("cut: %v", err)
		}
		return
	}
	for u := from; u < to; u++ {
		x.dead[u].Store(ended[u])
	}
	if size := int64(from+1) * x.unit; rnd.IntN(2) == 0 && x.f.Size() < size {
		x.again("grow", func() error {
			if x.f.Size() >= size { // a writer was first; do not cut what it wrote
				return nil
			}
			return x.f.Truncate(size)
		})
	}
}

// seek only looks for errors and answers out of range; what is data changes all the time.
func (x *stress) seek(rnd *rand.Rand) {
	off := rnd.Int64N(int64(len(x.done)) * x.unit)
	for _, fn := range []func(int64) (int64, error){x.f.SeekData, x.f.SeekHole} {
		at, err := fn(off)
		if err == nil && at < off || err != nil && !errors.Is(err, ErrNoData) && !errors.Is(err, errFake) {
			x.t.Errorf("seek from %d: %d, %v", off, at, err)
		}
	}
}

// run lets writers loose on the files, and the others beside them until the writers are done.
func runStress(seed uint64, files []*stress, writers, writes int) {
	var writing, rest sync.WaitGroup
	stop := make(chan struct{})
	for k, x := range files {
		for w := range writers {
			rnd := rand.New(rand.NewPCG(seed, uint64(100*k+w)))
			writing.Go(func() {
				for range writes {
					if i := rnd.IntN(len(x.stripes)); len(x.stripes) >= writers {
						x.write(rnd, x.stripes[(i-i%writers+w)%(len(x.stripes)-len(x.stripes)%writers)])
					}
				}
			})
		}
		others := []func(*rand.Rand){x.read, x.read, x.read, x.cut, x.seek, func(rnd *rand.Rand) {
			if fn := x.f.Flush; rnd.IntN(3) > 0 {
				_ = fn() // faults: the last Flush counts
			} else {
				_ = x.f.Sync()
			}
		}}
		for i, fn := range others {
			rnd := rand.New(rand.NewPCG(seed, uint64(100*k+50+i)))
			rest.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						fn(rnd)
						runtime.Gosched()
					}
				}
			})
		}
	}
	writing.Wait()
	close(stop)
	rest.Wait()
}

// tight are budgets that keep pressure, eviction and the timer at work all the time.
func tight(frame int) Config {
	f := int64(frame)
	return Config{Clean: 6 * f, Dirty: 12 * f, Window: 8 * f, MaxAge: time.Millisecond}
}

func TestConcurrent(t *testing.T) {
	for _, faulty := range []bool{false, true} {
		for _, g := range [][2]int{{16 << 10, 4 << 10}, {64 << 10, 4 << 10}, {64 << 10, 16 << 10}} {
			t.Run(fmt.Sprintf("%dK_%dK_faulty=%v", g[0]>>10, g[1]>>10, faulty), func(t *testing.T) {
				rnd := random(t)
				c := newCache(t, tight(g[1]))
				var on atomic.Bool
				on.Store(faulty)
				var files []*stress
				var stores []*fakeStore
				for range 2 {
					st := newFake(t, g[0], g[1])
					st.torn = faulty
					st.hook = func(op string) error {
						runtime.Gosched()
						if on.Load() && rand.IntN(8) == 0 {
							return errFake
						}
						return nil
					}
					stores = append(stores, st)
					files = append(files, newStress(t, c.open(st, Hooks{}), rnd, 8))
				}
				runStress(rnd.Uint64(), files, 3, 150)
				on.Store(false)
				for i, x := range files {
					x.again("flush", x.f.Flush)
					seen := readAll(t, x.f)
					if got := stores[i].content(); !bytes.Equal(got, seen) {
						t.Errorf("the store after a flush: %s", firstDiff(got, seen))
					}
					x.final(seen)
					x.again("flush", x.f.Flush) // what the background had to say
				}
				finishIdle(t, c, files...)
			})
		}
	}
}

// finishIdle is finish where the background may still be about to report a failure.
func finishIdle(t *testing.T, c *Cache, files ...*stress) {
	t.Helper()
	var all []*File
	for _, x := range files {
		all = append(all, x.f)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		c.mu.Lock()
		busy := len(c.aging) + len(c.queue)
		for _, f := range all {
			if f.queued {
				busy++
			}
		}
		c.mu.Unlock()
		if busy == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the background does not come to rest")
		}
		runtime.Gosched()
	}
	for _, x := range files {
		x.again("flush", x.f.Flush)
	}
	finish(t, c, all...)
}

// final checks the file after all writers: every steady unit holds its last write.
func (x *stress) final(content []byte) {
	for u := range x.done {
		at := int64(u) * x.unit
		if int64(len(content)) < at+x.unit {
			if u < x.steady && x.done[u].Load() > 0 {
				x.t.Errorf("unit %d is behind the end", u)
			}
			return
		}
		x.check(u, content[at:at+x.unit], x.done[u].Load(), x.dead[u].Load())
	}
}

func TestConcurrentContainer(t *testing.T) {
	for _, g := range [][2]int{{16 << 10, 4 << 10}, {64 << 10, 16 << 10}} {
		t.Run(fmt.Sprintf("%dK_%dK", g[0]>>10, g[1]>>10), func(t *testing.T) {
			rnd := random(t)
			r := newReal(t, g[0], g[1])
			c := newCache(t, tight(g[1]))
			x := newStress(t, c.Open(r.create("f"), Hooks{}), rnd, 8)
			runStress(rnd.Uint64(), []*stress{x}, 3, 80)
			seen := slices.Clone(readAll(t, x.f))
			x.final(seen)
			if err := x.f.Close(); err != nil {
				t.Fatal(err)
			}
			x.f = c.Open(r.open("f"), Hooks{})
			if got := readAll(t, x.f); !bytes.Equal(got, seen) {
				t.Errorf("opened again: %s", firstDiff(got, seen))
			}
			finish(t, c, x.f)
		})
	}
}

// TestWriteBesideClose: a write that Close does not take along fails; it is not taken and lost.
func TestWriteBesideClose(t *testing.T) {
	st := newFake(t, 16<<10, 4<<10)
	c := newCache(t, Config{MaxAge: time.Hour})
	f := c.open(st, Hooks{})
	var late error
	once := true
	st.hook = func(op string) error {
		if op == "Flush" && once { // Close has handed the frames over by now
			once = false
			late = f.WriteAt([]byte("late"), 0)
		}
		return nil
	}
	if err := f.WriteAt([]byte("before"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if want := map[bool]string{true: "latere", false: "before"}[late == nil]; string(st.content()) != want {
		t.Errorf("the late write returned %v and the store holds %q", late, st.content())
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

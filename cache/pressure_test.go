package cache

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferfs/coffer/container"
)

// within fails the test where fn does not return: a deadlock then has a name.
func within(t *testing.T, d time.Duration, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("still waiting after %v", d)
	}
}

// checkBounds checks that what is dirty, and what writers may yet make dirty, is within the limits; a single piece may be beyond a limit that is smaller.
func checkBounds(t testing.TB, c *Cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := int64(0)
	for f := range c.files {
		piece := max(int64(f.frameSize), min(batchBytes, c.cfg.Window/2))
		if have := f.dirty + f.reserved; have > max(c.cfg.Window, piece) {
			t.Errorf("file with %d dirty and %d set aside, window %d", f.dirty, f.reserved, c.cfg.Window)
		}
		if have := c.dirty + c.reserved; have > max(c.cfg.Dirty, piece) {
			t.Errorf("%d dirty and %d set aside, limit %d", c.dirty, c.reserved, c.cfg.Dirty)
		}
		sum += f.dirty
	}
	if sum != c.dirty {
		t.Errorf("files have %d dirty bytes, the cache %d", sum, c.dirty)
	}
}

// TestBackPressure has writers to many files wait for a slow store.
func TestBackPressure(t *testing.T) {
	const frame = 4 << 10
	for _, cfg := range []Config{
		{Dirty: 8 * frame, Window: 4 * frame},
		{Dirty: 16 * frame, Window: 1 << 20}, // the limit for all files alone
		{Dirty: 1 << 20, Window: 4 * frame},  // that of each alone
		{Dirty: 1, Window: 1},
	} {
		cfg.MaxAge = time.Hour
		t.Run(fmt.Sprintf("%dK_%dK", cfg.Dirty>>10, cfg.Window>>10), func(t *testing.T) {
			c := newCache(t, cfg)
			var files []*File
			var stores []*fakeStore
			for range 12 {
				st := newFake(t, 16<<10, frame)
				st.hook = func(string) error {
					checkBounds(t, c)
					time.Sleep(50 * time.Microsecond)
					return nil
				}
				stores = append(stores, st)
				files = append(files, c.open(st, Hooks{}))
			}
			within(t, 5*time.Minute, func() {
				var wg sync.WaitGroup
				for k, f := range files {
					for half := range 2 { // two writers per file, in turn over the same frames: copies beside frames in flight
						wg.Go(func() {
							for i := range 12 {
								p := bytes.Repeat([]byte{byte(16*k + i + 1)}, 3*frame/2)
								if err := f.WriteAt(p, int64(2*(i%6)+half)*3*frame/2); err != nil {
									t.Errorf("write: %v", err)
								}
								checkBounds(t, c)
							}
						})
					}
				}
				wg.Wait()
			})
			if err := c.FlushAll(); err != nil {
				t.Fatal(err)
			}
			for k, st := range stores {
				for i, b := range st.content() {
					if want := byte(16*k + (i/(3*frame))%6 + 6 + 1); b != want {
						t.Fatalf("file %d, byte %d: %#x, want %#x", k, i, b, want)
					}
				}
			}
			finish(t, c, files...)
		})
	}
}

// TestWaitForAdmitted: where all room is set aside for a writer that is still at the store, another one waits until it is done.
func TestWaitForAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const frame = 4 << 10
		st, other := newFake(t, 16<<10, frame), newFake(t, 16<<10, frame)
		c := newCache(t, Config{Dirty: frame, Window: frame, MaxAge: time.Hour})
		f, g := c.open(st, Hooks{}), c.open(other, Hooks{})
		if err := errors.Join(f.WriteAt(make([]byte, frame), 0), f.Flush()); err != nil {
			t.Fatal(err)
		}
		gate := make(chan error)
		st.hook = func(op string) error {
			if op == "ReadAt" {
				return <-gate
			}
			return nil
		}
		for _, outcome := range []error{nil, errFake} { // a writer that fails gives its room back as well
			var first, second error
			var running sync.WaitGroup
			running.Go(func() { first = f.WriteAt([]byte("part"), 100) })
			synctest.Wait()
			running.Go(func() { second = g.WriteAt([]byte("other"), 0) })
			synctest.Wait()
			c.mu.Lock()
			if c.waiting != 1 || c.reserved != frame {
				t.Errorf("%d waiting, %d set aside", c.waiting, c.reserved)
			}
			c.mu.Unlock()
			gate <- outcome
			running.Wait()
			if !errors.Is(first, outcome) || second != nil {
				t.Errorf("writes: %v and %v", first, second)
			}
			if err := errors.Join(f.Truncate(0), f.Truncate(frame), f.WriteAt(make([]byte, frame), 0), c.FlushAll()); err != nil {
				t.Error(err)
			}
		}
		finish(t, c, f, g)
	})
}

// TestWaitBesideFailure: a writer that found nothing to write out, since the one dirty file was being handed over, goes on when that fails.
func TestWaitBesideFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const frame = 4 << 10
		st := newFake(t, 16<<10, frame)
		c := newCache(t, Config{Dirty: frame, MaxAge: time.Hour})
		f, g := c.open(st, Hooks{}), c.open(newFake(t, 16<<10, frame), Hooks{})
		if err := c.Close(); err != nil { // no background that could help
			t.Fatal(err)
		}
		gate := make(chan error)
		st.hook = func(op string) error {
			if op == "WriteFrames" {
				return <-gate
			}
			return nil
		}
		mustWrite(t, f, pattern(frame), 0)
		var flushed, written error
		var running sync.WaitGroup
		running.Go(func() { flushed = f.Flush() })
		synctest.Wait()
		running.Go(func() { written = g.WriteAt([]byte("x"), 0) })
		synctest.Wait()
		gate <- errFake
		gate <- nil // the writer's own attempt
		running.Wait()
		if !errors.Is(flushed, errFake) || written != nil {
			t.Errorf("flush: %v, write: %v", flushed, written)
		}
		if err := errors.Join(f.Close(), g.Close()); err != nil {
			t.Error(err)
		}
		checkGone(t, c, f, g)
	})
}

// TestVictimFails: a writer that makes room at the cost of another file leaves the failure to that file's next Flush, and goes on.
func TestVictimFails(t *testing.T) {
	const frame = 4 << 10
	good, bad := newFake(t, 16<<10, frame), newFake(t, 16<<10, frame)
	c := newCache(t, Config{Dirty: 4 * frame, MaxAge: time.Hour})
	f, victim := c.open(good, Hooks{}), c.open(bad, Hooks{})
	if err := c.Close(); err != nil { // no background: it is the writer who makes room
		t.Fatal(err)
	}
	bad.hook = failing("WriteFrames")
	data := pattern(3 * frame)
	mustWrite(t, victim, data, 0)
	mustWrite(t, f, data[:frame], 0)
	mustWrite(t, f, data[frame:2*frame], frame)
	if bad.count("WriteFrames") == 0 || good.count("WriteFrames") == 0 {
		t.Errorf("%d attempts on the larger file, then %d on the own", bad.count("WriteFrames"), good.count("WriteFrames"))
	}
	bad.hook = nil
	mustFlush(t, f)
	if err := victim.Flush(); !errors.Is(err, errFake) {
		t.Errorf("flush of the file that failed: %v", err)
	}
	mustFlush(t, victim)
	if got := bad.content(); !bytes.Equal(got, data) {
		t.Error(firstDiff(got, data))
	}
	if err := errors.Join(f.Close(), victim.Close()); err != nil {
		t.Error(err)
	}
	checkGone(t, c, f, victim)
}

// TestBrokenStore: where the store fails for good every writer gets the error, none waits for ever, and once it works again all that was accepted is written.
func TestBrokenStore(t *testing.T) {
	const frame = 4 << 10
	for _, all := range []bool{true, false} { // or only every second file's
		t.Run(fmt.Sprintf("all=%v", all), func(t *testing.T) {
			c := newCache(t, Config{Dirty: 16 * frame, Window: 8 * frame, MaxAge: time.Millisecond})
			var broken atomic.Bool
			broken.Store(true)
			var files []*File
			var stores []*fakeStore
			accepted := make([]int, 8)
			for k := range accepted {
				st := newFake(t, 16<<10, frame)
				st.hook = func(string) error {
					if broken.Load() && (all || k%2 == 0) {
						return errFake
					}
					return nil
				}
				stores = append(stores, st)
				files = append(files, c.open(st, Hooks{}))
			}
			within(t, 5*time.Minute, func() {
				var wg sync.WaitGroup
				for k, f := range files {
					wg.Go(func() {
						for i := range 64 { // twice what the limits hold
							err := f.WriteAt(bytes.Repeat([]byte{byte(k + 1)}, frame), int64(i)*frame)
							if err != nil {
								if !errors.Is(err, errFake) {
									t.Errorf("write: %v", err)
								}
								return
							}
							accepted[k]++
						}
						if all || k%2 == 0 {
							t.Errorf("file %d: every write succeeded", k)
						}
					})
				}
				wg.Wait()
			})
			checkBounds(t, c)
			if all {
				within(t, 5*time.Minute, func() {
					if err := c.FlushAll(); !errors.Is(err, errFake) {
						t.Errorf("flush: %v", err)
					}
				})
			}
			broken.Store(false)
			_ = c.Close() // the background ends, and has reported all it had
			for k, f := range files {
				_ = f.Flush() // may have something to report
				if err := f.Flush(); err != nil {
					t.Errorf("flush: %v", err)
				}
				if got, want := stores[k].content(), bytes.Repeat([]byte{byte(k + 1)}, accepted[k]*frame); !bytes.Equal(got, want) {
					t.Errorf("file %d: %s", k, firstDiff(got, want))
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			checkGone(t, c, files...)
		})
	}
}

// TestAge: whatever a file has to hand over is in the host's files MaxAge after it came, and not long before.
func TestAge(t *testing.T) {
	const age, frame = 8 * time.Second, 4 << 10
	ok := func(t *testing.T, errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(t *testing.T, f *File, st *fakeStore){
		"data":    func(t *testing.T, f *File, _ *fakeStore) { ok(t, f.WriteAt([]byte("data"), 3*frame-2)) },
		"growth":  func(t *testing.T, f *File, _ *fakeStore) { ok(t, f.Truncate(f.Size()+1<<20)) },
		"discard": func(t *testing.T, f *File, _ *fakeStore) { ok(t, f.Discard(100, 100)) },
		"metadata of frames handed over": func(t *testing.T, f *File, _ *fakeStore) {
			ok(t, f.WriteAt([]byte("data"), 0), f.makeRoom())
		},
		"shrink that could not flush": func(t *testing.T, f *File, st *fakeStore) {
			st.hook = failing("Flush")
			if err := f.Truncate(frame); !errors.Is(err, errFake) || f.Size() != frame {
				t.Errorf("truncate: %v, size %d", err, f.Size())
			}
			st.hook = nil
		},
		"discard that could not flush": func(t *testing.T, f *File, st *fakeStore) {
			st.hook = failing("Flush")
			if err := f.Discard(0, frame); !errors.Is(err, errFake) {
				t.Errorf("discard: %v", err)
			}
			st.hook = nil
		},
		"rewritten again and again": func(t *testing.T, f *File, _ *fakeStore) {
			go func() {
				for range 7 {
					ok(t, f.WriteAt([]byte("data"), 0))
					time.Sleep(time.Second)
				}
			}()
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newFake(t, 16<<10, frame)
				c := newCache(t, Config{MaxAge: age})
				f := c.open(st, Hooks{})
				for range 2 { // the second time the timer has been asleep
					ok(t, f.WriteAt(make([]byte, 5*frame), 0), f.Flush())
					time.Sleep(time.Hour)
					change(t, f, st)
					if !f.Dirty() {
						t.Fatal("not dirty")
					}
					time.Sleep(age*6/8 - time.Nanosecond)
					synctest.Wait()
					if !f.Dirty() {
						t.Error("handed over too early")
					}
					time.Sleep(age*2/8 + time.Nanosecond)
					synctest.Wait()
					if f.Dirty() {
						t.Errorf("dirty after %v", age)
					}
					if got := readAll(t, f); !bytes.Equal(got, st.content()) {
						t.Error(firstDiff(got, st.content()))
					}
				}
				finish(t, c, f)
			})
		})
	}
	t.Run("new container", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := newFake(t, 16<<10, frame)
			st.dirty = true
			c := newCache(t, Config{MaxAge: age})
			f := c.open(st, Hooks{})
			time.Sleep(age + time.Nanosecond)
			synctest.Wait()
			if st.Dirty() {
				t.Error("the header has not been written")
			}
			finish(t, c, f)
		})
	})
}

// failing returns a hook with which one operation fails.
func failing(op string) func(string) error {
	return func(o string) error {
		if o == op {
			return errFake
		}
		return nil
	}
}

// TestPressureFlushes: a quarter of a limit is handed over in the background, without a caller that waits and long before its age.
func TestPressureFlushes(t *testing.T) {
	const frame = 4 << 10
	for _, cfg := range []Config{{Window: 64 * frame}, {Dirty: 64 * frame}} {
		synctest.Test(t, func(t *testing.T) {
			cfg.MaxAge = time.Hour
			st := newFake(t, 64<<10, frame)
			c := newCache(t, cfg)
			flushed := 0
			f := c.open(st, Hooks{Flushed: func() { flushed++ }})
			if err := f.WriteAt(make([]byte, 16*frame), 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := st.count("WriteFrames"); n != 0 {
				t.Errorf("%d hand-overs at a quarter", n)
			}
			if err := f.WriteAt(make([]byte, frame), 16*frame); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if st.count("WriteFrames") == 0 || flushed == 0 || c.Stats().Dirty != 0 {
				t.Errorf("%d hand-overs beyond a quarter, %d told of, %d dirty", st.count("WriteFrames"), flushed, c.Stats().Dirty)
			}
			if st.count("Flush") != 0 {
				t.Error("pressure is no reason to write metadata")
			}
			finish(t, c, f)
		})
	}
}

// TestCloseCache: Close ends every goroutine (the bubble would not end otherwise), says what is left, and files go on working.
func TestCloseCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFake(t, 16<<10, 4<<10)
		c := New(Config{MaxAge: time.Second})
		f := c.open(st, Hooks{})
		if err := f.WriteAt(make([]byte, 10000), 0); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err == nil {
			t.Error("no word of dirty data")
		}
		if err := c.Close(); !errors.Is(err, container.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		time.Sleep(time.Hour)
		if st.count("WriteFrames") != 0 {
			t.Error("a hand-over in the background after Close")
		}
		if err := errors.Join(f.WriteAt([]byte("x"), 20000), f.Flush()); err != nil || len(st.content()) != 20001 {
			t.Errorf("after the cache was closed: %v, %d bytes", err, len(st.content()))
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		checkCache(t, c)
		checkGone(t, c, f)
	})
}

package container

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/journal"
)

// fill is an engine with the smallest journal there is, for workloads that fill it.
type fill struct {
	*logRig
	most int // bytes that waited in memory, or of the buffers that hold them, at the highest
}

// file makes a file of n segments, durable, so that every change of it goes through the journal.
func (f *fill) file(n, segments int) *File {
	h, err := f.root.Create(fmt.Sprint("file", n), 0o600)
	f.must(err)
	c, err := f.eng.Create(h, testID(n+1), ObjectFile)
	f.must(err)
	f.must(f.write(c, 0, segments))
	f.must(c.Sync())
	return c
}

func (f *fill) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Error(err)
	}
}

// write writes whole segments, at most 4 MiB by one call as package cache does.
func (f *fill) write(c *File, first, n int) error {
	g := c.Geometry()
	frames := make([][]byte, g.Frames)
	for i := range frames {
		frames[i] = make([]byte, g.FrameSize)
		frames[i][0] = byte(rand.Uint32())
	}
	for n > 0 {
		var ws []SegmentWrite
		for ; n > 0 && len(ws)*g.SegmentSize < 4<<20; n-- {
			ws = append(ws, SegmentWrite{Segment: uint64(first), Frames: frames, Dirty: 1<<g.Frames - 1})
			first++
		}
		if err := c.WriteFrames(int64(first)*int64(g.SegmentSize), ws); err != nil {
			return err
		}
	}
	return nil
}

func (f *fill) together(n int, do func(i int) error) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f.must(do(i)) })
	}
	wg.Wait()
}

// watch samples what waits in memory until stop is closed.
func (f *fill) watch(stop chan struct{}) {
	for {
		f.eng.applier.mu.Lock()
		f.most = max(f.most, f.eng.applier.bytes, int(f.eng.applier.lent.Load()))
		f.eng.applier.mu.Unlock()
		select {
		case <-stop:
			return
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// A write that fails halfway makes the host file longer than anything says. Its length is right again after the next commit.
func TestShortWriteLength(t *testing.T) {
	for _, cut := range []bool{false, true} {
		f := &fill{logRig: newLogRig(t, geometries[0])}
		c := f.file(0, 2)
		f.disk.SetFault(func(call disktest.Call) error {
			if call.Op == "write" && call.Len > BlockSize {
				return &disktest.Short{Keep: 5 * BlockSize, Err: unix.ENOSPC}
			}
			return nil
		})
		if err := f.write(c, 2, 4); !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		f.disk.SetFault(nil)
		if cut {
			f.must(c.SetSize(c.Size() - 100))
		} else {
			f.must(f.write(c, 1, 1))
		}
		f.must(c.Sync())
		f.must(c.drain())
		var st unix.Stat_t
		f.must(c.Host().Stat(&st))
		if want := c.Geometry().HostLength(c.Size()); st.Size != want {
			t.Errorf("cut %v: the host file has %d bytes, not %d", cut, st.Size, want)
		}
		f.must(c.Close())
		f.must(f.eng.Close(true))
	}
}

// An exchange ends also where the host has no room for more than one piece of the journal, and a writer waits for that of the intent.
func TestExchangeEndsOnFullHost(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	c, a := f.file(0, 256), f.eng.applier
	f.disk.SetFault(func(call disktest.Call) error {
		if call.Op == "create" {
			return unix.ENOSPC
		}
		return nil
	})
	over, err := a.intend((&redo.Exchange{ID: 1, Steps: []redo.Step{{Old: "a", New: "b"}}}).Append(nil))
	f.must(err)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range 400 { // more than a piece holds
			f.must(f.write(c, 0, 4))
			f.must(c.Flush())
		}
	}()
	select {
	case <-written:
		t.Fatal("no writer waits for room")
	case <-time.After(time.Second):
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		over(nil)
		<-written
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the exchange waits for the writer, and the writer for the exchange")
	}
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

// The journal filled in every way: nothing waits for ever, and what waits in memory is bounded.
func TestFill(t *testing.T) {
	const writers = 8
	// A writer that was let in may bring one call of WriteFrames and its blocks.
	const bound = MostWaiting + writers*(4<<20+maxUnlogged)
	ways := map[string]func(f *fill){
		"one file": func(f *fill) {
			c := f.file(0, 1600)
			for range 2 {
				f.must(f.write(c, 0, 1600)) // 100 MiB without a sync
			}
			f.must(c.Sync())
			f.must(c.Close())
		},
		"one frame": func(f *fill) {
			c := f.file(0, 2)
			for range 6000 { // about 100 MiB of log
				f.must(f.write(c, 1, 1))
				f.must(c.Flush())
			}
			f.must(c.Close())
		},
		"many files": func(f *fill) {
			files := make([]*File, 700) // more than applyFiles
			for i := range files {
				files[i] = f.file(i, 2)
			}
			for range 2 {
				for _, c := range files {
					f.must(f.write(c, 0, 1))
					f.must(c.Flush())
				}
			}
			for _, c := range files {
				f.must(c.Sync())
				f.must(c.Close())
			}
		},
		"fsync storm": func(f *fill) {
			f.together(writers, func(i int) error {
				c := f.file(i, 40)
				for range 150 {
					err := f.write(c, rand.IntN(30), 1+rand.IntN(9))
					if err == nil {
						err = c.Sync()
					}
					if err != nil {
						return err
					}
				}
				return c.Close()
			})
		},
		"one file, many writers": func(f *fill) {
			c := f.file(0, 100)
			f.together(writers, func(int) error {
				for range 100 {
					err := f.write(c, rand.IntN(80), 1+rand.IntN(9))
					if err == nil && rand.IntN(3) == 0 {
						err = c.Sync()
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
			f.must(c.Close())
		},
		"checkpoints, closes, unlinks": func(f *fill) {
			f.together(writers, func(i int) error {
				for n := range 10 { // about 100 MiB of log
					c := f.file(i*1000+n, 30)
					for range 10 {
						if err := f.write(c, rand.IntN(20), 9); err != nil {
							return err
						}
						if err := c.Flush(); err != nil {
							return err
						}
					}
					switch rand.IntN(4) {
					case 0:
						if err := f.root.Unlink(fmt.Sprint("file", i*1000+n)); err != nil {
							return err
						}
						c.Abandon()
					case 1:
						if err := f.eng.Checkpoint(); err != nil {
							return err
						}
					case 2:
						if err := c.SetSize(rand.Int64N(c.Size())); err != nil {
							return err
						}
					}
					if err := c.Close(); err != nil {
						return err
					}
				}
				return nil
			})
		},
		"many files, not logged": func(f *fill) {
			files := make([]*File, 200)
			for i := range files {
				files[i] = f.file(i, 40)
			}
			f.must(f.eng.Checkpoint())
			for _, c := range files {
				f.must(f.write(c, 0, 40)) // less than maxUnlogged each, 125 MiB in all
			}
			for _, c := range files {
				f.must(c.Close())
			}
		},
		"holes": func(f *fill) {
			c := f.file(0, 1600)
			g := int64(c.Geometry().SegmentSize)
			for range 3 {
				for at := int64(0); at < 1600*g; at += 2 * g {
					f.must(c.Discard(at, g))
				}
				f.must(c.SetSize(100 * g))
				f.must(f.write(c, 0, 1600))
				f.must(c.Sync())
			}
			f.must(c.Close())
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			f := &fill{logRig: newLogRig(t, geometries[0])}
			stop, ended, watched := make(chan struct{}), make(chan struct{}), make(chan struct{})
			go func() { f.watch(stop); close(watched) }()
			go func() { way(f); f.must(f.eng.Close(true)); close(ended) }()
			select {
			case <-ended:
			case <-time.After(10 * time.Minute):
				buf := make([]byte, 1<<20)
				t.Fatalf("it hangs:\n%s", buf[:runtime.Stack(buf, true)])
			}
			close(stop)
			<-watched
			if left := f.eng.pool.lent.Load(); left != 0 {
				t.Errorf("%d bytes of buffers are still lent", left)
			}
			if f.most == 0 || f.most > bound {
				t.Errorf("%d bytes waited in memory, at most %d may", f.most, bound)
			}
			t.Logf("%d KiB waited at most", f.most>>10)
		})
	}
}

// The journal has its room before new data takes the last that the host has, also where nothing was flushed as yet: what is stored can be changed then.
func TestJournalBeforeData(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	f.must(f.file(0, 3).Close())
	f.must(f.eng.Close(true))
	f.eng = f.engine(geometries[0])
	h, err := f.root.Open("file0", disk.ReadWrite)
	f.must(err)
	stored, err := f.eng.Open(h, testID(1), OpenOptions{TrustLength: true})
	f.must(err)
	h, err = f.root.Create("file1", 0o600)
	f.must(err)
	filler, err := f.eng.Create(h, testID(2), ObjectFile)
	f.must(err)
	f.disk.SetSpace(16 << 20)
	if err := f.write(filler, 0, 1600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the host is not full: %v", err)
	}
	f.must(f.write(stored, 1, 1))
	f.must(stored.Sync())
	f.must(stored.SetSize(1000))
	f.must(stored.Sync())
	f.must(stored.Close())
	f.must(f.root.Unlink("file1"))
	filler.Abandon()
	f.must(filler.Close())
	f.must(f.eng.Close(true))
}

// One image that waits keeps the buffer of all that were sealed with it: what is overwritten bit by bit takes no more memory than what is written once.
func TestBuffersOfImages(t *testing.T) {
	const regions, segments = 16, ioUnit >> 16
	f := &fill{logRig: newLogRig(t, geometries[8])}
	f.must(f.eng.Close(true))
	f.journal = journal.DefaultSize // else its room is the bound
	f.eng = f.engine(geometries[8])
	c := f.file(0, regions*segments)
	frames := make([][]byte, c.Geometry().Frames)
	for i := range frames {
		frames[i] = make([]byte, c.Geometry().FrameSize)
	}
	for r := range regions {
		for first := range segments * len(frames) { // each time one frame less: 130 MiB of buffers for 4 MiB
			var ws []SegmentWrite
			for s := range segments {
				if from := max(0, first-s*len(frames)); from < len(frames) {
					ws = append(ws, SegmentWrite{Segment: uint64(r*segments + s), Frames: frames, Dirty: (1<<len(frames) - 1) &^ (1<<from - 1)})
				}
			}
			f.must(c.WriteFrames(0, ws))
			f.must(c.Flush())
			f.most = max(f.most, int(f.eng.pool.lent.Load()))
		}
	}
	if f.most < ioUnit || f.most > MostWaiting+ioUnit {
		t.Errorf("%d bytes of buffers, at most %d may be", f.most, MostWaiting+ioUnit)
	}
	t.Logf("%d KiB of buffers at most", f.most>>10)
	f.must(c.Close())
	f.must(f.eng.Close(true))
	if left := f.eng.pool.lent.Load(); left != 0 {
		t.Errorf("%d bytes of buffers are still lent", left)
	}
}

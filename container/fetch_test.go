package container

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// fetching notes what its host was asked for in advance, and what was read.
type fetching struct {
	disk.File
	mu    sync.Mutex // guards calls while a read is under way
	calls [][2]int64 // offset and length; of reads, length 0
}

func (f *fetching) note(off, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, [2]int64{off, n})
}

func (f *fetching) Fetch(off, n int64) { f.note(off, n) }

func (f *fetching) ReadAt(p []byte, off int64) (int, error) {
	f.note(off, 0)
	return f.File.ReadAt(p, off)
}

// rigFetching makes a file of so many bytes and opens it anew on a host that notes its calls.
func rigFetching(t *testing.T, size int64) (*rig, *File, *fetching) {
	t.Helper()
	g, err := GeometryFor(64<<10, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, g, suite.XAES256GCM, CRC32C)
	f, name := r.create()
	r.must(write(f, random(int(size)), 0))
	r.must(f.Flush())
	r.must(f.Close())
	h, err := r.dir.Open(name, disk.ReadWrite)
	r.must(err)
	host := &fetching{File: h}
	f, err = r.eng.Open(host, testID(r.n), OpenOptions{TrustLength: true})
	r.must(err)
	return r, f, host
}

// fetched is the ranges that the host was asked for, those that touch joined.
func (f *fetching) fetched() (all [][2]int64) {
	for _, c := range f.calls {
		if n := len(all); c[1] > 0 && n > 0 && all[n-1][1] == c[0] {
			all[n-1][1] += c[1]
		} else if c[1] > 0 {
			all = append(all, [2]int64{c[0], c[0] + c[1]})
		}
	}
	return all
}

// TestStreamIsFetchedAhead: of a stream of large reads, in about their order, the host is asked for each byte once, meta blocks included, and before it is
// read. Large reads elsewhere and small ones are asked for alone.
func TestStreamIsFetchedAhead(t *testing.T) {
	const part = 1 << 20
	r, f, host := rigFetching(t, 16*part)
	g := f.Geometry()
	read := func(part, n int64) {
		t.Helper()
		host.calls = nil
		r.must(f.ReadAt(make([]byte, n), part))
	}
	end := g.hostOffset(fetchAhead - 1)
	for _, k := range []int64{0, 1, 3, 2, 4} { // two may be under way in any order
		read(k*part, part)
		if len(host.calls) == 0 || host.calls[0][1] == 0 && k != 2 {
			t.Fatalf("part %d was read before the host was asked for what follows", k)
		}
		got := host.fetched()
		if k == 0 && (len(got) != 1 || got[0][0] != g.groupAddr(0)) || len(got) > 1 {
			t.Fatalf("part %d: host asked for %v", k, got)
		}
		for _, b := range got {
			if k > 0 && b[0] != end {
				t.Errorf("part %d: host asked from %d on, want %d", k, b[0], end)
			}
			end = b[1]
		}
		if want := g.hostOffset((k+1)*part+fetchAhead-1) + 1; k != 2 && end != want {
			t.Errorf("part %d: host asked up to %d, want %d", k, end, want)
		}
	}
	read(12*part, part)
	for _, b := range host.fetched() {
		if b[0] < g.hostOffset(12*part) || b[1] > g.hostOffset(13*part-1)+1 {
			t.Errorf("large read elsewhere: host asked for %v", b)
		}
	}
	read(part, part)
	read(0, part)
	if got := host.fetched(); len(got) != 1 || got[0] != [2]int64{g.groupAddr(0), g.hostOffset(part+fetchAhead-1) + 1} {
		t.Errorf("from the beginning again: host asked for %v", got)
	}
	read(9*part, streamMin-1)
	if got := host.fetched(); len(got) != 1 || got[0][1] > g.hostOffset(9*part+streamMin) {
		t.Errorf("small read: host asked for %v", got)
	}
}

// TestStreamsBesideEachOther: as many streams of one file as are told apart are each fetched ahead, and each byte once.
func TestStreamsBesideEachOther(t *testing.T) {
	const part, apart = 512 << 10, 8 << 20
	r, f, host := rigFetching(t, maxStreams*apart)
	g := f.Geometry()
	ends := make([]int64, maxStreams)
	for k := range int64(4) {
		for i := range ends {
			off := int64(i)*apart + k*part
			host.calls = nil
			r.must(f.ReadAt(make([]byte, part), off))
			got := host.fetched()
			end := g.hostOffset(off+part+fetchAhead-1) + 1
			if k > 1 && !slices.Equal(got, [][2]int64{{ends[i], end}}) {
				t.Errorf("stream %d, part %d: host asked for %v, want [%d %d]", i, k, got, ends[i], end)
			}
			ends[i] = end
		}
	}
	r.must(f.Close())
}

// TestSlotsAreFetchedBeforeTheirBlock: the first read by a meta block asks the host for the slots before it waits for the block; later ones do not, and no group is
// asked for beyond its end.
func TestSlotsAreFetchedBeforeTheirBlock(t *testing.T) {
	r, f, host := rigFetching(t, 3*4*64<<10)
	g := f.Geometry()
	F := int64(g.FrameSize)
	at := g.groupPlain + 5*F
	for _, c := range []struct {
		off, n int64
		want   [][2]int64
	}{
		{at + 1, F, [][2]int64{{g.hostOffset(at), F + 1}, {g.groupAddr(1), 0}, {g.hostOffset(at), 0}}},
		{at, F, [][2]int64{{g.hostOffset(at), 0}}},
		{2*g.groupPlain - F, 2 * F, [][2]int64{{g.hostOffset(2 * g.groupPlain), F}, {g.groupAddr(2), 0}}},
	} {
		host.calls = nil
		r.must(f.ReadAt(make([]byte, c.n), c.off))
		if len(host.calls) < len(c.want) || !slices.Equal(host.calls[:len(c.want)], c.want) {
			t.Errorf("read of %d at %d: %v, want %v first", c.n, c.off, host.calls, c.want)
		}
	}
	r.must(f.Close())
}

// overwrite writes a whole frame at each of the offsets, which ascend and lie in segments of their own, in one go, and reads none.
func overwrite(f *File, offs ...int64) error {
	g := f.Geometry()
	var ws []SegmentWrite
	size := f.Size()
	for _, off := range offs {
		w := SegmentWrite{Segment: g.segmentOf(off), Frames: make([][]byte, g.Frames), Dirty: 1 << g.frameOf(off)}
		w.Frames[g.frameOf(off)] = random(g.FrameSize)
		ws = append(ws, w)
		size = max(size, off+int64(g.FrameSize))
	}
	return f.WriteFrames(size, ws)
}

// TestWritesFetchTheirBlocks: the host is asked for all meta blocks that a write changes before the first is waited for, but for those in memory and where there is one alone, which
// is read at once. What is new has none.
func TestWritesFetchTheirBlocks(t *testing.T) {
	r, f, host := rigFetching(t, 40*4*64<<10)
	g := f.Geometry()
	group := func(j int64) int64 { return j * g.groupPlain }
	asked := func(j uint64) [2]int64 { return [2]int64{g.groupAddr(j), BlockSize} }
	read := func(j uint64) [2]int64 { return [2]int64{g.groupAddr(j), 0} }
	node := func(level uint8) [2]int64 { return [2]int64{g.nodeAddr(level, 0), 0} }
	for _, c := range []struct {
		offs []int64
		want [][2]int64
	}{
		{[]int64{group(20) + 65<<10}, [][2]int64{read(20)}},
		{
			[]int64{group(3), group(20), group(24), group(24) + 128<<10, group(39)},
			[][2]int64{asked(3), asked(24), asked(39), read(3), read(24), node(3), node(2), node(1), read(39)},
		},
		{[]int64{group(3), group(24)}, nil},
		{[]int64{group(24), group(40), group(41)}, nil},
	} {
		host.calls = nil
		r.must(overwrite(f, c.offs...))
		if !slices.Equal(host.calls, c.want) {
			t.Errorf("write at %d: %v, want %v", c.offs, host.calls, c.want)
		}
	}
	r.must(f.Close())
}

// holding is a host whose reads at one place wait until they are let go.
type holding struct {
	disk.File
	at      int64
	reached chan struct{}
	free    chan struct{}
}

func (h *holding) ReadAt(p []byte, off int64) (int, error) {
	if off == h.at {
		h.reached <- struct{}{}
		<-h.free
	}
	return h.File.ReadAt(p, off)
}

// TestBlocksAreLoadedBesideEachOther: who waits for the host's copy of one meta block holds up nobody who needs another one, and those who need the same one have it
// read once.
func TestBlocksAreLoadedBesideEachOther(t *testing.T) {
	const groups = 8
	r, f, host := rigFetching(t, groups*4*64<<10)
	g := f.Geometry()
	held := &holding{File: host, at: g.groupAddr(1), reached: make(chan struct{}, groups), free: make(chan struct{})}
	f.host = held
	read := func(group int64) error { return f.ReadAt(make([]byte, g.FrameSize), group*g.groupPlain) }
	waiting := make(chan error, 2)
	go func() { waiting <- read(1) }()
	<-held.reached
	go func() { waiting <- read(1) }()
	others := make(chan error, 1)
	go func() {
		var errs []error
		for group := int64(2); group < groups; group++ {
			errs = append(errs, read(group))
		}
		others <- errors.Join(errs...)
	}()
	select {
	case err := <-others:
		r.must(err)
	case <-time.After(time.Minute):
		t.Error("reads by other blocks wait for the one that is being loaded")
	}
	close(held.free)
	r.must(<-waiting)
	r.must(<-waiting)
	if n := len(held.reached); n > 0 {
		t.Errorf("the block was read %d times more than once", n)
	}
	r.must(f.Close())
}

package container

import (
	"bytes"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// starting notes where its host was written, and what it was asked to bring to the disk.
type starting struct {
	disk.File
	wrote   []int64
	mu      sync.Mutex // guards started, by those who ask
	started [][2]int64 // from, to
	asked   chan struct{}
}

func (s *starting) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	s.wrote = append(s.wrote, off)
	s.mu.Unlock()
	return s.File.WriteAt(p, off)
}

func (s *starting) Start(off, n int64) {
	s.mu.Lock()
	s.started = append(s.started, [2]int64{off, off + n})
	s.mu.Unlock()
	s.asked <- struct{}{}
}

// rigStarting makes a new file on a host that notes its calls.
func rigStarting(t *testing.T) (*rig, *File, *starting) {
	t.Helper()
	g, err := GeometryFor(64<<10, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, g, suite.XAES256GCM, CRC32C)
	h, err := r.dir.Create("early", 0o600)
	r.must(err)
	host := &starting{File: h, asked: make(chan struct{}, 100)}
	f, err := r.eng.Create(host, testID(99), ObjectFile)
	r.must(err)
	return r, f, host
}

// TestDiskBeginsEarly: of a long write, in about its order, the host is asked for each byte once, a little behind; of a short one, or of one that leaves most
// of its range out, for nothing.
func TestDiskBeginsEarly(t *testing.T) {
	const part = 1 << 20
	r, f, host := rigStarting(t)
	p := random(part)
	for k := range int64(40) {
		r.must(write(f, p, (k^1)*part)) // two at a time in the wrong order
		if k+1 < earlyFirst/part && len(host.started) > 0 {
			t.Fatalf("asked after %d bytes", (k+1)*part)
		}
		for f.early.busy.Load() {
			<-host.asked
		}
	}
	if len(host.started) != 4 {
		t.Fatalf("asked for %v", host.started)
	}
	g := f.Geometry()
	for i, s := range host.started {
		switch {
		case i == 0 && s[0] != g.groupAddr(0), i > 0 && s[0] != host.started[i-1][1]:
			t.Errorf("asked from %d on, in %v", s[0], host.started)
		case s[1] > g.hostOffset(f.Size()-1), i == 3 && s[1] < g.hostOffset(f.Size()-earlyNext-earlyLag):
			t.Errorf("asked up to %d of %d", s[1], g.hostOffset(f.Size()-1))
		}
	}
	r.must(f.Close())

	_, f, host = rigStarting(t)
	for k := range int64(40) {
		r.must(write(f, p, 4*k*part))
	}
	if f.early.busy.Load() || len(host.started) > 0 {
		t.Errorf("asked for %v of a file that is written here and there", host.started)
	}
	r.must(f.Close())
}

// TestFullGroupsArePlaced: the meta block of a group that is full is written at once, and by the flush only where it has changed since.
func TestFullGroupsArePlaced(t *testing.T) {
	r, f, host := rigStarting(t)
	g := f.Geometry()
	p := random(3*int(g.groupPlain) + g.FrameSize)
	r.must(write(f, p, 0))
	for group := range uint64(4) {
		if got, want := slices.Contains(host.wrote, g.groupAddr(group)), group < 3; got != want {
			t.Errorf("meta block of group %d is written: %v, want %v", group, got, want)
		}
	}
	copy(p[g.groupPlain:], random(g.FrameSize))
	r.must(write(f, p[g.groupPlain:][:g.FrameSize], g.groupPlain))
	r.must(f.Flush())
	for group, want := range []int{1, 2, 1, 1} {
		n := 0
		for _, off := range host.wrote {
			if off == g.groupAddr(uint64(group)) {
				n++
			}
		}
		if n != want {
			t.Errorf("meta block of group %d was written %d times, want %d", group, n, want)
		}
	}
	r.must(f.Close())
	h, err := r.dir.Open("early", disk.ReadWrite)
	r.must(err)
	f, err = r.eng.Open(h, testID(99), OpenOptions{TrustLength: true})
	r.must(err)
	got := make([]byte, len(p))
	r.must(f.ReadAt(got, 0))
	if !bytes.Equal(got, p) {
		t.Errorf("contents differ at %d", firstDiff(got, p))
	}
	r.must(f.Close())
}

// full has no room for what is to be written at one place, once.
type full struct {
	disk.File
	at int64
}

func (h *full) WriteAt(p []byte, off int64) (int, error) {
	if off == h.at {
		h.at = -1
		return 0, unix.ENOSPC
	}
	return h.File.WriteAt(p, off)
}

// Where the host has no room for the meta block of a group that became full, the frames of it stand in their places: they need not come again, and so not
// by the journal.
func TestFullGroupWithoutRoom(t *testing.T) {
	g := geometries[8]
	f := &fill{logRig: newLogRig(t, g)}
	h, err := f.root.Create("f", 0o600)
	f.must(err)
	host := &full{File: h, at: g.groupAddr(1)}
	c, err := f.eng.Create(host, testID(1), ObjectFile)
	f.must(err)
	f.must(f.write(c, 0, 4*g.perGroup))
	if host.at != -1 {
		t.Fatal("nothing failed")
	}
	f.must(c.Sync())
	if logged := int64(f.eng.applier.log.Load().End()); logged > g.groupPlain {
		t.Errorf("%d bytes went through the journal for a new file of %d", logged, 4*g.groupPlain)
	}
	got := make([]byte, c.Size())
	f.must(c.ReadAt(got, 0))
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

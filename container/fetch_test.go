package container

import (
	"slices"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// fetching notes what its host was asked for in advance, and what was read.
type fetching struct {
	disk.File
	calls [][2]int64 // offset and length; of reads, length 0
}

func (f *fetching) Fetch(off, n int64) { f.calls = append(f.calls, [2]int64{off, n}) }

func (f *fetching) ReadAt(p []byte, off int64) (int, error) {
	f.calls = append(f.calls, [2]int64{off, 0})
	return f.File.ReadAt(p, off)
}

// TestSlotsAreFetchedBeforeTheirBlock: the first read by a meta block asks the host for the slots before it waits for the block; later ones do not, and no group is
// asked for beyond its end.
func TestSlotsAreFetchedBeforeTheirBlock(t *testing.T) {
	g, err := GeometryFor(64<<10, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, g, suite.XAES256GCM, CRC32C)
	f, name := r.create()
	r.must(write(f, random(3*int(g.groupPlain)), 0))
	r.must(f.Flush())
	r.must(f.Close())
	h, err := r.dir.Open(name, false)
	r.must(err)
	host := &fetching{File: h}
	f, err = r.eng.Open(host, testID(r.n), OpenOptions{TrustLength: true})
	r.must(err)
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

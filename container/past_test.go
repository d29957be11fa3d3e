package container

import (
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
)

// pastHost writes past memory as far as it is let, and notes what.
type pastHost struct {
	disk.File
	rows  [][2]int64 // offset, bytes
	slice int        // of each row it writes only so many slices, where not 0, and says that it cannot
}

func (h *pastHost) WritePast(bufs [][]byte, off int64) bool {
	n := int64(0)
	for i, b := range bufs {
		if h.slice > 0 && i == h.slice {
			break
		}
		if _, err := h.WriteAt(b, off+n); err != nil {
			return false
		}
		n += int64(len(b))
	}
	h.rows = append(h.rows, [2]int64{off, n})
	return h.slice == 0
}

// What is overwritten in long rows goes past the host's memory, meta blocks and all, and by WriteAt where the host cannot do that, or did half of it; little goes by
// WriteAt alone.
func TestApplyPast(t *testing.T) {
	g := geometries[0]
	f := &fill{logRig: newLogRig(t, g)}
	h, err := f.root.Create("f", 0o600)
	f.must(err)
	host := &pastHost{File: h}
	c, err := f.eng.Create(host, testID(1), ObjectFile)
	f.must(err)
	const segments = 160
	rewrite := func(n int) (past int64) {
		t.Helper()
		host.rows = nil
		f.must(f.write(c, 0, n))
		f.must(c.Sync())
		f.must(f.eng.Checkpoint())
		f.must(c.ReadAt(make([]byte, n*g.SegmentSize), 0)) // what is stale does not open
		for _, r := range host.rows {
			past += r[1]
			if r[0]%BlockSize != 0 || r[1] > pastMost || host.slice == 0 && r[1] < pastMin {
				t.Errorf("a row of %d bytes at %d", r[1], r[0])
			}
		}
		return past
	}
	if n := rewrite(segments); n != 0 {
		t.Errorf("%d new bytes were written past memory", n)
	}
	if n, all := rewrite(segments), int64(segments*g.SegmentSize); n < all*3/4 || n > all*5/4 {
		t.Errorf("of %d bytes that were overwritten %d went past memory", all, n)
	}
	host.slice = 1
	if n := rewrite(segments); n == 0 || n > segments*int64(g.SegmentSize)/2 {
		t.Errorf("%d bytes by half calls", n)
	}
	host.slice = 0
	if n := rewrite(8); n != 0 {
		t.Errorf("%d bytes of few were written past memory", n)
	}
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

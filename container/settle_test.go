package container

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// settling notes what it was asked to bring to the disk, and whether the sync came after that.
type settling struct {
	disk.File
	settled [][2]int64 // from, to
	err     error
}

func (h *settling) Settle(off, n int64) error {
	h.settled = append(h.settled, [2]int64{off, off + n})
	return h.err
}

// A checkpoint has the host write what was applied here and there in small steps, each place once, before it syncs; of little it asks for nothing. Where the host
// could not write some of it no sync would say so again: nothing is accepted any more.
func TestCheckpointSettles(t *testing.T) {
	g := geometries[0]
	f := &fill{logRig: newLogRig(t, g)}
	h, err := f.root.Create("f", 0o600)
	f.must(err)
	host := &settling{File: h}
	c, err := f.eng.Create(host, testID(1), ObjectFile)
	f.must(err)
	const frames = 4 * settleWrites
	f.must(f.write(c, 0, frames))
	f.must(c.Sync())
	f.must(f.eng.Checkpoint())
	f.must(f.write(c, 5, 1))
	f.must(c.Sync())
	f.must(f.eng.Checkpoint())
	if len(host.settled) > 0 {
		t.Fatalf("asked for %v of a file with one frame changed", host.settled)
	}

	scatter := func() {
		for i := 0; i < frames; i += 2 {
			f.must(f.write(c, i, 1))
			f.must(c.Flush())
		}
	}
	scatter()
	f.must(f.eng.Checkpoint())
	end := g.slotAddr(frames-2, g.Frames-1) + int64(g.FrameSize)
	n := len(host.settled)
	if n < 2 || n > frames/settleWrites || host.settled[0][0] != 0 || host.settled[n-1][1] < end {
		t.Fatalf("asked for %v of a file that was changed up to %d", host.settled, end)
	}
	for i, s := range host.settled[1:] {
		if s[0] != host.settled[i][1] || s[1] <= s[0] {
			t.Errorf("asked for %v", host.settled)
		}
	}

	host.err = unix.ENOSPC
	scatter()
	if err := f.eng.Checkpoint(); !errors.Is(err, unix.ENOSPC) || f.eng.applier.failed() == nil {
		t.Errorf("a block that the host could not write: %v, sticky %v", err, f.eng.applier.failed())
	}
	if err := f.write(c, 0, 1); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a write after that: %v", err)
	}
	_ = c.Close()
	_ = f.eng.Close(false)
}

// One block that was applied a very great many times has less bytes than steps.
func TestSettleOneBlock(t *testing.T) {
	host := &settling{}
	f := &File{host: host, unsettled: unsettled{from: 0, to: BlockSize, writes: 2 * BlockSize * settleWrites}}
	if err := f.settle(); err != nil || len(host.settled) != 1 || host.settled[0] != [2]int64{0, BlockSize} {
		t.Errorf("asked for %v, %v", host.settled, err)
	}
}

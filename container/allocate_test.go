package container

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/suite"
)

// What was set aside is what is written to: the host takes no more blocks for it, in the first group and behind tree nodes.
func TestAllocate(t *testing.T) {
	for _, id := range []uint8{1, 8, 9} {
		g, _ := GeometryByID(id)
		t.Run(g.String(), func(t *testing.T) {
			r := newRig(t, g, suite.XAES256GCM, DefaultDigest)
			for _, off := range []int64{0, 3*int64(g.FrameSize) + 100, (headerGroups+nodeFanout)*g.groupPlain - 100} {
				f, _ := r.create()
				n := int64(10*g.FrameSize) + 7
				err := f.Allocate(off, n)
				if errors.Is(err, unix.EOPNOTSUPP) {
					t.Skip("the host reserves nothing")
				}
				r.must(err)
				if f.Size() != 0 {
					t.Errorf("size %d", f.Size())
				}
				var before, after unix.Stat_t
				r.must(f.Host().Stat(&before))
				r.must(write(f, make([]byte, n), off))
				r.must(f.Flush())
				r.must(f.Host().Stat(&after))
				// ext4 may need a block for its own map of the file.
				if before.Blocks < n/512 || after.Blocks > before.Blocks+BlockSize/512 {
					t.Errorf("at %d: %d blocks set aside, %d after the write", off, before.Blocks, after.Blocks)
				}
				r.must(f.Close())
			}
			f, _ := r.create()
			if err := f.Allocate(g.MaxSize()-10, 20); !errors.Is(err, ErrTooLarge) {
				t.Errorf("beyond the largest file: %v", err)
			}
			r.must(f.Allocate(100, 0))
			r.must(f.Close())
			if err := f.Allocate(0, 10); !errors.Is(err, ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		})
	}
}

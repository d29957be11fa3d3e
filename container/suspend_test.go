package container

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// A checkpoint that is asked for while the journal is being suspended, by an open that found no descriptor, finds nothing left to do. It does not take the journal
// for one that failed, nor the next one for the last.
func TestCheckpointWhileSuspending(t *testing.T) {
	f, slow := newSlowFill(t)
	c := f.file(0, 3)
	f.must(c.drain())
	_, err := c.NoteTime(unix.Timespec{Sec: 7}) // which nobody synced
	f.must(err)

	suspended, checked := make(chan error, 1), make(chan error, 1)
	go func() { suspended <- f.eng.Suspend() }()
	<-slow.begun
	a := f.eng.applier
	a.mu.Lock()
	a.anywhere = true
	a.mu.Unlock()
	go func() { checked <- f.eng.Checkpoint() }()
	select {
	case <-slow.begun:
		t.Error("a checkpoint begins during the suspension")
	case <-time.After(20 * time.Millisecond):
	}
	for range cap(slow.let) {
		slow.let <- struct{}{}
	}
	f.must(<-suspended)
	f.must(<-checked)
	f.must(f.eng.Resume([16]byte{3}))
	f.must(f.write(c, 1, 1))
	f.must(c.Sync())
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

// A file that an unclean session left without parts, or without its header, may be read while the journal is suspended: nothing on the host changes for that, and
// afterwards it is made whole as ever.
func TestSalvageSuspended(t *testing.T) {
	g := geometries[0]
	for _, lost := range []int64{-1, 0, g.slotAddr(0, 1)} { // nothing, the header, a frame
		for _, used := range []bool{false, true} { // whether the journal was before
			t.Run(fmt.Sprintf("%d used %v", lost, used), func(t *testing.T) {
				f := &fill{logRig: newLogRig(t, g)}
				h, err := f.root.Create("f", 0o600)
				f.must(err)
				c, err := f.eng.Create(h, testID(9), ObjectFile)
				f.must(err)
				f.must(f.write(c, 0, 2))
				f.must(c.Flush())
				if lost >= 0 {
					_, err = h.WriteAt(make([]byte, BlockSize), lost)
					f.must(err)
				}
				f.must(c.Close())
				f.must(f.eng.Close(true))
				f.eng = f.engine(g)
				if used {
					f.must(f.file(0, 3).Close())
				}

				f.must(f.eng.Suspend())
				var changes []string
				f.disk.SetTrace(func(op, _ string, _ int64, _ int) {
					if !slices.Contains([]string{"open", "stat", "read", "fdatasync"}, op) {
						changes = append(changes, op)
					}
				})
				f.must(f.salvaged(OpenOptions{MayLackHeader: true}).Close())
				c = f.salvaged(OpenOptions{MayLackHeader: true})
				f.must(c.Flush()) // of what nobody changed
				if f.disk.SetTrace(nil); len(changes) > 0 {
					t.Errorf("a frozen host is asked for %v", changes)
				}
				before := make([]byte, c.Size())
				f.must(c.ReadAt(before, 0))

				f.must(f.eng.Resume([16]byte{3}))
				f.must(f.write(c, 2, 1))
				f.must(c.Sync())
				f.must(c.Close())
				f.must(f.eng.Close(true))
				f.eng = f.engine(g)
				c = f.salvaged(OpenOptions{})
				after := make([]byte, c.Size())
				f.must(c.ReadAt(after, 0))
				if len(after) != 3*g.SegmentSize || !slices.Equal(after[:len(before)], before) {
					t.Errorf("%d bytes, or they begin otherwise", len(after))
				}
				f.must(c.Close())
				f.must(f.eng.Close(true))
			})
		}
	}
}

func (f *fill) salvaged(opt OpenOptions) *File {
	f.t.Helper()
	h, err := f.root.Open("f", disk.ReadWrite)
	f.must(err)
	c, err := f.eng.Open(h, testID(9), opt)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

package container

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// A file whose data is in its header gets too long for that. Where the host has no room for it, what it held is still there, in memory and on the host,
// and the next try that finds room works.
func TestInlineKept(t *testing.T) {
	old := []byte("what the file held")
	for _, far := range []bool{false, true} {
		for _, first := range []bool{false, true} { // frame 0 is among what is written
			f := &fill{logRig: newLogRig(t, geometries[0])}
			h, err := f.root.Create("f", 0o600)
			f.must(err)
			c, err := f.eng.Create(h, testID(1), ObjectFile)
			f.must(err)
			plain := append(bytes.Clone(old), make([]byte, 200_000)...)
			f.must(c.WriteFrames(int64(len(old)), segmentWrites(c.geo, plain, 0, 1)))
			f.must(c.Sync())

			at := int64(9000)
			if far {
				at = 190_000
			}
			plain[at] = 'x'
			ws := segmentWrites(c.geo, plain, at, 1)
			if first {
				plain[0] = 'W'
				if ws[0].Segment == 0 {
					ws = segmentWrites(c.geo, plain, 0, at+1)
				} else {
					ws = append(segmentWrites(c.geo, plain, 0, 1), ws...)
				}
			}
			f.disk.SetFault(func(call disktest.Call) error {
				if call.Op == "write" && call.Name == "f" && call.Off > 0 {
					return unix.ENOSPC
				}
				return nil
			})
			if err := c.WriteFrames(at+1, ws); !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			f.disk.SetFault(nil)
			holds := func(why string, want []byte) {
				t.Helper()
				got := make([]byte, len(want))
				if err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
					t.Errorf("far %v, first %v, %s: %.20q, %v", far, first, why, got, err)
				}
			}
			holds("after the failure", old)
			f.must(c.Sync())
			f.must(c.Close())
			h, err = f.root.Open("f", disk.ReadWrite)
			f.must(err)
			c, err = f.eng.Open(h, testID(1), OpenOptions{TrustLength: true})
			f.must(err)
			holds("opened again", old)
			f.must(c.WriteFrames(at+1, ws))
			holds("with room", plain[:at+1])
			f.must(c.Sync())
			f.must(c.drain())
			holds("in its place", plain[:at+1])
			f.must(c.Close())
			f.must(f.eng.Close(true))
		}
	}
}

// Whoever reads while a file gets too long for its header finds what it held.
func TestInlineGrowsUnderReaders(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	old := []byte("what the file held")
	plain := append(bytes.Clone(old), make([]byte, 20_000)...)
	h, err := f.root.Create("f", 0o600)
	f.must(err)
	c, err := f.eng.Create(h, testID(1), ObjectFile)
	f.must(err)
	f.must(c.WriteFrames(int64(len(old)), segmentWrites(c.geo, plain, 0, 1)))
	f.must(c.Sync())
	looked := 0
	f.disk.SetFault(func(call disktest.Call) error {
		if call.Op != "write" || call.Name != "f" {
			return nil
		}
		looked++
		if looked > 1 || !c.slots.TryRLock() {
			return nil // whoever reads waits for the writer
		}
		c.slots.RUnlock()
		got := make([]byte, len(old))
		if err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, old) {
			t.Errorf("a reader found %q, %v", got, err)
		}
		return nil
	})
	f.must(c.WriteFrames(int64(len(plain)), segmentWrites(c.geo, plain, 9000, 1)))
	if looked == 0 {
		t.Error("nothing was written")
	}
	f.disk.SetFault(nil)
	f.must(c.Close())
	f.must(f.eng.Close(true))
}

// A write of several runs that fails after some of them, given up by its caller, leaves nothing that does not open: not at once, and not when the file gets
// longer later. It may have made the file longer.
func TestWriteGivenUp(t *testing.T) {
	for _, g := range []*Geometry{geometries[0], geometries[8]} {
		for fail, full := 0, true; full; fail++ {
			f := &fill{logRig: newLogRig(t, g)}
			c := f.file(0, 3)
			old := c.Size()
			plain := bytes.Repeat([]byte{7}, int(old+2*g.groupPlain+int64(40*g.FrameSize)))
			var ws []SegmentWrite
			for at := old; at < int64(len(plain)); at += 2 * int64(g.SegmentSize) {
				ws = append(ws, segmentWrites(g, plain, at, 1)...)
			}
			n := 0
			f.disk.SetFault(func(call disktest.Call) error {
				if call.Op == "write" && call.Name == "file0" && call.Off > BlockSize {
					if n++; n > fail {
						return unix.ENOSPC
					}
				}
				return nil
			})
			err := c.WriteFrames(int64(len(plain)), ws)
			if full = errors.Is(err, unix.ENOSPC); !full && (err != nil || fail < 2) {
				t.Fatal(err)
			}
			f.disk.SetFault(nil)
			f.must(c.Sync())
			f.must(c.Close())
			h, err := f.root.Open("file0", disk.ReadWrite)
			f.must(err)
			c, err = f.eng.Open(h, testID(1), OpenOptions{TrustLength: true})
			f.must(err)
			size := c.Size()
			if size < old || fail == 0 && size != old || full == (size == int64(len(plain))) {
				t.Errorf("%v, fault %d: it has %d bytes", g, fail, size)
			}
			f.must(c.SetSize(int64(len(plain))))
			got := make([]byte, len(plain))
			if err := c.ReadAt(got, 0); err != nil {
				t.Fatalf("%v, fault %d: %v", g, fail, err)
			}
			if i := bytes.IndexByte(got[size:], 7); i >= 0 {
				t.Errorf("%v, fault %d: data at %d, the file had %d bytes", g, fail, size+int64(i), size)
			}
			f.must(c.Sync())
			f.must(c.Close())
			f.must(f.eng.Close(true))
		}
	}
}

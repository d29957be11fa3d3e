package container

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
)

// rig is a host directory with an engine.
type rig struct {
	t    testing.TB
	path string
	dir  disk.Dir
	eng  *Engine
	ring *keys.Ring
	n    int
}

func newRig(t testing.TB, g *Geometry, s suite.ID, d DigestAlg) *rig {
	t.Helper()
	r := &rig{t: t, path: t.TempDir()}
	var err error
	if r.dir, err = disk.OpenRoot(r.path); err != nil {
		t.Fatal(err)
	}
	mk, err := keys.MasterKeyFrom(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	r.ring = keys.NewRing(mk, keys.VaultID{1, 2, 3})
	r.eng = r.engine(g, s, d)
	t.Cleanup(func() { r.dir.Close() })
	return r
}

func (r *rig) engine(g *Geometry, s suite.ID, d DigestAlg) *Engine {
	e, err := NewEngine(EngineConfig{
		Ring:   r.ring,
		Params: keys.FileParams{Suite: s, Digest: uint8(d), SegmentSize: uint32(g.SegmentSize), FrameSize: uint32(g.FrameSize)},
		// Small enough that blocks are evicted and read again.
		MetaBudget: 8 * BlockSize,
		Events:     func(e event.Event) { r.t.Logf("event: %+v", e) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func testID(n int) keys.ObjectID { return keys.ObjectID{0xc0, byte(n), byte(n >> 8)} }

func (r *rig) create() (*File, string) {
	r.t.Helper()
	r.n++
	name := fmt.Sprintf("f%d", r.n)
	h, err := r.dir.Create(name, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	f, err := r.eng.Create(h, testID(r.n), ObjectFile)
	if err != nil {
		r.t.Fatal(err)
	}
	return f, name
}

func (r *rig) open(name string) (*File, error) {
	r.t.Helper()
	h, err := r.dir.Open(name, disk.ReadWrite)
	if err != nil {
		r.t.Fatal(err)
	}
	var n int
	fmt.Sscanf(name, "f%d", &n)
	return r.eng.Open(h, testID(n), OpenOptions{TrustLength: true})
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// write does what a cache does: whole frames, the rest of partial ones read first.
func write(f *File, p []byte, off int64) error {
	g := f.Geometry()
	size := max(f.Size(), off+int64(len(p)))
	var ws []SegmentWrite
	for at := off &^ int64(g.FrameSize-1); at < off+int64(len(p)); at += int64(g.FrameSize) {
		frame := make([]byte, g.FrameSize)
		if err := f.ReadAt(frame, at); err != nil {
			return err
		}
		from, to := max(at, off), min(at+int64(g.FrameSize), off+int64(len(p)))
		copy(frame[from-at:], p[from-off:to-off])
		s := g.segmentOf(at)
		if n := len(ws); n == 0 || ws[n-1].Segment != s {
			ws = append(ws, SegmentWrite{Segment: s, Frames: make([][]byte, g.Frames)})
		}
		w := &ws[len(ws)-1]
		w.Frames[g.frameOf(at)] = frame
		w.Dirty |= 1 << g.frameOf(at)
	}
	return f.WriteFrames(size, ws)
}

// TestRecordOfClosedFile: the block with the record of a file of one segment goes to the next such file. Nothing of it is left there, and whoever is late
// learns that the first file is closed.
func TestRecordOfClosedFile(t *testing.T) {
	r := newRig(t, geometries[8], suite.XAES256GCM, BLAKE3)
	g := r.eng.Geometry()
	data := random(g.SegmentSize)
	f, name := r.create()
	r.must(write(f, data, 0))
	r.must(f.Flush())
	if f.hdr.kind != bodySingle {
		t.Fatalf("body kind %d", f.hdr.kind)
	}
	r.must(f.Close())

	want := make([]byte, 4*g.FrameSize)
	copy(want[3*g.FrameSize:], data)
	got := make([]byte, len(want))
	for range 3 { // those that are open do not share it, and one of them has it
		next, _ := r.create()
		r.must(write(next, data[:g.FrameSize], 3*int64(g.FrameSize)))
		r.must(next.ReadAt(got, 0))
		if !bytes.Equal(got, want) {
			t.Error("a new file shows what another one held")
		}
		defer next.Close()
	}
	if _, _, err := f.NextData(0); !errors.Is(err, ErrClosed) {
		t.Errorf("NextData of a closed file: %v", err)
	}
	if err := f.ReadAt(got, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("read of a closed file: %v", err)
	}
	again, err := r.open(name)
	r.must(err)
	all := make([]byte, len(data))
	r.must(again.ReadAt(all, 0))
	if !bytes.Equal(all, data) {
		t.Error("other bytes after the file was opened again")
	}
	r.must(again.Close())
}

func random(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}

func each(t *testing.T, test func(t *testing.T, r *rig)) {
	for _, g := range geometries {
		t.Run(g.String(), func(t *testing.T) { test(t, newRig(t, g, suite.XAES256GCM, BLAKE3)) })
	}
	t.Run("xchacha_sha256", func(t *testing.T) { test(t, newRig(t, geometries[8], suite.XChaCha20Poly1305, SHA256)) })
	t.Run("crc32c", func(t *testing.T) { test(t, newRig(t, geometries[8], suite.XAES256GCM, CRC32C)) })
	t.Run("no_digest", func(t *testing.T) { test(t, newRig(t, geometries[2], suite.XAES256GCM, NoDigest)) })
}

// TestFileModel runs random operations against a plain byte slice, with flushes and reopens in between.
func TestFileModel(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		seed := mrand.Uint64()
		rng := mrand.New(mrand.NewPCG(seed, 1))
		t.Logf("seed %d", seed)
		g := r.eng.Geometry()
		f, name := r.create()
		var model []byte
		limit := 40 * int(g.groupPlain) // beyond the groups that the header pins
		if limit > 24<<20 {
			limit = 24 << 20
		}
		steps := 300
		if testing.Short() {
			steps = 80
		}
		grow := func(n int) {
			if n > len(model) {
				model = append(model, make([]byte, n-len(model))...)
			}
		}
		for step := range steps {
			scale := 1 << rng.IntN(25)
			off := rng.IntN(min(limit, scale) + 1)
			n := 1 + rng.IntN(min(1<<rng.IntN(20), limit))
			what := ""
			switch op := rng.IntN(20); {
			case op < 9:
				what = fmt.Sprintf("write %d at %d", n, off)
				p := random(n)
				r.must(write(f, p, int64(off)))
				grow(off + n)
				copy(model[off:], p)
			case op < 12:
				what = fmt.Sprintf("size %d", off)
				r.must(f.SetSize(int64(off)))
				grow(off)
				model = model[:off:off]
			case op < 14:
				from := int64(off) &^ int64(g.FrameSize-1)
				length := roundUp(int64(n), g.FrameSize)
				what = fmt.Sprintf("discard %d at %d", length, from)
				r.must(f.Discard(from, length))
				if from < int64(len(model)) {
					clear(model[from:min(from+length, int64(len(model)))])
				}
			case op < 16:
				what = "flush"
				r.must(f.Flush())
			case op < 18:
				what = "reopen"
				r.must(f.Sync())
				r.must(f.Close())
				var err error
				f, err = r.open(name)
				r.must(err)
			default:
				what = fmt.Sprintf("read %d at %d", n, off)
				p := random(n)
				r.must(f.ReadAt(p, int64(off)))
				want := make([]byte, n)
				if off < len(model) {
					copy(want, model[off:])
				}
				if !bytes.Equal(p, want) {
					t.Fatalf("seed %d step %d: %s differs at %d", seed, step, what, firstDiff(p, want))
				}
				continue
			}
			if f.Size() != int64(len(model)) {
				t.Fatalf("seed %d step %d: after %s size %d, want %d", seed, step, what, f.Size(), len(model))
			}
			if step%10 != 0 {
				continue
			}
			p := make([]byte, len(model))
			r.must(f.ReadAt(p, 0))
			if !bytes.Equal(p, model) {
				t.Fatalf("seed %d step %d: after %s contents differ at %d", seed, step, what, firstDiff(p, model))
			}
		}
		r.must(f.Flush())
		r.must(f.Close())
		st, err := os.Stat(filepath.Join(r.path, name))
		r.must(err)
		if st.Size() != g.HostLength(int64(len(model))) {
			t.Fatalf("host length %d for size %d, want %d", st.Size(), len(model), g.HostLength(int64(len(model))))
		}
	})
}

func firstDiff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestReadOpensOnlyWhatItTouches counts opened frames.
func TestReadOpensOnlyWhatItTouches(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		g := r.eng.Geometry()
		f, name := r.create()
		data := random(5*g.SegmentSize + 100)
		r.must(write(f, data, 0))
		r.must(f.Flush())
		r.must(f.Close())
		f, err := r.open(name)
		r.must(err)
		F := int64(g.FrameSize)
		for _, c := range []struct {
			off, n int64
			frames uint64
		}{
			{0, 1, 1}, {0, F, 1}, {F - 1, 2, 2}, {F, 3 * F, 3}, {1, 3 * F, 4}, {int64(g.SegmentSize) - F, 2 * F, 2},
			{5 * int64(g.SegmentSize), 100, 1}, {5*int64(g.SegmentSize) + 100, F, 1}, {5*int64(g.SegmentSize) + F, F, 0}, {0, 5*int64(g.SegmentSize) + 100, uint64(5*g.Frames) + 1},
		} {
			before := r.eng.Stats().FramesOpened
			p := make([]byte, c.n)
			r.must(f.ReadAt(p, c.off))
			if got := r.eng.Stats().FramesOpened - before; got != c.frames {
				t.Errorf("read of %d at %d opened %d frames, want %d", c.n, c.off, got, c.frames)
			}
			want := make([]byte, c.n)
			if c.off < int64(len(data)) {
				copy(want, data[c.off:])
			}
			if !bytes.Equal(p, want) {
				t.Errorf("read of %d at %d: wrong bytes", c.n, c.off)
			}
		}
		r.must(f.Close())
	})
}

// TestSparse writes single bytes far apart and checks that the host pays for little else, up to the last byte of the largest file that the
// host's own limit allows.
func TestSparse(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		g := r.eng.Geometry()
		f, name := r.create()
		offsets := []int64{0, g.groupPlain, 33 * g.groupPlain, 200 * g.groupPlain, (40 + 1<<14) * g.groupPlain}
		if far := (40 + 1<<21) * g.groupPlain; g.HostLength(far+1) < 15<<40 {
			offsets = append(offsets, far)
		}
		for i, off := range offsets {
			r.must(write(f, []byte{byte(i + 1)}, off))
		}
		r.must(f.Flush())
		r.must(f.Close())
		st, err := os.Stat(filepath.Join(r.path, name))
		r.must(err)
		if used := allocated(st); used > int64(len(offsets))*(int64(g.FrameSize)+8*BlockSize) {
			t.Errorf("%d bytes stored cost %d on the host", len(offsets), used)
		}
		f, err = r.open(name)
		r.must(err)
		at := int64(0)
		for i, off := range offsets {
			var p [1]byte
			r.must(f.ReadAt(p[:], off))
			if p[0] != byte(i+1) {
				t.Errorf("byte %d is %d", off, p[0])
			}
			data, ok, err := f.NextData(at)
			r.must(err)
			if !ok || data != off {
				t.Errorf("NextData(%d) = %d, %v, want %d", at, data, ok, off)
			}
			hole, err := f.NextHole(off, f.Size())
			r.must(err)
			if want := min(off+int64(g.FrameSize), f.Size()); hole != want {
				t.Errorf("NextHole(%d) = %d, want %d", off, hole, want)
			}
			at = hole
		}
		if _, ok, err := f.NextData(at); ok || err != nil {
			t.Errorf("NextData behind the last: %v, %v", ok, err)
		}
		// Cutting in the middle drops the far ones without reading them.
		r.must(f.SetSize(g.groupPlain + 1))
		r.must(f.SetSize(300 * g.groupPlain))
		var p [1]byte
		r.must(f.ReadAt(p[:], 200*g.groupPlain))
		if p[0] != 0 {
			t.Error("a byte came back after a truncate")
		}
		r.must(f.ReadAt(p[:], g.groupPlain))
		if p[0] != 2 {
			t.Error("the last byte before the cut is gone")
		}
		if err := f.SetSize(g.MaxSize() + 1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("size beyond the largest: %v", err)
		}
		if err := write(f, []byte{1}, g.MaxSize()); !errors.Is(err, ErrTooLarge) {
			t.Errorf("write beyond the largest: %v", err)
		}
		r.must(f.Close())
	})
}

// failing is a host file whose writes fail with err where it is set.
type failing struct {
	disk.File
	err error
}

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.File.WriteAt(p, off)
}

// Only what a crash can have left of a header is none: a file that the host cannot read today does not yield its name to an older one.
func TestLacksHeader(t *testing.T) {
	f := &fill{logRig: newLogRig(t, geometries[0])}
	f.must(f.file(0, 1).Close())
	lacks := func() bool { return f.eng.LacksHeader(f.root, "file0", testID(1)) }
	if lacks() {
		t.Error("with a header")
	}
	f.disk.SetFault(func(c disktest.Call) error {
		if c.Op == "read" {
			return unix.EIO
		}
		return nil
	})
	if lacks() || !f.disk.Struck() {
		t.Error("on a host that cannot read it")
	}
	f.disk.SetFault(nil)
	h, err := f.root.Open("file0", disk.ReadWrite)
	f.must(err)
	for _, size := range []int64{BlockSize - 1, 0} {
		f.must(h.Truncate(size))
		if !lacks() {
			t.Errorf("with %d bytes", size)
		}
	}
	f.must(h.Truncate(2 * BlockSize))
	if !lacks() {
		t.Error("with zeros")
	}
	f.must(h.Close())
	f.must(f.eng.Close(true))
}

// TestOnePrefixForEachFlush: all that is sealed up to a flush has one prefix, and what comes behind it another one.
func TestOnePrefixForEachFlush(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		f, _ := r.create()
		F := int64(f.Geometry().FrameSize)
		first := func() *suite.Sealer {
			r.must(write(f, random(int(F)), 0))
			s := f.sealer
			r.must(write(f, random(int(F)), F))
			if f.sealer != s || s == nil {
				t.Error("a second write before the flush draws a prefix of its own")
			}
			r.must(f.Flush())
			return s
		}
		if a, b := first(), first(); a == b {
			t.Error("a prefix outlives a flush")
		}
		r.must(f.Close())
	})
}

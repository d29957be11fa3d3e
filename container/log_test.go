package container

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	mrand "math/rand/v2"
	"sync"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// logRig is an engine with a journal on a disk in memory.
type logRig struct {
	t    *testing.T
	disk *disktest.Memory
	root disk.Dir
	dir  disk.Dir
	ring *keys.Ring
	eng  *Engine

	journal int64 // its size, 0: the smallest
}

var testMAC = func() hash.Hash { return hmac.New(sha256.New, []byte("journal")) }

func newLogRig(t *testing.T, g *Geometry) *logRig {
	t.Helper()
	m := disktest.NewMemory()
	r := &logRig{t: t, disk: m, root: m.Root()}
	if err := r.root.Mkdir(".coffer", 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.dir, err = r.root.OpenDir(".coffer"); err != nil {
		t.Fatal(err)
	}
	mk, err := keys.MasterKeyFrom(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	r.ring = keys.NewRing(mk, keys.VaultID{1, 2, 3})
	r.eng = r.engine(g)
	return r
}

func (r *logRig) engine(g *Geometry) *Engine {
	r.t.Helper()
	e, err := NewEngine(EngineConfig{
		Ring:       r.ring,
		Params:     keys.FileParams{Suite: suite.XAES256GCM, Digest: uint8(CRC32C), SegmentSize: uint32(g.SegmentSize), FrameSize: uint32(g.FrameSize)},
		MetaBudget: 8 * BlockSize,
		Events:     func(e event.Event) { r.t.Logf("event: %+v", e) },
		Journal:    &journal.Config{Dir: r.dir, MAC: testMAC, Vault: [16]byte{1}, ID: [16]byte{2}, Size: cmp.Or(r.journal, int64(journal.MinSize))},
		Host:       r.root,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// TestLogModel compares files under random changes with their plain bytes, while the applier works, and again after they were closed and opened.
func TestLogModel(t *testing.T) {
	for _, g := range []*Geometry{geometries[0], geometries[8], geometries[3]} {
		t.Run(g.String(), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(6) {
				runLogModel(t, g, seed)
			}
		})
	}
}

type logModel struct {
	r     *logRig
	rng   *mrand.Rand
	f     *File
	name  string
	id    keys.ObjectID
	plain []byte
}

func runLogModel(t *testing.T, g *Geometry, seed uint64) {
	t.Helper()
	r := newLogRig(t, g)
	rng := mrand.New(mrand.NewPCG(seed, 1))
	m := &logModel{r: r, rng: rng, name: "f", id: testID(int(seed) + 1)}
	h, err := r.root.Create(m.name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if m.f, err = r.eng.Create(h, m.id, ObjectFile); err != nil {
		t.Fatal(err)
	}
	for step := range 400 {
		what := m.step()
		if err := m.check(); err != nil {
			t.Fatalf("seed %d, step %d, after %s: %v", seed, step, what, err)
		}
	}
	m.must(m.f.Sync())
	m.must(m.f.Close())
	m.must(r.eng.Close(true))
	if left := r.eng.pool.lent.Load(); left != 0 {
		t.Errorf("%d bytes of buffers are still lent", left)
	}
	if err := r.root.Unlink("f"); err != nil {
		t.Fatal(err)
	}
	if err := r.dir.List(func(name string, _ uint64, _ uint8) error { return fmt.Errorf("%s is left", name) }); err != nil {
		t.Fatal(err)
	}
}

func (m *logModel) must(err error) {
	m.r.t.Helper()
	if err != nil {
		m.r.t.Fatal(err)
	}
}

func (m *logModel) step() string {
	g, size := m.f.geo, int64(len(m.plain))
	limit := 6 * g.groupPlain
	switch k := m.rng.IntN(20); {
	case k < 9:
		off := m.rng.Int64N(min(limit, size+int64(g.FrameSize)*3))
		n := 1 + m.rng.Int64N(int64(g.FrameSize)*4)
		if m.rng.IntN(6) == 0 {
			n = 1 + m.rng.Int64N(2*g.groupPlain)
		}
		m.write(off, n)
		return fmt.Sprintf("write of %d at %d", n, off)
	case k < 11:
		to := m.rng.Int64N(size + int64(g.FrameSize)*2)
		if m.rng.IntN(4) == 0 {
			to = 0
		}
		m.must(m.f.SetSize(to))
		if to < size {
			m.plain = m.plain[:to]
		} else {
			m.plain = append(m.plain, make([]byte, to-size)...)
		}
		return fmt.Sprintf("size %d", to)
	case k < 13 && size > int64(g.FrameSize):
		frames := size / int64(g.FrameSize)
		from := m.rng.Int64N(frames)
		n := 1 + m.rng.Int64N(frames)
		off, end := from*int64(g.FrameSize), min(size, (from+n)*int64(g.FrameSize))
		m.must(m.f.Discard(off, n*int64(g.FrameSize)))
		clear(m.plain[off:end])
		return fmt.Sprintf("discard of %d frames at %d", n, off)
	case k < 15:
		m.must(m.f.Flush())
		return "flush"
	case k < 17:
		m.must(m.f.Sync())
		return "sync"
	case k < 18:
		m.must(m.f.Flush())
		m.must(m.f.drain())
		return "drain"
	case k < 19:
		m.r.eng.applier.ask(&m.r.eng.applier.press)
		return "checkpoint"
	default:
		m.must(m.f.Flush())
		m.must(m.f.Close())
		h, err := m.r.root.Open(m.name, disk.ReadWrite)
		m.must(err)
		m.f, err = m.r.eng.Open(h, m.id, OpenOptions{TrustLength: true, Young: m.rng.IntN(2) == 0})
		m.must(err)
		return "close and open"
	}
}

// write changes plain bytes and writes the frames that they touch.
func (m *logModel) write(off, n int64) {
	if end := off + n; end > int64(len(m.plain)) {
		m.plain = append(m.plain, make([]byte, end-int64(len(m.plain)))...)
	}
	for i := off; i < off+n; i++ {
		m.plain[i] = byte(m.rng.Uint32())
	}
	m.must(m.f.WriteFrames(int64(len(m.plain)), segmentWrites(m.f.geo, m.plain, off, n)))
}

// segmentWrites returns the frames of plain that a range touches.
func segmentWrites(g *Geometry, plain []byte, off, n int64) []SegmentWrite {
	var ws []SegmentWrite
	for at := off &^ int64(g.FrameSize-1); at < off+n; at += int64(g.FrameSize) {
		segment, frame := g.segmentOf(at), g.frameOf(at)
		if k := len(ws); k == 0 || ws[k-1].Segment != segment {
			ws = append(ws, SegmentWrite{Segment: segment, Frames: make([][]byte, g.Frames)})
		}
		buf := make([]byte, g.FrameSize)
		copy(buf, plain[at:])
		w := &ws[len(ws)-1]
		w.Frames[frame], w.Dirty = buf, w.Dirty|1<<frame
	}
	return ws
}

func (m *logModel) check() error {
	if got := m.f.Size(); got != int64(len(m.plain)) {
		return fmt.Errorf("size %d, want %d", got, len(m.plain))
	}
	buf := make([]byte, len(m.plain)+100)
	if err := m.f.ReadAt(buf, 0); err != nil {
		return err
	}
	if i := firstDifference(buf[:len(m.plain)], m.plain); i >= 0 {
		return fmt.Errorf("byte %d of %d differs", i, len(m.plain))
	}
	return nil
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// TestLogConcurrent has readers read while a writer overwrites and the applier works: every frame is one that was written, whole.
func TestLogConcurrent(t *testing.T) {
	g := geometries[8]
	r := newLogRig(t, g)
	h, err := r.root.Create("f", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.eng.Create(h, testID(1), ObjectFile)
	if err != nil {
		t.Fatal(err)
	}
	const frames = 200
	size := int64(frames * g.FrameSize)
	plain := make([]byte, size)
	if err := f.WriteFrames(size, segmentWrites(g, plain, 0, size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			rng := mrand.New(mrand.NewPCG(uint64(i), 9))
			buf := make([]byte, 5*g.FrameSize)
			for {
				select {
				case <-done:
					return
				default:
				}
				off := rng.Int64N(size - int64(len(buf)))
				off &^= int64(g.FrameSize - 1)
				if err := f.ReadAt(buf, off); err != nil {
					t.Error(err)
					return
				}
				for k := range 5 {
					frame := buf[k*g.FrameSize : (k+1)*g.FrameSize]
					if bytes.Count(frame, frame[:1]) != len(frame) {
						t.Errorf("a mixed frame at %d", off)
						return
					}
				}
			}
		})
	}
	rng := mrand.New(mrand.NewPCG(1, 2))
	for i := range 1500 {
		at := rng.Int64N(frames-4) * int64(g.FrameSize)
		n := int64(1+rng.IntN(4)) * int64(g.FrameSize)
		for k := at; k < at+n; k++ {
			plain[k] = byte(i)
		}
		err := f.WriteFrames(size, segmentWrites(g, plain, at, n))
		switch i % 7 {
		case 0:
			err = f.Sync()
		case 3:
			err = f.Flush()
		case 5:
			r.eng.applier.ask(&r.eng.applier.now)
		}
		if i%100 == 50 {
			err = f.Discard(at, n)
			clear(plain[at : at+n])
		}
		if i%200 == 0 {
			r.eng.applier.ask(&r.eng.applier.press)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.eng.Close(true); err != nil {
		t.Fatal(err)
	}
}

package cache

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0: a new one each time")

// random returns a generator and says its seed.
func random(t testing.TB) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (repeat with -seed)", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// newCache returns a cache that is closed at the latest with the test.
func newCache(t testing.TB, cfg Config) *Cache {
	c := New(cfg)
	c.through = 1
	t.Cleanup(func() { _ = c.Close() }) // closed already where all went well
	return c
}

// model is a file as a plain []byte beside the real one.
type model struct {
	t    *testing.T
	rnd  *rand.Rand
	f    *File
	data []byte
	most int64 // size at most
}

// offset prefers places near frame and segment borders and the end of the file.
func (m *model) offset(limit int64) int64 {
	off := m.rnd.Int64N(limit + 1)
	switch m.rnd.IntN(5) {
	case 0:
		off &^= int64(m.f.frameSize - 1)
	case 1:
		off = off&^(m.f.segmentSize-1) + m.rnd.Int64N(3) - 1
	case 2:
		off = int64(len(m.data)) + m.rnd.Int64N(2*int64(m.f.frameSize)) - int64(m.f.frameSize)
	}
	return min(max(off, 0), limit)
}

func (m *model) length() int64 {
	switch m.rnd.IntN(4) {
	case 0:
		return 1 + m.rnd.Int64N(200)
	case 1:
		return int64(m.f.frameSize) * (1 + m.rnd.Int64N(4))
	case 2:
		return 1 + m.rnd.Int64N(int64(m.f.frameSize))
	}
	return 1 + m.rnd.Int64N(min(3*m.f.segmentSize, 1<<20))
}

// step does one random operation on both and returns its name and error; the model changes only if it succeeded.
func (m *model) step() (string, error) {
	switch op := m.rnd.IntN(100); {
	case op < 40:
		off := m.offset(m.most)
		p := make([]byte, min(m.length(), m.most-off))
		for i := range p {
			p[i] = byte(m.rnd.Uint32())
		}
		return m.write(p, off)
	case op < 70:
		off := m.offset(m.most)
		dst := make([]byte, m.length())
		n, err := m.f.ReadAt(dst, off)
		if err != nil {
			return "read", err
		}
		want := m.data[min(off, int64(len(m.data))):min(off+int64(len(dst)), int64(len(m.data)))]
		if !bytes.Equal(dst[:n], want) {
			m.t.Fatalf("read of %d at %d: %s", len(dst), off, firstDiff(dst[:n], want))
		}
		return "read", nil
	case op < 78:
		return m.truncate(m.offset(m.most))
	case op < 86:
		return m.discard(m.offset(m.most), m.length())
	case op < 90:
		return "flush", m.f.Flush()
	case op < 92:
		return "sync", m.f.Sync()
	case op < 93:
		_, err := m.f.writeAll(1) // what pressure does
		return "write-back", err
	case op < 96:
		return m.copy(m.offset(m.most), m.offset(m.most), m.length())
	case op < 97:
		return m.grow(m.offset(m.most))
	default:
		return "seek", m.seek(m.offset(m.most))
	}
}

// writeEither writes as WriteAt does, by itself or past the cache.
func writeEither(rnd *rand.Rand, f *File, p []byte, off int64) error {
	if rnd.IntN(2) == 0 {
		return f.WriteThrough(p, off)
	}
	return f.WriteAt(p, off)
}

func (m *model) write(p []byte, off int64) (string, error) {
	err := writeEither(m.rnd, m.f, p, off)
	if err == nil && len(p) > 0 {
		if end := off + int64(len(p)); end > int64(len(m.data)) {
			m.data = append(m.data, make([]byte, end-int64(len(m.data)))...)
		}
		copy(m.data[off:], p)
		clear(p) // the caller's again
	}
	return "write", err
}

func (m *model) truncate(size int64) (string, error) {
	err := m.f.Truncate(size)
	if err == nil {
		if size > int64(len(m.data)) {
			m.data = append(m.data, make([]byte, size-int64(len(m.data)))...)
		}
		m.data = m.data[:size:size]
	}
	return "truncate", err
}

func (m *model) discard(off, n int64) (string, error) {
	err := m.f.Discard(off, n)
	if err == nil && off < int64(len(m.data)) {
		clear(m.data[off:min(off+n, int64(len(m.data)))])
	}
	return "discard", err
}

// copy copies within the file, as far as the ranges do not overlap.
func (m *model) copy(src, dst, n int64) (string, error) {
	n = min(n, m.most-src, m.most-dst, max(src-dst, dst-src))
	done, err := m.f.CopyFrom(m.f, src, dst, n, nil)
	if err == nil && done != n {
		m.t.Fatalf("copied %d of %d bytes", done, n)
	}
	if err == nil && n > 0 {
		size := max(int64(len(m.data)), dst+n)
		all := append(m.data, make([]byte, max(size, src+n)-int64(len(m.data)))...)
		copy(all[dst:], all[src:src+n])
		m.data = all[:size:size]
	}
	return "copy", err
}

func (m *model) grow(size int64) (string, error) {
	err := m.f.Grow(size)
	if err == nil && size > int64(len(m.data)) {
		m.data = append(m.data, make([]byte, size-int64(len(m.data)))...)
	}
	return "grow", err
}

// seek checks that everything that SeekData and SeekHole call a hole is zeros, and that they agree with each other.
func (m *model) seek(off int64) error {
	size := int64(len(m.data))
	zeros := func(from, to int64) {
		if len(bytes.Trim(m.data[from:to], "\x00")) > 0 {
			m.t.Fatalf("bytes %d to %d are called a hole and are not", from, to)
		}
	}
	data, err := m.f.SeekData(off)
	switch {
	case errors.Is(err, ErrNoData):
		zeros(min(off, size), size)
		data = size
	case err != nil:
		return err
	case data < off || data >= size:
		m.t.Fatalf("data at %d sought from %d in %d bytes", data, off, size)
	default:
		zeros(off, data)
	}
	hole, err := m.f.SeekHole(off)
	switch {
	case errors.Is(err, ErrNoData):
		if off < size {
			m.t.Fatalf("no hole from %d in %d bytes", off, size)
		}
	case err != nil:
		return err
	case hole < off || hole > size:
		m.t.Fatalf("from %d in %d bytes: hole at %d", off, size, hole)
	}
	// A flush in the background may come between the two: what it brings to the size of the store was a hole before, and is the end of a stored frame then.
	if agree := func(data int64) bool { return off >= size || hole > off != (data > off) }; !agree(data) {
		if again, err := m.f.SeekData(off); err != nil || !agree(again) {
			m.t.Fatalf("from %d in %d bytes: hole at %d, data at %d, then %d, %v", off, size, hole, data, again, err)
		}
	}
	return nil
}

func (m *model) check() {
	m.t.Helper()
	if got := readAll(m.t, m.f); !bytes.Equal(got, m.data) {
		m.t.Fatal(firstDiff(got, m.data))
	}
}

// geometries under test: the smallest and the default, one with larger frames, one with 64 frames per segment.
var geometries = [][2]int{{16 << 10, 4 << 10}, {64 << 10, 4 << 10}, {64 << 10, 16 << 10}, {1 << 20, 32 << 10}, {4 << 20, 64 << 10}}

// configs under test: roomy, tiny in all respects, and without clean frames.
var configs = []Config{
	{MaxAge: time.Hour},
	{Clean: 160 << 10, Dirty: 256 << 10, Window: 128 << 10, MaxAge: time.Millisecond},
	{Clean: -1, Dirty: 1, Window: 1, MaxAge: time.Hour},
}

// steps is how many random operations a geometry gets: fewer where one moves megabytes.
func steps(g [2]int) int {
	if g[0] > 1<<20 {
		return 90
	}
	return 600
}

// modelSize is a file of several segments, as far as that does not take the race detector minutes.
func modelSize(segment int) int64 { return min(5*int64(segment), int64(segment)+1<<20) }

func TestModel(t *testing.T) {
	for _, g := range geometries {
		for k, cfg := range configs {
			t.Run(fmt.Sprintf("%dK_%dK_%d", g[0]>>10, g[1]>>10, k), func(t *testing.T) {
				st := newFake(t, g[0], g[1])
				c := newCache(t, cfg)
				m := &model{t: t, rnd: random(t), f: c.open(st, Hooks{}), most: modelSize(g[0])}
				runModel(m, steps(g))
				if err := m.f.Flush(); err != nil {
					t.Fatal(err)
				}
				if got := st.content(); !bytes.Equal(got, m.data) {
					t.Fatalf("store after flush: %s", firstDiff(got, m.data))
				}
				if m.f.Dirty() {
					t.Error("dirty after a flush")
				}
				finish(t, c, m.f)
			})
		}
	}
}

func runModel(m *model, steps int) {
	for i := range steps {
		if op, err := m.step(); err != nil {
			m.t.Fatalf("step %d, %s: %v", i, op, err)
		}
		if i%100 == 0 {
			m.check()
		}
	}
	m.check()
}

// finish closes a file and its cache and checks that nothing is left of them.
func finish(t testing.TB, c *Cache, files ...*File) {
	t.Helper()
	for _, f := range files {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := f.Close(); !errors.Is(err, container.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("close of the cache: %v", err)
	}
	checkCache(t, c)
	checkGone(t, c, files...)
}

// checkGone checks that nothing is left of files in a cache that held no others.
func checkGone(t testing.TB, c *Cache, files ...*File) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.files) + len(c.aging) + len(c.queue) + c.lru.Len(); n > 0 || c.clean != 0 || c.dirty != 0 {
		t.Errorf("left: %d files, %d aging, %d queued, %d segments, %d clean and %d dirty bytes", len(c.files), len(c.aging), len(c.queue), c.lru.Len(), c.clean, c.dirty)
	}
	for _, f := range files {
		if len(f.segs)+len(f.dirtySegs) > 0 {
			t.Errorf("%d segments left", len(f.segs))
		}
	}
}

// realStore makes and reopens containers on the host.
type realStore struct {
	t   testing.TB
	dir disk.Dir
	eng *container.Engine
}

func newReal(t testing.TB, segment, frame int) *realStore {
	t.Helper()
	dir, err := disk.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mk, err := keys.MasterKeyFrom(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	eng, err := container.NewEngine(container.EngineConfig{
		Ring:   keys.NewRing(mk, keys.VaultID{9}),
		Params: keys.FileParams{Suite: suite.XAES256GCM, Digest: uint8(container.DefaultDigest), SegmentSize: uint32(segment), FrameSize: uint32(frame)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return &realStore{t, dir, eng}
}

func (r *realStore) create(name string) *container.File {
	r.t.Helper()
	h, err := r.dir.Create(name, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	f, err := r.eng.Create(h, keys.ObjectID{0xab}, container.ObjectFile)
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

func (r *realStore) open(name string) *container.File {
	r.t.Helper()
	h, err := r.dir.Open(name, disk.ReadWrite)
	if err != nil {
		r.t.Fatal(err)
	}
	f, err := r.eng.Open(h, keys.ObjectID{0xab}, container.OpenOptions{TrustLength: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// TestModelContainer is TestModel over real containers, closed and opened again in between.
func TestModelContainer(t *testing.T) {
	for _, g := range geometries {
		for k, cfg := range configs[:2] {
			t.Run(fmt.Sprintf("%dK_%dK_%d", g[0]>>10, g[1]>>10, k), func(t *testing.T) {
				r := newReal(t, g[0], g[1])
				c := newCache(t, cfg)
				m := &model{t: t, rnd: random(t), f: c.Open(r.create("f"), Hooks{}), most: modelSize(g[0])}
				for range 4 {
					runModel(m, steps(g)/6)
					if err := m.f.Close(); err != nil {
						t.Fatal(err)
					}
					m.f = c.Open(r.open("f"), Hooks{})
					m.check()
				}
				finish(t, c, m.f)
			})
		}
	}
}

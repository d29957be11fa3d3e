package cache

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
)

// fakeStore is a store in memory that checks its caller, counts calls and fails on demand. It keeps to container.File's contract: one change
// at a time, reads beside it, nothing at or beyond the size.
type fakeStore struct {
	t   testing.TB
	geo *container.Geometry

	// hook runs at the start of every call but Size, Geometry, ID and ReadOnly, without a lock; what it returns is the call's error.
	hook func(op string) error
	// torn: a failing WriteFrames has written the first half of its frames, and a failing SetSize has dropped the frames that it was to cut.
	torn bool

	changing sync.Mutex // as container.File.commit

	mu     sync.RWMutex // guards what follows
	size   int64
	frames map[int64][]byte // by plain offset
	dirty  bool
	closed bool
	calls  map[string]int
	reads  [][2]int64 // offset and length of every ReadAt
}

var errFake = errors.New("fake failure")

func newFake(t testing.TB, segment, frame int) *fakeStore {
	t.Helper()
	g, err := container.GeometryFor(segment, frame)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeStore{t: t, geo: g, frames: map[int64][]byte{}, calls: map[string]int{}}
}

func (s *fakeStore) call(op string) error {
	s.mu.Lock()
	s.calls[op]++
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return container.ErrClosed
	}
	if s.hook != nil {
		return s.hook(op)
	}
	return nil
}

func (s *fakeStore) count(op string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.calls[op]
}

func (s *fakeStore) ID() keys.ObjectID             { return keys.ObjectID{0xfa} }
func (s *fakeStore) Geometry() *container.Geometry { return s.geo }
func (s *fakeStore) ReadOnly() bool                { return false }

func (s *fakeStore) Size() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.size
}

func (s *fakeStore) Dirty() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.dirty
}

func (s *fakeStore) ReadAt(dst []byte, off int64) error {
	if err := s.call("ReadAt"); err != nil {
		for i := range dst { // "dst holds nothing of use"
			dst[i] = 0xee
		}
		return err
	}
	s.mu.Lock()
	s.reads = append(s.reads, [2]int64{off, int64(len(dst))})
	s.mu.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	clear(dst)
	frame := int64(s.geo.FrameSize)
	for at := off &^ (frame - 1); at < off+int64(len(dst)); at += frame {
		if b := s.frames[at]; b != nil {
			if at >= off {
				copy(dst[at-off:], b)
			} else {
				copy(dst, b[off-at:])
			}
		}
	}
	if s.size < off+int64(len(dst)) {
		clear(dst[max(0, s.size-off):])
	}
	return nil
}

func (s *fakeStore) WriteFrames(size int64, ws []container.SegmentWrite) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if size < s.Size() {
		s.t.Errorf("WriteFrames with size %d below %d", size, s.Size())
	}
	type frame struct {
		at   int64
		buf  []byte
		copy []byte
	}
	var all []frame
	last := int64(-1)
	for _, w := range ws {
		if int64(w.Segment) <= last || w.Dirty == 0 || len(w.Frames) != s.geo.Frames {
			s.t.Errorf("bad segment write %d after %d, mask %x", w.Segment, last, w.Dirty)
		}
		last = int64(w.Segment)
		for i := range s.geo.Frames {
			if w.Dirty&(1<<i) == 0 {
				continue
			}
			at := int64(w.Segment)*int64(s.geo.SegmentSize) + int64(i*s.geo.FrameSize)
			if at >= size {
				s.t.Errorf("frame at %d written into a file of %d", at, size)
			}
			if end := size - at; end < int64(s.geo.FrameSize) && len(bytes.Trim(w.Frames[i][end:], "\x00")) > 0 {
				s.t.Errorf("frame at %d holds bytes beyond the size %d", at, size)
			}
			all = append(all, frame{at, w.Frames[i], bytes.Clone(w.Frames[i])})
		}
	}
	err := s.call("WriteFrames")
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(all)*s.geo.FrameSize > batchBytes {
		s.t.Errorf("batch of %d frames", len(all))
	}
	for i, f := range all {
		if !bytes.Equal(f.buf, f.copy) {
			s.t.Errorf("frame at %d changed while WriteFrames had it", f.at)
		}
		if err == nil || s.torn && i < len(all)/2 {
			s.frames[f.at] = f.copy
			s.dirty = true
			s.size = max(s.size, min(size, f.at+int64(len(f.buf))))
		}
	}
	if err == nil {
		s.dirty = true
		s.size = size
	}
	return err
}

func (s *fakeStore) SetSize(size int64) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	err := s.call("SetSize")
	if err != nil && !s.torn {
		return err
	}
	s.mu.Lock()
	for at, b := range s.frames {
		if at >= size {
			delete(s.frames, at)
		} else if at+int64(len(b)) > size {
			b = bytes.Clone(b)
			clear(b[size-at:])
			s.frames[at] = b
		}
	}
	s.dirty = true
	if err != nil {
		s.mu.Unlock()
		return err
	}
	shrink := size < s.size
	s.size = size
	s.mu.Unlock()
	if shrink {
		return s.flush()
	}
	return nil
}

func (s *fakeStore) Discard(off, n int64) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if (off|n)&int64(s.geo.FrameSize-1) != 0 || n <= 0 {
		s.t.Errorf("Discard(%d, %d)", off, n)
	}
	if err := s.call("Discard"); err != nil {
		return err
	}
	s.mu.Lock()
	for at := range s.frames {
		if at >= off && at < off+n {
			delete(s.frames, at)
		}
	}
	s.dirty = true
	s.mu.Unlock()
	return s.flush()
}

func (s *fakeStore) Abandon()                    { _ = s.call("Abandon") }
func (s *fakeStore) Allocate(off, n int64) error { return s.call("Allocate") }

func (s *fakeStore) NextData(off int64) (int64, bool, error) {
	if err := s.call("NextData"); err != nil {
		return 0, false, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	best, ok := int64(0), false
	for at := range s.frames {
		if at+int64(s.geo.FrameSize) > off && at < s.size && (!ok || at < best) {
			best, ok = at, true
		}
	}
	return max(best, off), ok && off < s.size, nil
}

func (s *fakeStore) NextHole(off, limit int64) (int64, error) {
	if err := s.call("NextHole"); err != nil {
		return 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	frame := int64(s.geo.FrameSize)
	limit = min(limit, s.size)
	for off < limit && s.frames[off&^(frame-1)] != nil {
		off = off&^(frame-1) + frame
	}
	return min(off, limit), nil
}

func (s *fakeStore) Flush() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.flush()
}

func (s *fakeStore) flush() error {
	if err := s.call("Flush"); err != nil {
		return err
	}
	s.mu.Lock()
	s.dirty = false
	s.mu.Unlock()
	return nil
}

func (s *fakeStore) Sync() error {
	if err := s.Flush(); err != nil {
		return err
	}
	return s.call("Sync")
}

func (s *fakeStore) Close() error {
	if err := s.call("Close"); err != nil {
		return err
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return nil
}

// content is what a reader of the store alone would see.
func (s *fakeStore) content() []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]byte, s.size)
	for at, b := range s.frames {
		if at < s.size {
			copy(out[at:], b)
		}
	}
	return out
}

// checkCache compares every count of an idle cache with what is in its maps: no segment is pinned, in flight or loading, no
// room is set aside, clean and dirty ones are where they belong, and free buffers hold no plaintext.
func checkCache(t testing.TB, c *Cache) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var clean, dirty int64
	listed := 0
	for f := range c.files {
		own := int64(0)
		for index, s := range f.segs {
			s.mu.Lock()
			held, pending := 0, 0
			for i, b := range s.frames {
				if b == nil {
					continue
				}
				held++
				if s.dirty&(1<<i) != 0 {
					pending++
				}
				if end := f.Size() - f.frameStart(index, i); end < int64(len(b)) && len(bytes.Trim(b[max(0, end):], "\x00")) > 0 {
					t.Errorf("segment %d frame %d holds bytes beyond the size %d", index, i, f.Size())
				}
			}
			if s.refs != 0 || s.inflight != 0 || s.loading != 0 || s.held != held || s.pending != pending || s.index != index || s.file != f {
				t.Errorf("segment %d: %d references, in flight %x, loading %x, held %d of %d, pending %d of %d", index, s.refs, s.inflight, s.loading, s.held, held, s.pending, pending)
			}
			if (f.dirtySegs[index] == s) != (pending > 0) || s.listed != (pending == 0) || s.listed != c.lru.Contains(s) || held == 0 {
				t.Errorf("segment %d: %d held, %d pending, listed %v", index, held, pending, s.listed)
			}
			if s.listed {
				listed++
			}
			clean += int64((held - pending) * f.frameSize)
			own += int64(pending * f.frameSize)
			s.mu.Unlock()
		}
		if own != f.dirty || f.reserved != 0 {
			t.Errorf("file counts %d dirty bytes and %d set aside; there are %d", f.dirty, f.reserved, own)
		}
		if _, ok := c.aging[f]; !ok && own > 0 {
			t.Error("dirty file does not age")
		}
		dirty += own
	}
	if clean != c.clean || dirty != c.dirty || c.reserved != 0 || c.waiting != 0 || listed != c.lru.Len() {
		t.Errorf("cache counts %d clean, %d dirty, %d set aside, %d waiting, %d listed; there are %d, %d, %d", c.clean, c.dirty, c.reserved, c.waiting, c.lru.Len(), clean, dirty, listed)
	}
	if c.clean > c.cfg.Clean {
		t.Errorf("%d clean bytes with a budget of %d", c.clean, c.cfg.Clean)
	}
	for _, h := range c.shelves {
		h.mu.Lock()
		for _, b := range h.buffers {
			if len(bytes.Trim(b, "\x00")) > 0 {
				t.Error("plaintext in a free buffer")
			}
		}
		if len(h.buffers) > h.most {
			t.Errorf("%d free buffers", len(h.buffers))
		}
		h.mu.Unlock()
	}
}

// readAll reads the whole file through the cache.
func readAll(t testing.TB, f *File) []byte {
	t.Helper()
	out := make([]byte, f.Size()+1)
	n, err := f.ReadAt(out, 0)
	if err != nil {
		t.Fatalf("read all: %v", err)
	}
	return out[:n]
}

// firstDiff describes where two byte strings part.
func firstDiff(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d is %#x, want %#x (lengths %d and %d)", i, got[i], want[i], len(got), len(want))
		}
	}
	return fmt.Sprintf("length %d, want %d", len(got), len(want))
}

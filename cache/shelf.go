package cache

import "sync"

// shelfSegments bounds the segment structures that a shelf keeps; they hold no plaintext.
const shelfSegments = 1024

// shelf keeps free frame buffers of one frame size, and free segment structures. Buffers are zero while they lie here, so that no plaintext
// outlives its use and a new buffer needs no clearing.
type shelf struct {
	frameSize int
	most      int // buffers kept; more go to the garbage collector

	mu       sync.Mutex // guards what follows
	buffers  [][]byte
	segments []*segment
}

func newShelf(frameSize int, bytes int64) *shelf {
	return &shelf{frameSize: frameSize, most: int(max(1, bytes/int64(frameSize)))}
}

// get returns a zeroed buffer of one frame.
func (h *shelf) get() []byte {
	h.mu.Lock()
	if n := len(h.buffers); n > 0 {
		b := h.buffers[n-1]
		h.buffers[n-1] = nil
		h.buffers = h.buffers[:n-1]
		h.mu.Unlock()
		return b
	}
	h.mu.Unlock()
	return make([]byte, h.frameSize)
}

// put takes a buffer back. Nobody else may hold it.
func (h *shelf) put(b []byte) {
	clear(b) // also where it is not kept: freed memory is not cleared before it is used again
	h.mu.Lock()
	if len(h.buffers) < h.most {
		h.buffers = append(h.buffers, b)
	}
	h.mu.Unlock()
}

// segment returns an empty segment with room for n frames.
func (h *shelf) segment(f *File, index uint64, n int) *segment {
	h.mu.Lock()
	var s *segment
	if k := len(h.segments); k > 0 {
		s = h.segments[k-1]
		h.segments[k-1] = nil
		h.segments = h.segments[:k-1]
	}
	h.mu.Unlock()
	if s == nil || cap(s.frames) < n {
		s = &segment{frames: make([][]byte, n)}
		s.loaded.L = &s.mu
	}
	s.file, s.index, s.frames = f, index, s.frames[:n]
	return s
}

// recycle takes back a segment that no map holds and nobody uses, and its buffers.
func (h *shelf) recycle(s *segment) {
	for i, b := range s.frames {
		if b != nil {
			h.put(b)
			s.frames[i] = nil
		}
	}
	s.file, s.index, s.next = nil, 0, nil
	s.dirty, s.inflight, s.loading, s.keep = 0, 0, 0, 0
	s.held, s.pending, s.listed = 0, 0, false
	h.mu.Lock()
	if len(h.segments) < shelfSegments {
		h.segments = append(h.segments, s)
	}
	h.mu.Unlock()
}

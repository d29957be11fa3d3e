package bulk

import (
	"errors"
	"io"
	"time"

	"github.com/cofferfs/coffer/container"
)

// segments is a buffer of plaintext as WriteFrames takes it.
type segments struct {
	geo *container.Geometry
	buf []byte
	at  int64 // plain offset, a multiple of the segment size
	n   int   // bytes that count; zeros follow
}

func newSegments(g *container.Geometry, size int) *segments {
	return &segments{geo: g, buf: make([]byte, max(size, g.SegmentSize))}
}

// read fills the buffer with n bytes of a source, and with zeros up to the end of the segment.
func (s *segments) read(src io.ReaderAt, at int64, n int, count *counters) error {
	start := time.Now()
	k, err := src.ReadAt(s.buf[:n], at)
	count.reading.Add(int64(time.Since(start)))
	if k < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = errChanged
		}
		return err
	}
	clear(s.buf[n:min(len(s.buf), (n+s.geo.SegmentSize-1)/s.geo.SegmentSize*s.geo.SegmentSize)])
	s.at, s.n = at, n
	return nil
}

// writes cuts the first n bytes, which lie at a plain offset, into segment writes. With holes frames of zeros are left out.
func (s *segments) writes(at int64, n int, holes bool) (ws []container.SegmentWrite) {
	S, F := s.geo.SegmentSize, s.geo.FrameSize
	for from := 0; from < n; from += S {
		w := container.SegmentWrite{Segment: uint64((at + int64(from)) / int64(S)), Frames: make([][]byte, s.geo.Frames)}
		for i := range s.geo.Frames {
			frame := s.buf[from+i*F : from+(i+1)*F]
			if from+i*F < n && !(holes && zeros(frame)) {
				w.Frames[i] = frame
				w.Dirty |= 1 << i
			}
		}
		if w.Dirty != 0 {
			ws = append(ws, w)
		}
	}
	return ws
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

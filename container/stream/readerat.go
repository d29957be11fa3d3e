package stream

import (
	"errors"
	"fmt"
	"io"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/vault"
)

// ReaderAt opens single frames of a stream that lies in something with random access: a file, ranges of an object, a part of a tape's image. Safe for
// concurrent use, as far as its source is.
type ReaderAt struct {
	r      io.ReaderAt
	crypto *container.SegmentCrypto
	base   int64  // length of the header
	full   int64  // wire length of a segment that is not the last
	last   uint64 // index of the last segment
	tail   int    // its plain length
}

// NewReaderAt reads the header of the stream that r holds in its first size bytes, opens its key slot with secret, which may be wiped afterwards, and opens
// its last segment, so that a stream that was cut or continued is refused here. Nothing else is read. r stays the caller's. The errors are those
// of NewReader.
func NewReaderAt(r io.ReaderAt, size int64, secret vault.Secret, o ReadOptions) (*ReaderAt, error) {
	c, base, err := o.unlock(io.NewSectionReader(r, 0, size), secret)
	if err != nil {
		return nil, err
	}
	return newReaderAt(r, size, c, base)
}

func newReaderAt(r io.ReaderAt, size int64, c *container.SegmentCrypto, base int64) (*ReaderAt, error) {
	s := &ReaderAt{r: r, crypto: c, base: base, full: int64(c.WireLen(c.Geometry().SegmentSize))}
	rest := size - base
	if rest <= 0 {
		return nil, &Error{Offset: size, Err: fmt.Errorf("the last segment is missing: %w", container.ErrTruncated)}
	}
	s.last = uint64((rest - 1) / s.full)
	start := base + int64(s.last)*s.full
	wire := make([]byte, size-start)
	if err := readFull(r, wire, start); err != nil {
		return nil, err
	}
	d, err := c.ProcessDecryptSegment(container.DecryptSegmentInput{SegmentIndex: s.last, Wire: wire}, nil)
	if err != nil {
		return nil, at(start, err)
	}
	s.tail = len(d.Plain())
	clear(d.Plain())
	switch {
	case !d.Final:
		return nil, &Error{Offset: size, Err: fmt.Errorf("the last segment is missing: %w", container.ErrTruncated)}
	case s.tail == 0 && s.last > 0:
		return nil, &Error{Offset: start, Err: fmt.Errorf("empty last segment: %w", container.ErrCorrupt)}
	}
	return s, nil
}

// readFull is ReadAt of bytes that are there by the size that was given.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return &Error{Offset: off + int64(n), Err: fmt.Errorf("the source is shorter than its size: %w", container.ErrTruncated)}
	}
	return err
}

// Size is the length of the plaintext in bytes.
func (s *ReaderAt) Size() int64 {
	return int64(s.last)*int64(s.crypto.Geometry().SegmentSize) + int64(s.tail)
}

// ReadAt fills p with the plain bytes at off, as io.ReaderAt does. It reads and opens the frames that the range touches and no other; what it returns is
// authentic and in its place. What comes before a frame that fails is counted in n.
func (s *ReaderAt) ReadAt(p []byte, off int64) (n int, err error) {
	g, size := s.crypto.Geometry(), s.Size()
	if off < 0 {
		return 0, errors.New("stream: negative offset")
	}
	var wire, plain []byte
	defer func() { clear(plain[:cap(plain)]) }()
	for n < len(p) {
		at := off + int64(n)
		if at >= size {
			return n, io.EOF
		}
		segment := uint64(at / int64(g.SegmentSize))
		within := int(at % int64(g.SegmentSize))
		frame, skip := within/g.FrameSize, within%g.FrameSize
		length := int(min(int64(g.FrameSize), size-at+int64(skip)))
		if wire == nil {
			wire = make([]byte, s.crypto.WireOffset(1))
		}
		dst, direct := plain[:0], skip == 0 && len(p)-n >= length
		if direct {
			dst = p[n : n : n+length]
		}
		if dst, err = s.frame(dst, wire, segment, frame, length); err != nil {
			return n, err
		}
		if direct {
			n += length
			continue
		}
		plain = dst
		n += copy(p[n:], plain[skip:])
	}
	return n, nil
}

// frame appends the plaintext of one frame, of which the length is known, to dst. wire has room for any frame.
func (s *ReaderAt) frame(dst, wire []byte, segment uint64, frame, length int) ([]byte, error) {
	start := s.base + int64(segment)*s.full + int64(s.crypto.WireOffset(frame))
	wire = wire[:length+s.crypto.WireOffset(1)-s.crypto.Geometry().FrameSize]
	if err := readFull(s.r, wire, start); err != nil {
		return nil, err
	}
	n := len(dst)
	dst, final, err := s.crypto.ProcessDecryptFrame(dst, segment, frame, wire)
	if err != nil {
		return nil, at(start, err)
	}
	if final != (segment == s.last) || len(dst)-n != length {
		return nil, &Error{Offset: start, Err: fmt.Errorf("frame out of place: %w", container.ErrCorrupt)}
	}
	return dst, nil
}

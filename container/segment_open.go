package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container/suite"
)

// wireFrame is one frame found on the wire.
type wireFrame struct {
	header frameHeader
	sealed []byte // nonce, ciphertext, tag
	from   int    // of its header in the wire form
	at     int    // of the plaintext in the segment's buffer
}

// ProcessDecryptSegment opens a segment in wire form and verifies its digest. Lengths on the wire are bounded by the geometry before any use. Where
// resume, which may be nil, lies in the segment, the frames before it are opened as all others, but their leaves are taken from it. The error is a
// *SegmentError around a *WireError, for a frame that fails with the *FrameError of the lowest one in it.
func (c *SegmentCrypto) ProcessDecryptSegment(in DecryptSegmentInput, resume *ResumePoint) (DecryptedSegment, error) {
	fail := func(err error) (DecryptedSegment, error) {
		return DecryptedSegment{}, asSegmentError("open", in.SegmentIndex, err)
	}
	frames, err := c.parseWire(in)
	if err != nil {
		return fail(c.lowestFailure(frames, err))
	}
	g, data := c.geo, frames[:len(frames)-1]
	hashed, err := resume.skip(g, in.SegmentIndex, len(data))
	if err != nil {
		return fail(err)
	}
	total := 0
	if n := len(data); n > 0 {
		total = data[n-1].at + int(data[n-1].header.length)
	}
	plain := grow(in.Dst, total)
	leaves := make([]byte, leafSize*g.Frames)
	if hashed > 0 {
		copy(leaves, resume.Leaves)
	}
	per := g.perTask()
	err = c.pool.run((len(data)+per-1)/per, func(i int, s *scratch) error {
		for k := i * per; k < min(len(data), (i+1)*per); k++ {
			w := &data[k]
			if k >= hashed {
				leaf := c.leafOf(s, w)
				copy(leaves[leafSize*k:], leaf[:])
			}
			if err := c.openWire(s, w, plain[w.at:w.at+int(w.header.length):total]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	s := c.pool.getScratch()
	defer c.pool.putScratch(s)
	var payload [digestPayload]byte
	last := &frames[len(data)]
	if err := c.openWire(s, last, payload[:]); err != nil {
		return fail(err)
	}
	if sum := c.segmentDigest(s, in.SegmentIndex, leaves); !bytes.Equal(sum[:], payload[:digestSize]) || binary.LittleEndian.Uint64(payload[digestSize:]) != uint64(total) {
		return fail(&WireError{Offset: last.from, Err: ErrDigest})
	}
	out := DecryptedSegment{SegmentIndex: in.SegmentIndex, Frames: make([][]byte, len(data)), Final: last.header.flags&flagFinal != 0, plain: plain}
	for i, w := range data {
		out.Frames[i] = plain[w.at : w.at+int(w.header.length) : w.at+int(w.header.length)]
	}
	out.Telemetry = Telemetry{Frames: len(data), BytesPlain: int64(total), BytesWire: int64(len(in.Wire)), Reused: hashed}
	return out, nil
}

// ProcessDecryptFrame opens one data frame of a segment of which nothing else is at hand: wire begins with it, and what follows it is not looked at. It
// appends the plaintext to dst. The frame is as authentic as in ProcessDecryptSegment; the digest of its segment is not checked. final reports whether
// it belongs to the last segment of a stream.
func (c *SegmentCrypto) ProcessDecryptFrame(dst []byte, segment uint64, frame int, wire []byte) (plain []byte, final bool, err error) {
	w, err := c.parseFrame(wire, segment, frame)
	if err != nil {
		return dst, false, asSegmentError("open", segment, err)
	}
	if w.header.typ != frameData {
		return dst, false, asSegmentError("open", segment, fmt.Errorf("frame header out of place: %w", ErrCorrupt))
	}
	n, length := len(dst), int(w.header.length)
	dst = append(dst, make([]byte, length)...)
	s := c.pool.getScratch()
	defer c.pool.putScratch(s)
	if err := c.openWire(s, &w, dst[n:n+length:n+length]); err != nil {
		return dst[:n], false, err
	}
	return dst, w.header.flags&flagFinal != 0, nil
}

// lowestFailure returns the error of the first of these frames that does not open, else err, which was found behind them: a length that was changed only shows
// in what seems to follow.
func (c *SegmentCrypto) lowestFailure(frames []wireFrame, err error) error {
	s := c.pool.getScratch()
	defer c.pool.putScratch(s)
	plain := make([]byte, c.geo.FrameSize)
	defer clear(plain)
	for i := range frames {
		if e := c.openWire(s, &frames[i], plain[:frames[i].header.length]); e != nil {
			return e
		}
	}
	return err
}

func (c *SegmentCrypto) leafOf(s *scratch, w *wireFrame) [leafSize]byte {
	var header [frameHeaderSize]byte
	w.header.put(header[:])
	s.use(c.crypto.digest)
	return s.leaf(header[:], w.sealed[suite.NonceSize:][:w.header.length])
}

// openWire opens a frame into dst, which has the length of its plaintext.
func (c *SegmentCrypto) openWire(s *scratch, w *wireFrame, dst []byte) error {
	nonce, sealed := w.sealed[:suite.NonceSize], w.sealed[suite.NonceSize:]
	if _, err := c.crypto.cipher.Open(dst[:0], nonce, sealed, s.setAD(&c.crypto, &w.header)); err != nil {
		h := &w.header
		at := c.geo.frameStart(h.segment, int(h.frame))
		return &SegmentError{Op: "open", Segment: h.segment, Err: &WireError{Offset: w.from, Err: &FrameError{Segment: h.segment, Frame: h.frame, Offset: at, Err: err}}}
	}
	return nil
}

// parseWire finds the frames of a segment: data frames without gaps, only the last of them short, then the digest frame and nothing more. All of them
// belong to the last segment of a stream, or none. With an error come the frames before it.
func (c *SegmentCrypto) parseWire(in DecryptSegmentInput) ([]wireFrame, error) {
	g := c.geo
	frames := make([]wireFrame, 0, g.Frames+1)
	from, at := 0, 0
	for {
		w, err := c.parseFrame(in.Wire[from:], in.SegmentIndex, len(frames))
		var e *WireError
		if errors.As(err, &e) {
			e.Offset += from
			return frames, e
		}
		h := &w.header
		if h.typ == frameData && at%g.FrameSize != 0 || len(frames) > 0 && h.flags != frames[0].header.flags {
			return frames, &WireError{Offset: from, Err: fmt.Errorf("frame header out of place: %w", ErrCorrupt)}
		}
		w.from, w.at = from, at
		frames = append(frames, w)
		from += len(w.sealed) + frameHeaderSize
		if h.typ == frameDigest {
			if n := len(in.Wire) - from; n > 0 {
				return frames, &WireError{Offset: from, Err: fmt.Errorf("%d bytes behind the digest frame: %w", n, ErrTrailing)}
			}
			return frames, nil
		}
		at += int(h.length)
	}
}

// parseFrame reads the data frame with this index, or the digest frame of the segment in its place. Every error is a *WireError.
func (c *SegmentCrypto) parseFrame(wire []byte, segment uint64, frame int) (w wireFrame, err error) {
	h, g := &w.header, c.geo
	if len(wire) < frameHeaderSize {
		return w, &WireError{Offset: len(wire), Err: fmt.Errorf("frame header: %w", ErrTruncated)}
	}
	if err := h.parse(wire, flagFinal); err != nil {
		return w, &WireError{Err: err}
	}
	limit := g.FrameSize
	if h.typ == frameDigest {
		limit, frame = digestPayload, g.Frames
	}
	switch {
	case h.suite != c.crypto.suite, h.segment != segment, h.frame != uint32(frame), h.typ == frameInline, h.typ == frameData && frame >= g.Frames, h.length == 0,
		h.typ == frameDigest && h.length != digestPayload, h.length > uint32(limit):
		return w, &WireError{Err: fmt.Errorf("frame header out of place: %w", ErrCorrupt)}
	case len(wire) < int(h.length)+wireOverhead:
		return w, &WireError{Offset: len(wire), Err: fmt.Errorf("frame of %d bytes: %w", h.length, ErrTruncated)}
	}
	w.sealed = wire[frameHeaderSize : int(h.length)+wireOverhead]
	return w, nil
}

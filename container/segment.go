package container

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

// Telemetry counts what one call processed: everything that it did in this run, whatever an earlier one did before.
type Telemetry struct {
	Frames     int
	BytesPlain int64
	BytesWire  int64
}

// EncryptSegmentInput is one segment of plaintext, at most SegmentSize bytes, shorter only at the end of a stream. Plaintext is read, never changed or kept.
type EncryptSegmentInput struct {
	SegmentIndex uint64
	Plaintext    []byte
}

// EncryptedSegment is a sealed segment in wire form, one contiguous slice that any io.Writer takes. Wire belongs to the receiver.
type EncryptedSegment struct {
	SegmentIndex uint64
	Wire         []byte
	Digest       [digestSize]byte
	Telemetry    Telemetry
}

// DecryptSegmentInput is one segment in wire form. Wire is read, never changed or kept.
type DecryptSegmentInput struct {
	SegmentIndex uint64
	Wire         []byte
}

// DecryptedSegment holds the plain frames of a segment in order, as slices of one backing buffer that belongs to the receiver.
type DecryptedSegment struct {
	SegmentIndex uint64
	Frames       [][]byte
	Telemetry    Telemetry
}

// SegmentCrypto seals and opens whole segments in wire form under the keys of one object. Its process functions are pure: they touch no host file
// and keep nothing. Safe for concurrent use; the frames of a segment are worked on in parallel in the engine's pool.
type SegmentCrypto struct {
	pool   *pool
	geo    *Geometry
	crypto fileCrypto
}

// SegmentCrypto returns the segment functions for an object of this vault with the engine's parameters.
func (e *Engine) SegmentCrypto(id keys.ObjectID) (*SegmentCrypto, error) {
	k := e.ring.File(id, e.params)
	c, err := suite.New(e.params.Suite, k.Enc[:])
	if err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	return &SegmentCrypto{pool: e.pool, geo: e.geo, crypto: fileCrypto{
		vault: e.ring.VaultID, id: id, suite: e.params.Suite, digest: DigestAlg(e.params.Digest), cipher: c, auth: k.Auth,
	}}, nil
}

const digestPayload = digestSize + 8 // segment digest, plain length of the segment

// ProcessEncryptSegment seals a segment frame by frame into wire form, the digest frame last. The error is a *SegmentError around the
// lowest failing frame.
func (c *SegmentCrypto) ProcessEncryptSegment(in EncryptSegmentInput) (EncryptedSegment, error) {
	g := c.geo
	if len(in.Plaintext) > g.SegmentSize {
		return EncryptedSegment{}, &SegmentError{Op: "seal", Segment: in.SegmentIndex, Err: fmt.Errorf("%d plain bytes: %w", len(in.Plaintext), ErrGeometry)}
	}
	sealer, err := c.crypto.cipher.Sealer()
	if err != nil {
		return EncryptedSegment{}, &SegmentError{Op: "seal", Segment: in.SegmentIndex, Err: err}
	}
	frames := (len(in.Plaintext) + g.FrameSize - 1) >> g.frameShift
	data := len(in.Plaintext) + frames*wireOverhead
	wire := make([]byte, data+wireOverhead+digestPayload)
	leaves := make([]byte, leafSize*g.Frames)
	seal := func(s *scratch, typ uint8, frame int, at int, plain []byte) error {
		var e [entrySize]byte
		h := frameHeader{typ: typ, segment: in.SegmentIndex, frame: uint32(frame), generation: 1}
		out := wire[at : at+len(plain)+wireOverhead]
		if err := c.crypto.sealFrame(s, sealer, &h, out[frameHeaderSize+suite.NonceSize:], plain, entry(e[:])); err != nil {
			return frameError("seal", &h, g.frameStart(in.SegmentIndex, frame), err)
		}
		h.put(out)
		copy(out[frameHeaderSize:], entry(e[:]).nonce())
		if typ == frameData {
			copy(leaves[leafSize*frame:], entry(e[:]).leaf())
		}
		return nil
	}
	per := max(1, ioUnit>>g.frameShift/4)
	err = c.pool.run((frames+per-1)/per, func(i int, s *scratch) error {
		for frame := i * per; frame < min(frames, (i+1)*per); frame++ {
			from := frame << g.frameShift
			plain := in.Plaintext[from:min(from+g.FrameSize, len(in.Plaintext))]
			if err := seal(s, frameData, frame, frame*(g.FrameSize+wireOverhead), plain); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return EncryptedSegment{}, err
	}
	s := c.pool.getScratch()
	defer c.pool.putScratch(s)
	s.use(c.crypto.digest)
	out := EncryptedSegment{SegmentIndex: in.SegmentIndex, Wire: wire}
	out.Digest = s.segment(in.SegmentIndex, c.crypto.id[:], g.Frames, func(i int) []byte { return leaves[leafSize*i:][:leafSize] })
	payload := binary.LittleEndian.AppendUint64(out.Digest[:digestSize:digestSize], uint64(len(in.Plaintext)))
	if err := seal(s, frameDigest, g.Frames, data, payload); err != nil {
		return EncryptedSegment{}, err
	}
	out.Telemetry = Telemetry{Frames: frames, BytesPlain: int64(len(in.Plaintext)), BytesWire: int64(len(wire))}
	return out, nil
}

// wireFrame is one frame found on the wire.
type wireFrame struct {
	header frameHeader
	sealed []byte // nonce, ciphertext, tag
	at     int    // of the plaintext in the segment's buffer
}

// ProcessDecryptSegment opens a segment in wire form and verifies its digest. Lengths on the wire are bounded by the geometry before any use. The
// error is a *SegmentError; for a frame that fails, around a *FrameError of the lowest one.
func (c *SegmentCrypto) ProcessDecryptSegment(in DecryptSegmentInput) (DecryptedSegment, error) {
	fail := func(err error) (DecryptedSegment, error) {
		return DecryptedSegment{}, &SegmentError{Op: "open", Segment: in.SegmentIndex, Err: err}
	}
	frames, err := c.parseWire(in)
	if err != nil {
		return fail(err)
	}
	g, data := c.geo, frames[:len(frames)-1]
	total := 0
	if n := len(data); n > 0 {
		total = data[n-1].at + int(data[n-1].header.length)
	}
	plain := make([]byte, total+digestPayload)
	leaves := make([]byte, leafSize*g.Frames)
	open := func(s *scratch, w *wireFrame, dst []byte) error {
		nonce, sealed := w.sealed[:suite.NonceSize], w.sealed[suite.NonceSize:]
		ad := s.setAD(&c.crypto, &w.header)
		if w.header.typ == frameData {
			s.use(c.crypto.digest)
			leaf := s.leaf(s.header(), sealed[:w.header.length])
			copy(leaves[leafSize*int(w.header.frame):], leaf[:])
		}
		if _, err := c.crypto.cipher.Open(dst[:0], nonce, sealed, ad); err != nil {
			return frameError("open", &w.header, g.frameStart(in.SegmentIndex, int(w.header.frame)), err)
		}
		return nil
	}
	per := max(1, ioUnit>>g.frameShift/4)
	err = c.pool.run((len(data)+per-1)/per, func(i int, s *scratch) error {
		for k := i * per; k < min(len(data), (i+1)*per); k++ {
			w := &data[k]
			if err := open(s, w, plain[w.at:w.at+int(w.header.length):total]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return DecryptedSegment{}, err
	}
	s := c.pool.getScratch()
	defer c.pool.putScratch(s)
	payload := plain[total:]
	if err := open(s, &frames[len(data)], payload); err != nil {
		return DecryptedSegment{}, err
	}
	s.use(c.crypto.digest)
	sum := s.segment(in.SegmentIndex, c.crypto.id[:], g.Frames, func(i int) []byte { return leaves[leafSize*i:][:leafSize] })
	if !bytes.Equal(sum[:], payload[:digestSize]) || binary.LittleEndian.Uint64(payload[digestSize:]) != uint64(total) {
		return fail(ErrDigest)
	}
	out := DecryptedSegment{SegmentIndex: in.SegmentIndex, Frames: make([][]byte, len(data))}
	for i, w := range data {
		out.Frames[i] = plain[w.at : w.at+int(w.header.length) : w.at+int(w.header.length)]
	}
	out.Telemetry = Telemetry{Frames: len(data), BytesPlain: int64(total), BytesWire: int64(len(in.Wire))}
	return out, nil
}

// parseWire finds the frames of a segment: data frames without gaps, only the last of them short, then the digest frame and nothing more.
func (c *SegmentCrypto) parseWire(in DecryptSegmentInput) ([]wireFrame, error) {
	g := c.geo
	var frames []wireFrame
	at := 0
	for wire := in.Wire; ; {
		var w wireFrame
		h := &w.header
		if err := h.parse(wire); err != nil {
			return nil, fmt.Errorf("byte %d: %w", len(in.Wire)-len(wire), err)
		}
		limit, next := g.FrameSize, len(frames)
		if h.typ == frameDigest {
			limit, next = digestPayload, g.Frames
		}
		switch {
		case h.suite != c.crypto.suite, h.segment != in.SegmentIndex, h.frame != uint32(next), h.typ == frameInline,
			h.typ == frameData && next >= g.Frames, h.length == 0, at%g.FrameSize != 0 && h.typ == frameData,
			h.typ == frameDigest && h.length != digestPayload, h.length > uint32(limit):
			return nil, fmt.Errorf("byte %d: frame header out of place: %w", len(in.Wire)-len(wire), ErrCorrupt)
		case len(wire) < int(h.length)+wireOverhead:
			return nil, fmt.Errorf("byte %d: frame of %d bytes: %w", len(in.Wire)-len(wire), h.length, ErrTruncated)
		}
		w.at = at
		w.sealed = wire[frameHeaderSize : int(h.length)+wireOverhead]
		wire = wire[int(h.length)+wireOverhead:]
		frames = append(frames, w)
		if h.typ == frameDigest {
			if len(wire) > 0 {
				return nil, fmt.Errorf("byte %d: %d bytes behind the digest frame: %w", len(in.Wire)-len(wire), len(wire), ErrCorrupt)
			}
			return frames, nil
		}
		at += int(h.length)
	}
}

package container

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

// Telemetry counts what was processed in this run, whatever an earlier one did before: resuming never makes it less than the work done.
type Telemetry struct {
	Frames     int   // sealed or opened
	BytesPlain int64 // of those frames
	BytesWire  int64 // written or read, digest frames included
	Reused     int   // frames whose leaf came from a resume point
}

// Add adds what another call processed.
func (t *Telemetry) Add(o Telemetry) {
	t.Frames += o.Frames
	t.BytesPlain += o.BytesPlain
	t.BytesWire += o.BytesWire
	t.Reused += o.Reused
}

// EncryptSegmentInput is one segment of plaintext, at most SegmentSize bytes, shorter only at the end of a stream. Plaintext is read until the call
// (or the worker's result) returns, never changed or kept. Where Dst has the capacity, Wire is made in it, and Dst belongs to the result from then on;
// they must not overlap.
type EncryptSegmentInput struct {
	SegmentIndex uint64
	Plaintext    []byte
	Final        bool   // the last segment of a stream
	Dst          []byte // optional
}

// EncryptedSegment is a sealed segment in wire form, one contiguous slice that any io.Writer takes. All of it belongs to the receiver.
type EncryptedSegment struct {
	SegmentIndex uint64
	FirstFrame   uint32 // the one Wire begins with: 0 unless the segment was resumed
	Wire         []byte
	Digest       [digestSize]byte
	Leaves       []byte // leafSize bytes for each frame of the geometry, resumed ones included
	Telemetry    Telemetry

	geo *Geometry
}

// DecryptSegmentInput is one segment in wire form. Wire is read until the call (or the worker's result) returns, never changed or kept. Where Dst has the
// capacity, the frames are opened into it, and it belongs to the result from then on; they must not overlap.
type DecryptSegmentInput struct {
	SegmentIndex uint64
	Wire         []byte
	Dst          []byte // optional
}

// DecryptedSegment holds the plain frames of a segment in order, as slices of one backing buffer; all of it belongs to the receiver.
type DecryptedSegment struct {
	SegmentIndex uint64
	Frames       [][]byte
	Final        bool // the last segment of a stream
	Telemetry    Telemetry

	plain []byte
}

// Plain is the whole segment: the frames lie side by side.
func (d *DecryptedSegment) Plain() []byte { return d.plain }

// ResumePoint is where work on a row of segments goes on: everything before frame NextFrame of a segment is done, and Leaves, leafSize bytes for each of
// these frames, is what the digest of that segment needs of them.
type ResumePoint struct {
	Segment   uint64
	NextFrame uint32
	Leaves    []byte
}

// Resume returns the resume point of a reader of Wire who has made its first n bytes durable. It shares no memory with e.
func (e *EncryptedSegment) Resume(n int) ResumePoint {
	if n >= len(e.Wire) {
		return ResumePoint{Segment: e.SegmentIndex + 1}
	}
	frames := min(n/(e.geo.FrameSize+wireOverhead), e.Telemetry.Frames)
	next := e.FirstFrame + uint32(frames)
	return ResumePoint{Segment: e.SegmentIndex, NextFrame: next, Leaves: append([]byte(nil), e.Leaves[:leafSize*int(next)]...)}
}

// skip returns how many frames of a segment lie before r, which may be nil, and what is wrong with r.
func (r *ResumePoint) skip(g *Geometry, segment uint64, frames int) (int, error) {
	if r == nil || r.Segment != segment {
		return 0, nil
	}
	if int(r.NextFrame) > frames || len(r.Leaves) != leafSize*int(r.NextFrame) {
		return 0, fmt.Errorf("resume point at frame %d with %d bytes of leaves, of %d frames: %w", r.NextFrame, len(r.Leaves), frames, ErrResume)
	}
	return int(r.NextFrame), nil
}

// SegmentCrypto seals and opens whole segments in wire form under the keys of one object. Its process functions are pure: they touch no host file
// and keep nothing. Safe for concurrent use; the frames of a segment are worked on in parallel in a bounded pool.
type SegmentCrypto struct {
	pool   *pool
	geo    *Geometry
	crypto fileCrypto
}

// NewSegmentCrypto returns the segment functions for an object outside of any vault, whose keys k the caller derived; scope and id go into the
// associated data of its frames. It has a pool of its own, of so many workers. k may be destroyed afterwards.
func NewSegmentCrypto(scope keys.VaultID, id keys.ObjectID, p keys.FileParams, k *keys.FileKeys, workers int) (*SegmentCrypto, error) {
	geo, err := GeometryFor(int(p.SegmentSize), int(p.FrameSize))
	if err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	if !DigestAlg(p.Digest).valid() {
		return nil, fmt.Errorf("container: digest %d: %w", p.Digest, ErrFeature)
	}
	c, err := suite.New(p.Suite, k.Enc[:])
	if err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	return &SegmentCrypto{pool: newPool(max(1, workers)), geo: geo, crypto: fileCrypto{
		vault: scope, id: id, suite: p.Suite, digest: DigestAlg(p.Digest), cipher: c, auth: k.Auth,
	}}, nil
}

// Geometry says how the segments are cut.
func (c *SegmentCrypto) Geometry() *Geometry { return c.geo }

// WireLen is the length of the wire form of a segment with so many plain bytes.
func (c *SegmentCrypto) WireLen(plain int) int {
	frames := (plain + c.geo.FrameSize - 1) >> c.geo.frameShift
	return plain + (frames+1)*wireOverhead + digestPayload
}

// WireOffset is where a frame begins in the wire form of its segment.
func (c *SegmentCrypto) WireOffset(frame int) int { return frame * (c.geo.FrameSize + wireOverhead) }

const digestPayload = digestSize + 8 // segment digest, plain length of the segment

// perTask is how many frames one task of the pool works on.
func (g *Geometry) perTask() int { return max(1, ioUnit>>g.frameShift/4) }

// ProcessEncryptSegment seals a segment frame by frame into wire form, the digest frame last. Where resume, which may be nil, lies in the segment, the
// frames before it are neither sealed nor in the result: what an earlier call made of them is durable, and their leaves count. The
// error is a *SegmentError, for a frame that fails around the lowest one.
func (c *SegmentCrypto) ProcessEncryptSegment(in EncryptSegmentInput, resume *ResumePoint) (EncryptedSegment, error) {
	g := c.geo
	fail := func(err error) (EncryptedSegment, error) {
		return EncryptedSegment{}, asSegmentError("seal", in.SegmentIndex, err)
	}
	if len(in.Plaintext) > g.SegmentSize {
		return fail(fmt.Errorf("%d plain bytes: %w", len(in.Plaintext), ErrGeometry))
	}
	frames := (len(in.Plaintext) + g.FrameSize - 1) >> g.frameShift
	first, err := resume.skip(g, in.SegmentIndex, frames)
	if err != nil {
		return fail(err)
	}
	sealer, err := c.crypto.cipher.Sealer()
	if err != nil {
		return fail(err)
	}
	before := min(first<<g.frameShift, len(in.Plaintext))
	rest := len(in.Plaintext) - before
	out := EncryptedSegment{
		SegmentIndex: in.SegmentIndex, FirstFrame: uint32(first), Wire: grow(in.Dst, c.WireLen(rest)), Leaves: make([]byte, leafSize*g.Frames), geo: g,
		Telemetry: Telemetry{Frames: frames - first, BytesPlain: int64(rest), BytesWire: int64(c.WireLen(rest)), Reused: first},
	}
	if first > 0 {
		copy(out.Leaves, resume.Leaves)
	}
	seal := func(s *scratch, typ uint8, frame int, wire, plain []byte) error {
		var e [entrySize]byte
		h := frameHeader{typ: typ, segment: in.SegmentIndex, frame: uint32(frame), generation: 1}
		if in.Final {
			h.flags = flagFinal
		}
		if err := c.crypto.sealFrame(s, sealer, &h, wire[frameHeaderSize+suite.NonceSize:], plain, entry(e[:])); err != nil {
			return frameError("seal", &h, g.frameStart(in.SegmentIndex, frame), err)
		}
		h.put(wire)
		copy(wire[frameHeaderSize:], entry(e[:]).nonce())
		if typ == frameData {
			copy(out.Leaves[leafSize*frame:], entry(e[:]).leaf())
		}
		return nil
	}
	per := g.perTask()
	err = c.pool.run((frames-first+per-1)/per, func(i int, s *scratch) error {
		for frame := first + i*per; frame < min(frames, first+(i+1)*per); frame++ {
			from := frame << g.frameShift
			plain := in.Plaintext[from:min(from+g.FrameSize, len(in.Plaintext))]
			wire := out.Wire[c.WireOffset(frame-first):]
			if err := seal(s, frameData, frame, wire[:len(plain)+wireOverhead], plain); err != nil {
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
	out.Digest = c.segmentDigest(s, in.SegmentIndex, out.Leaves)
	payload := binary.LittleEndian.AppendUint64(out.Digest[:digestSize:digestSize], uint64(len(in.Plaintext)))
	if err := seal(s, frameDigest, g.Frames, out.Wire[len(out.Wire)-wireOverhead-digestPayload:], payload); err != nil {
		return fail(err)
	}
	return out, nil
}

func (c *SegmentCrypto) segmentDigest(s *scratch, segment uint64, leaves []byte) [digestSize]byte {
	s.use(c.crypto.digest)
	return s.segment(segment, c.crypto.id[:], c.geo.Frames, func(i int) []byte { return leaves[leafSize*i:][:leafSize] })
}

// grow returns n bytes of b's backing array, or new ones.
func grow(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	return make([]byte, n)
}

// asSegmentError makes sure that an error says which segment it is of.
func asSegmentError(op string, segment uint64, err error) error {
	var e *SegmentError
	if errors.As(err, &e) {
		return err
	}
	return &SegmentError{Op: op, Segment: segment, Err: err}
}

package container

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

const (
	headerMagic   = "COFFERC1"
	headerLabel   = "coffer header v1"
	formatVersion = 1
)

// Body kinds of a header.
const (
	bodyNone   = 0
	bodyInline = 1
	bodySingle = 2
	bodyTree   = 3
)

// Object types of a header.
const (
	ObjectFile    = 1
	ObjectSymlink = 3
)

// header is the decoded first block of a container (FORMAT.md section 7 has the table).
type header struct {
	suite      suite.ID
	digest     DigestAlg
	geo        *Geometry
	readOnly   bool   // an unknown ro-compat feature is set
	compat     uint32 // kept as found
	epoch      uint32
	vault      keys.VaultID
	id         keys.ObjectID
	commitment [32]byte
	sequence   uint64
	size       int64
	lsn        uint64
	journal    [16]byte
	timesSet   bool
	mtime      timespec
	ctime      timespec
	kind       uint8
	object     uint8
	durable    bool   // all that is below was durable before this header could be
	body       []byte // as much of it as the kind uses; zeros follow
}

type timespec struct {
	sec  int64
	nsec uint32
}

// seal encodes the header into b, HMAC and CRC last. mac is fresh or reset, as in headerMAC.
func (h *header) seal(b *block, mac hash.Hash) {
	*b = block{}
	le := binary.LittleEndian
	copy(b[:], headerMagic)
	le.PutUint16(b[12:], formatVersion)
	b[14], b[15] = byte(h.suite), byte(h.digest)
	le.PutUint32(b[16:], uint32(h.geo.SegmentSize))
	le.PutUint32(b[20:], uint32(h.geo.FrameSize))
	le.PutUint32(b[32:], h.compat)
	le.PutUint32(b[36:], h.epoch)
	copy(b[40:56], h.vault[:])
	copy(b[56:72], h.id[:])
	copy(b[72:104], h.commitment[:])
	le.PutUint64(b[104:], h.sequence)
	le.PutUint64(b[112:], uint64(h.size))
	le.PutUint64(b[120:], h.lsn)
	copy(b[128:144], h.journal[:])
	if h.timesSet {
		le.PutUint64(b[144:], uint64(h.mtime.sec))
		le.PutUint32(b[152:], h.mtime.nsec)
		le.PutUint32(b[156:], 1)
		le.PutUint64(b[160:], uint64(h.ctime.sec))
		le.PutUint32(b[168:], h.ctime.nsec)
	}
	b[172], b[173] = h.kind, h.object
	if h.durable {
		b[174] = 1
	}
	copy(b[bodyOffset:macOffset], h.body)
	headerMAC(b[macOffset:macOffset], b, mac)
	le.PutUint32(b[8:], crcExcept(b[:], 8))
}

// headerMAC is computed with the CRC field zero, since the CRC covers the HMAC. It is appended to dst.
func headerMAC(dst []byte, b *block, mac hash.Hash) []byte {
	var zero [4]byte
	mac.Write([]byte(headerLabel))
	mac.Write(b[:8])
	mac.Write(zero[:])
	mac.Write(b[12:macOffset])
	return mac.Sum(dst)
}

// parse decodes what can be read without a key. Nothing in it may be believed before verify.
func (h *header) parse(b *block) error {
	le := binary.LittleEndian
	if string(b[:8]) != headerMagic {
		return ErrNoHeader
	}
	if crcExcept(b[:], 8) != le.Uint32(b[8:]) {
		return fmt.Errorf("header CRC: %w", ErrCorrupt)
	}
	if v := le.Uint16(b[12:]); v != formatVersion {
		return fmt.Errorf("header version %d: %w", v, ErrVersion)
	}
	if incompat := le.Uint32(b[24:]); incompat != 0 {
		return fmt.Errorf("header features %#x: %w", incompat, ErrFeature)
	}
	h.readOnly = le.Uint32(b[28:]) != 0
	h.compat = le.Uint32(b[32:])
	h.suite, h.digest = suite.ID(b[14]), DigestAlg(b[15])
	if !h.digest.valid() || h.suite != suite.XAES256GCM && h.suite != suite.XChaCha20Poly1305 {
		return fmt.Errorf("header suite %d, digest %d: %w", b[14], b[15], ErrFeature)
	}
	segment, frame := le.Uint32(b[16:]), le.Uint32(b[20:])
	if segment > 4<<20 || frame == 0 {
		return fmt.Errorf("header geometry %d/%d: %w", segment, frame, ErrFeature)
	}
	geo, err := GeometryFor(int(segment), int(frame))
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	h.geo = geo
	h.epoch = le.Uint32(b[36:])
	copy(h.vault[:], b[40:])
	copy(h.id[:], b[56:])
	copy(h.commitment[:], b[72:])
	h.sequence = le.Uint64(b[104:])
	h.size = int64(le.Uint64(b[112:]))
	h.lsn = le.Uint64(b[120:])
	copy(h.journal[:], b[128:])
	h.mtime = timespec{int64(le.Uint64(b[144:])), le.Uint32(b[152:])}
	h.ctime = timespec{int64(le.Uint64(b[160:])), le.Uint32(b[168:])}
	h.timesSet = le.Uint32(b[156:]) == 1
	h.kind, h.object, h.durable = b[172], b[173], b[174] == 1
	body := b[bodyOffset:macOffset]
	h.body = bytes.Clone(body[:h.bodyUse(body)])
	return nil
}

// bodyUse is how many bytes of a body that was not verified yet its kind uses.
func (h *header) bodyUse(body []byte) int {
	switch h.kind {
	case bodyNone:
		return 0
	case bodyInline:
		return entrySize + min(int(entry(body[:entrySize]).length()), inlineMax)
	case bodySingle:
		return min(h.geo.record, bodySize)
	case bodyTree:
		return pinSize * (headerGroups + topNodes)
	}
	return bodySize
}

// params are what the keys of the container depend on.
func (h *header) params() keys.FileParams {
	return keys.FileParams{
		Suite: h.suite, Digest: uint8(h.digest), SegmentSize: uint32(h.geo.SegmentSize), FrameSize: uint32(h.geo.FrameSize), Epoch: h.epoch,
	}
}

// verify checks an already parsed header against the keys that its own parameters select and the id of the name it stands under.
func (h *header) verify(b *block, vault keys.VaultID, id keys.ObjectID, k *keys.FileKeys) error {
	switch {
	case h.vault != vault:
		return fmt.Errorf("header of another vault: %w", ErrKey)
	case h.commitment != k.Commitment:
		return ErrKey
	case !hmac.Equal(headerMAC(nil, b, newMAC(&k.Auth)), b[macOffset:]):
		return fmt.Errorf("header HMAC: %w", ErrAuth)
	case h.id != id:
		return fmt.Errorf("container of object %s under the name of %s: %w", h.id, id, ErrIdentity)
	}
	le := binary.LittleEndian
	if le.Uint32(b[156:]) > 1 || b[174] > 1 || !allZero(b[175:bodyOffset]) ||
		h.object != ObjectFile && h.object != ObjectSymlink || h.kind > bodyTree ||
		h.size < 0 || h.size > h.geo.MaxSize() || h.mtime.nsec >= 1e9 || h.ctime.nsec >= 1e9 {
		return fmt.Errorf("header fields: %w", ErrCorrupt)
	}
	return h.checkBody(b[bodyOffset:macOffset])
}

// checkBody checks the body, which is all of body.
func (h *header) checkBody(body []byte) error {
	switch h.kind {
	case bodyInline:
		e := entry(h.body[:entrySize])
		if err := e.check(inlineMax); err != nil || int64(e.length()) > h.size || e.hole() {
			return fmt.Errorf("inline body: %w", ErrCorrupt)
		}
	case bodySingle:
		if h.geo.record > bodySize || h.geo.Frames > singleFrames {
			return fmt.Errorf("single-segment body in %v: %w", h.geo, ErrCorrupt)
		}
		if err := record(h.body[:h.geo.record]).check(h.geo, 0, h.id[:]); err != nil {
			return err
		}
	}
	if !allZero(body[len(h.body):]) {
		return fmt.Errorf("header body: reserved bytes: %w", ErrCorrupt)
	}
	return nil
}

// inlineData returns the frame entry and the ciphertext of an inline body, as views of it.
func (h *header) inlineData() (entry, []byte) {
	e := entry(h.body[:entrySize])
	return e, h.body[entrySize : entrySize+int(e.length())]
}

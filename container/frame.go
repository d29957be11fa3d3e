package container

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

// Frame types of FORMAT.md section 5.
const (
	frameData   = 1
	frameInline = 2
	frameDigest = 3
)

// flagFinal marks the frames of the last segment of a stream, so that a stream cannot be cut or continued.
const flagFinal = 1

const (
	frameMagic      = "CFR1"
	frameHeaderSize = 32
	frameLabel      = "coffer frame v1\x00"
	adSize          = len(frameLabel) + 16 + 16 + frameHeaderSize
	wireOverhead    = frameHeaderSize + suite.NonceSize + suite.TagSize
)

// frameHeader describes one frame; with vault and file id it is the associated data of the frame in both its forms.
type frameHeader struct {
	typ        uint8
	flags      uint8 // flagFinal in the wire form of a stream, else 0
	suite      suite.ID
	segment    uint64
	frame      uint32
	length     uint32 // of the ciphertext, equal to that of the plaintext
	generation uint32
}

// put writes the header:
//
//	0      4       5    6     7     8       16    20     24         28
//	| magic|version|type|flags|suite|segment|frame|length|generation|0 (4)|
func (h *frameHeader) put(b []byte) {
	copy(b, frameMagic)
	b[4], b[5], b[6], b[7] = 1, h.typ, h.flags, byte(h.suite)
	binary.LittleEndian.PutUint64(b[8:], h.segment)
	binary.LittleEndian.PutUint32(b[16:], h.frame)
	binary.LittleEndian.PutUint32(b[20:], h.length)
	binary.LittleEndian.PutUint32(b[24:], h.generation)
	binary.LittleEndian.PutUint32(b[28:], 0)
}

// parse reads a header, whose flags are among those allowed. It does not bound the length: that is the caller's, who knows the geometry.
func (h *frameHeader) parse(b []byte, allowed uint8) error {
	if len(b) < frameHeaderSize {
		return fmt.Errorf("frame header: %w", ErrTruncated)
	}
	if string(b[:4]) != frameMagic {
		return fmt.Errorf("frame magic: %w", ErrCorrupt)
	}
	if b[4] != 1 {
		return fmt.Errorf("frame version %d: %w", b[4], ErrVersion)
	}
	h.typ, h.flags, h.suite = b[5], b[6], suite.ID(b[7])
	h.segment = binary.LittleEndian.Uint64(b[8:])
	h.frame = binary.LittleEndian.Uint32(b[16:])
	h.length = binary.LittleEndian.Uint32(b[20:])
	h.generation = binary.LittleEndian.Uint32(b[24:])
	if h.flags&^allowed != 0 || binary.LittleEndian.Uint32(b[28:]) != 0 || h.typ < frameData || h.typ > frameDigest {
		return fmt.Errorf("frame header fields: %w", ErrCorrupt)
	}
	return nil
}

// fileCrypto is what sealing and opening the frames of one container takes. It does not change and is shared by all workers.
type fileCrypto struct {
	vault  keys.VaultID
	id     keys.ObjectID
	suite  suite.ID
	digest DigestAlg
	cipher *suite.Cipher
	auth   [32]byte
	mac    atomic.Pointer[keyedMAC] // not in use just now, or nil
}

// scratch is the memory of one worker: nothing on the path of a frame is allocated.
type scratch struct {
	ad    [adSize]byte
	nonce [suite.NonceSize]byte
	hasher
	plain []byte // one frame, for reads of a part of it; cleared after use
	saved [suite.TagSize]byte
	last  []byte // one frame and a tag, for ciphertext that has no room for the tag behind it
}

// setAD builds the associated data of a frame and returns it; it is valid until the next call.
func (s *scratch) setAD(c *fileCrypto, h *frameHeader) []byte {
	n := copy(s.ad[:], frameLabel)
	n += copy(s.ad[n:], c.vault[:])
	n += copy(s.ad[n:], c.id[:])
	h.put(s.ad[n:])
	return s.ad[:]
}

// header returns the FrameHeader within the associated data last built.
func (s *scratch) header() []byte { return s.ad[adSize-frameHeaderSize:] }

// sealSlot is sealFrame into a slot, dst, that may have no room for a tag behind it.
func (c *fileCrypto) sealSlot(s *scratch, sealer *suite.Sealer, h *frameHeader, dst, plaintext []byte, e entry) error {
	n := len(plaintext)
	if cap(dst) >= n+suite.TagSize {
		return c.sealFrame(s, sealer, h, dst, plaintext, e)
	}
	if cap(s.last) < n+suite.TagSize {
		s.last = make([]byte, n+suite.TagSize)
	}
	err := c.sealFrame(s, sealer, h, s.last, plaintext, e)
	copy(dst, s.last[:n])
	return err
}

// sealFrame seals one frame into dst, which must have room for the ciphertext and a tag, and enters nonce, tag and leaf into e. Only the
// first len(plaintext) bytes of dst are the slot's; the tag behind them is scratch.
func (c *fileCrypto) sealFrame(s *scratch, sealer *suite.Sealer, h *frameHeader, dst, plaintext []byte, e entry) error {
	h.suite, h.length = c.suite, uint32(len(plaintext))
	out, err := sealer.Seal(dst[:0], plaintext, s.setAD(c, h), &s.nonce)
	if err != nil {
		return err
	}
	s.use(c.digest)
	e.set(h.length, h.generation, s.nonce[:], out[len(plaintext):], s.leaf(s.header(), out[:len(plaintext)]))
	return nil
}

// openFrame opens a frame in slot form into dst[:0] and returns the plaintext. ciphertext must have room for a tag behind it in its backing
// array; the bytes there are put back. Any mismatch is ErrAuth.
func (c *fileCrypto) openFrame(s *scratch, h *frameHeader, e entry, dst, ciphertext []byte) ([]byte, error) {
	h.suite, h.length, h.generation = c.suite, e.length(), e.generation()
	sealed := ciphertext[:len(ciphertext)+suite.TagSize]
	behind := sealed[len(ciphertext):]
	copy(s.saved[:], behind)
	copy(behind, e.tag())
	plain, err := c.cipher.Open(dst[:0], e.nonce(), sealed, s.setAD(c, h))
	copy(behind, s.saved[:])
	return plain, err
}

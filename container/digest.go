package container

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"

	"github.com/zeebo/blake3"
)

// DigestAlg names the digest of leaves and segments. Digests let someone without the key find rot; they are no MAC.
type DigestAlg uint8

// The digests of FORMAT.md section 3.1.
const (
	BLAKE3     DigestAlg = 1
	SHA256     DigestAlg = 2
	NoDigest   DigestAlg = 3
	CRC32C     DigestAlg = 4
	leafSize             = 8
	digestSize           = 32

	// DefaultDigest finds rot for a fifteenth of what the others cost (FORMAT.md section 14).
	DefaultDigest = CRC32C
)

var digestNames = map[DigestAlg]string{BLAKE3: "blake3", SHA256: "sha256", NoDigest: "none", CRC32C: "crc32c"}

// String is the name used in config and on the command line.
func (d DigestAlg) String() string {
	if name, ok := digestNames[d]; ok {
		return name
	}
	return fmt.Sprintf("digest(%d)", uint8(d))
}

// ParseDigest returns the digest of a name; an unknown one is ErrFeature.
func ParseDigest(name string) (DigestAlg, error) {
	for d, n := range digestNames {
		if n == name {
			return d, nil
		}
	}
	return 0, fmt.Errorf("digest %q (crc32c, blake3, sha256 or none): %w", name, ErrFeature)
}

func (d DigestAlg) valid() bool { return d >= BLAKE3 && d <= CRC32C }

// Valid reports whether format version 1 has the digest.
func (d DigestAlg) Valid() bool { return d.valid() }

// hasher is a digest that one worker reuses; nil hash means that all digests are zero.
type hasher struct {
	alg  DigestAlg
	hash hash.Hash
	sum  [digestSize]byte
}

func (h *hasher) use(alg DigestAlg) {
	if h.alg == alg {
		return
	}
	h.alg = alg
	switch alg {
	case BLAKE3:
		h.hash = blake3.New()
	case SHA256:
		h.hash = sha256.New()
	case CRC32C:
		h.hash = newCRC()
	default:
		h.hash = nil
	}
}

// leaf returns the leaf of a frame: its digest over FrameHeader and ciphertext, cut to 64 bits.
func (h *hasher) leaf(header, ciphertext []byte) (leaf [leafSize]byte) {
	if h.hash == nil {
		return leaf
	}
	h.hash.Reset()
	h.hash.Write(header)
	h.hash.Write(ciphertext)
	copy(leaf[:], h.hash.Sum(h.sum[:0]))
	return leaf
}

// segment returns the digest of a segment over its leaves, which the callback yields in order.
func (h *hasher) segment(index uint64, id []byte, n int, leaf func(i int) []byte) (sum [digestSize]byte) {
	if h.hash == nil {
		return sum
	}
	h.hash.Reset()
	binary.LittleEndian.PutUint64(h.sum[:], index)
	h.hash.Write(h.sum[:8])
	h.hash.Write(id)
	for i := range n {
		h.hash.Write(leaf(i))
	}
	h.hash.Sum(sum[:0])
	return sum
}

// crcHash is CRC32C in the shape of a digest: little-endian, then zeros to 32 bytes.
type crcHash struct{ crc uint32 }

func newCRC() hash.Hash { return new(crcHash) }

func (c *crcHash) Write(p []byte) (int, error) {
	c.crc = crc32.Update(c.crc, castagnoli, p)
	return len(p), nil
}

func (c *crcHash) Sum(b []byte) []byte {
	var sum [digestSize]byte
	binary.LittleEndian.PutUint32(sum[:], c.crc)
	return append(b, sum[:]...)
}

func (c *crcHash) Reset()         { c.crc = 0 }
func (c *crcHash) Size() int      { return digestSize }
func (c *crcHash) BlockSize() int { return 1 }

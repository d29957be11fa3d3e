package stream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/container/vault"
)

// Sizes of FORMAT.md section 15, in bytes.
const (
	magic      = "COFFERW1"
	version    = 1
	headSize   = 88
	slotSize   = 160
	macSize    = sha256.Size
	maxAgeFile = 64 << 10
	maxSlots   = 32
	maxHeader  = headSize + maxSlots*(slotSize+maxAgeFile) + macSize
	macLabel   = "coffer stream v1"

	// A stream may come from anybody, so that its passphrase may cost less to try than that of a vault: at most a minute or so.
	maxTime      = 16
	maxMemoryKiB = 4 << 20
)

// kinds are the key slots by their number.
var kinds = [...]string{1: vault.KindPassphrase, 2: vault.KindKeyFile, 3: vault.KindAge}

// header is what a stream says of itself.
type header struct {
	id         keys.VaultID // of the stream; it stands where a vault has its id
	params     keys.FileParams
	commitment [32]byte
	slots      []vault.Slot

	raw []byte // as read; the MAC is verified over it
}

// encode writes the header but for MAC and CRC:
//
//	 0  8  magic "COFFERW1"
//	 8  4  CRC32C of the whole header, with this field zero
//	12  2  version = 1
//	14  1  suite
//	15  1  digest
//	16  4  segment size
//	20  4  frame size
//	24  4  length of the header
//	28  4  incompat features = 0
//	32 16  stream id
//	48 32  key commitment
//	80  2  number of key slots
//	82  6  0
//	88  …  key slots
//	 … 32  MAC
func (h *header) encode() []byte {
	b := make([]byte, headSize, headSize+len(h.slots)*slotSize+macSize)
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint16(b[12:], version)
	b[14], b[15] = byte(h.params.Suite), h.params.Digest
	le.PutUint32(b[16:], h.params.SegmentSize)
	le.PutUint32(b[20:], h.params.FrameSize)
	copy(b[32:], h.id[:])
	copy(b[48:], h.commitment[:])
	le.PutUint16(b[80:], uint16(len(h.slots)))
	for i := range h.slots {
		b = appendSlot(b, &h.slots[i])
	}
	b = append(b, make([]byte, macSize)...)
	le.PutUint32(b[24:], uint32(len(b)))
	return b
}

// seal returns the whole header.
func (h *header) seal(auth *[32]byte) []byte {
	b := h.encode()
	copy(b[len(b)-macSize:], headerMAC(b, auth))
	binary.LittleEndian.PutUint32(b[8:], headerCRC(b))
	return b
}

// headerMAC is HMAC(auth, label ‖ everything before the MAC, with the CRC field zero).
func headerMAC(b []byte, auth *[32]byte) []byte {
	m := hmac.New(sha256.New, auth[:])
	m.Write([]byte(macLabel))
	m.Write(b[:8])
	m.Write(make([]byte, 4))
	m.Write(b[12 : len(b)-macSize])
	return m.Sum(nil)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func headerCRC(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[:8])
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	return crc32.Update(crc, castagnoli, b[12:])
}

// appendSlot writes one key slot:
//
//	  0  1  kind: 1 passphrase, 2 key file, 3 age
//	  1  1  threads          passphrase only, as are time and memory
//	  2  2  0
//	  4  4  length of the age file; 0 for other kinds
//	  8  8  slot id
//	 16 32  salt
//	 48 32  commitment
//	 80 24  nonce
//	104 48  wrapped
//	152  4  time
//	156  4  memory, KiB
//	160  …  age file
func appendSlot(b []byte, s *vault.Slot) []byte {
	e := make([]byte, slotSize)
	for k, name := range kinds {
		if name == s.Kind {
			e[0] = byte(k)
		}
	}
	e[1] = s.KDF.Threads
	le := binary.LittleEndian
	le.PutUint32(e[4:], uint32(len(s.AgeFile)))
	copy(e[8:], s.ID[:])
	copy(e[16:], s.Salt[:])
	copy(e[48:], s.Commitment[:])
	copy(e[80:], s.Nonce[:])
	copy(e[104:], s.Wrapped[:])
	le.PutUint32(e[152:], s.KDF.Time)
	le.PutUint32(e[156:], s.KDF.MemoryKiB)
	return append(append(b, e...), s.AgeFile...)
}

// readHeader reads and decodes a header, and checks all that takes no key. Lengths are bounded before any use. Errors are *Error, or the source's.
func readHeader(r io.Reader) (*header, error) {
	b := make([]byte, headSize)
	if n, err := io.ReadFull(r, b); err != nil {
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		if k := min(n, len(magic)); string(b[:k]) != magic[:k] {
			return nil, &Error{Err: ErrNotStream}
		}
		return nil, &Error{Offset: int64(n), Err: fmt.Errorf("header: %w", container.ErrTruncated)}
	}
	n := binary.LittleEndian.Uint32(b[24:])
	switch v := binary.LittleEndian.Uint16(b[12:]); {
	case string(b[:8]) != magic:
		return nil, &Error{Err: ErrNotStream}
	case v != version:
		return nil, &Error{Offset: 12, Err: fmt.Errorf("header version %d: %w", v, container.ErrVersion)}
	case n < headSize+slotSize+macSize || n > maxHeader:
		return nil, &Error{Offset: 24, Err: fmt.Errorf("header of %d bytes: %w", n, container.ErrCorrupt)}
	}
	b = append(b, make([]byte, n-headSize)...)
	if k, err := io.ReadFull(r, b[headSize:]); err != nil {
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		return nil, &Error{Offset: int64(headSize + k), Err: fmt.Errorf("header: %w", container.ErrTruncated)}
	}
	return parseHeader(b)
}

// parseHeader decodes a header of the right magic, version and length.
func parseHeader(b []byte) (*header, error) {
	le := binary.LittleEndian
	fail := func(at int, class error, format string, args ...any) (*header, error) {
		return nil, &Error{Offset: int64(at), Err: fmt.Errorf(format+": %w", append(args, class)...)}
	}
	if headerCRC(b) != le.Uint32(b[8:]) {
		return fail(8, container.ErrCorrupt, "header checksum")
	}
	h := &header{id: keys.VaultID(b[32:48]), commitment: [32]byte(b[48:80]), raw: b, params: keys.FileParams{
		Suite: suite.ID(b[14]), Digest: b[15], SegmentSize: le.Uint32(b[16:]), FrameSize: le.Uint32(b[20:]),
	}}
	if f := le.Uint32(b[28:]); f != 0 {
		return fail(28, container.ErrFeature, "features %#x", f)
	}
	if !h.params.Suite.Valid() {
		return fail(14, container.ErrFeature, "suite %d", h.params.Suite)
	}
	if d := container.DigestAlg(h.params.Digest); !d.Valid() {
		return fail(15, container.ErrFeature, "digest %d", d)
	}
	// A frame size of 0 would be chosen, and may not stand in a header.
	if _, err := container.GeometryFor(int(h.params.SegmentSize), int(h.params.FrameSize)); err != nil || h.params.FrameSize == 0 {
		return fail(16, container.ErrFeature, "segments of %d and frames of %d bytes", h.params.SegmentSize, h.params.FrameSize)
	}
	n := int(le.Uint16(b[80:]))
	if n < 1 || n > maxSlots {
		return fail(80, container.ErrCorrupt, "%d key slots", n)
	}
	if [6]byte(b[82:88]) != [6]byte{} {
		return fail(82, container.ErrCorrupt, "reserved bytes")
	}
	at, end := headSize, len(b)-macSize
	for i := range n {
		s, size, err := parseSlot(b[at:end])
		if err != nil {
			return fail(at, err, "key slot %d", i)
		}
		h.slots = append(h.slots, s)
		at += size
	}
	if at != end {
		return fail(at, container.ErrTrailing, "behind the key slots")
	}
	if !onePassphrase(h.slots) {
		return fail(headSize, container.ErrCorrupt, "two passphrases")
	}
	return h, nil
}

func onePassphrase(slots []vault.Slot) bool {
	n := 0
	for i := range slots {
		if slots[i].Kind == vault.KindPassphrase {
			n++
		}
	}
	return n <= 1
}

// parseSlot reads the slot that b begins with, and its length.
func parseSlot(b []byte) (s vault.Slot, size int, err error) {
	if len(b) < slotSize {
		return s, 0, container.ErrCorrupt
	}
	le := binary.LittleEndian
	kind, ageFile := int(b[0]), le.Uint32(b[4:])
	if kind < 1 || kind >= len(kinds) {
		return s, 0, container.ErrFeature
	}
	s = vault.Slot{
		Kind: kinds[kind], ID: [8]byte(b[8:16]), Salt: [32]byte(b[16:48]), Commitment: [32]byte(b[48:80]), Nonce: [24]byte(b[80:104]),
		Wrapped: [48]byte(b[104:152]), KDF: vault.KDF{Threads: b[1], Time: le.Uint32(b[152:]), MemoryKiB: le.Uint32(b[156:])},
	}
	switch {
	case b[2]|b[3] != 0,
		s.Kind != vault.KindAge && ageFile != 0, s.Kind == vault.KindAge && (ageFile == 0 || ageFile > maxAgeFile), int64(ageFile) > int64(len(b)-slotSize),
		s.Kind != vault.KindPassphrase && s.KDF != vault.KDF{},
		s.Kind == vault.KindPassphrase && !bounded(s.KDF):
		return s, 0, container.ErrCorrupt
	case ageFile > 0:
		s.AgeFile = append([]byte(nil), b[slotSize:slotSize+int(ageFile)]...)
	}
	return s, slotSize + int(ageFile), nil
}

// bounded reports whether the parameters may stand in a stream. Whether this machine has the memory is checked when they are used.
func bounded(k vault.KDF) bool {
	return k.Time >= 1 && k.Time <= maxTime && k.Threads >= 1 && k.Threads <= 64 && k.MemoryKiB >= 8*uint32(k.Threads) && k.MemoryKiB <= maxMemoryKiB
}

// unlock opens a key slot, verifies commitment and MAC of the whole header under the key and returns what opens the frames.
func (h *header) unlock(secret vault.Secret, derive vault.Deriver, workers int) (*container.SegmentCrypto, error) {
	if secret == nil {
		return nil, errors.New("stream: no secret to open it with")
	}
	var k keys.FileKeys
	defer k.Destroy()
	mk, _, err := vault.OpenSlots(h.slots, h.id, secret, derive, func(mk *keys.MasterKey) error {
		k = keys.Stream(mk, h.id, h.params)
		if !hmac.Equal(k.Commitment[:], h.commitment[:]) {
			return &Error{Offset: 48, Err: container.ErrKey}
		}
		if !hmac.Equal(headerMAC(h.raw, &k.Auth), h.raw[len(h.raw)-macSize:]) {
			return &Error{Offset: int64(len(h.raw) - macSize), Err: fmt.Errorf("header: %w", container.ErrAuth)}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	mk.Destroy()
	return container.NewSegmentCrypto(h.id, keys.ObjectID{}, h.params, &k, workers)
}

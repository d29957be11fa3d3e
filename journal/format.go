package journal

import (
	"crypto/hmac"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"strings"
)

const (
	// DefaultSize is that of all pieces together.
	DefaultSize = 128 << 20
	// PieceSize is the length of each host file.
	PieceSize = 8 << 20

	// MinSize is the least that Config.Size may be.
	MinSize = minPieces * PieceSize

	minPieces = 4
	maxPieces = 1024

	version      = 1
	pieceMagic   = "COFFERJ1"
	pieceLabel   = "coffer piece v1\x00"
	recordMagic  = "CJR1"
	recordLabel  = "coffer record v1"
	sector       = 512  // records begin at multiples; the host writes one whole or not at all
	pieceHeader  = 4096 // bytes before the first record of a piece
	headerPlaces = 2    // in each piece
	headerStep   = 2048 // between the two
	pieceMACAt   = sector - 32
	recordHeader = 96
	recordMACAt  = recordHeader - macSize
	macSize      = 16
	minPiece     = pieceHeader + sector
	maxSequence  = 1 << 40 // 8 EiB of log; keeps positions within 64 bits

	kindData   = 1
	flagFirst  = 1
	flagCommit = 2
)

// LSN is a byte position in the endless log (headers of pieces do not count). That of a transaction is its end; 0 lies before all of them.
type LSN uint64

// chain is the MAC of a record, truncated; that of the next record covers it.
type chain [macSize]byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// span is how many bytes of log a piece of the given size holds.
func span(pieceSize int64) LSN { return LSN(pieceSize - pieceHeader) }

// header is one of the two headers of a piece.
type header struct {
	vault, id [16]byte
	sequence  uint64 // of the piece in the log
	size      int64  // of the piece
	durable   LSN    // synced when the header was made
	recycled  LSN    // given up when the header was made; at most limit
	chain     chain  // of the last record before the piece
}

func (h *header) start() LSN { return LSN(h.sequence) * span(h.size) }
func (h *header) limit() LSN { return h.start() + span(h.size) }

// offset is where in its piece the log position lies.
func (h *header) offset(pos LSN) int64 { return pieceHeader + int64(pos-h.start()) }

// encode makes the header, one sector, so that it is never torn. It stands at offset 0 or 2048 of the piece:
//
//	  0  8  magic "COFFERJ1"
//	  8  4  CRC32C of the 512 bytes
//	 12  2  version = 1
//	 14  2  0
//	 16 16  vault id
//	 32 16  journal id
//	 48  8  sequence of the piece
//	 56  8  LSN of its first record: sequence · (piece size − 4096)
//	 64  4  piece size
//	 68  4  0
//	 72  8  durable LSN
//	 80  8  recycled LSN
//	 88 16  chain: MAC of the record before the first one, zeros at LSN 0
//	104 376 0
//	480 32  HMAC(K_journal, "coffer piece v1"[16] ‖ bytes 0..479 with the CRC field zero)
func (h *header) encode(mac hash.Hash) *[sector]byte {
	b := new([sector]byte)
	le := binary.LittleEndian
	copy(b[:], pieceMagic)
	le.PutUint16(b[12:], version)
	copy(b[16:], h.vault[:])
	copy(b[32:], h.id[:])
	le.PutUint64(b[48:], h.sequence)
	le.PutUint64(b[56:], uint64(h.start()))
	le.PutUint32(b[64:], uint32(h.size))
	le.PutUint64(b[72:], uint64(h.durable))
	le.PutUint64(b[80:], uint64(h.recycled))
	copy(b[88:], h.chain[:])
	pieceMAC(mac, b, b[pieceMACAt:pieceMACAt])
	le.PutUint32(b[8:], crc32.Checksum(b[:], castagnoli))
	return b
}

// pieceMAC appends the MAC of a header whose CRC field is zero.
func pieceMAC(mac hash.Hash, b *[sector]byte, dst []byte) []byte {
	mac.Reset()
	mac.Write([]byte(pieceLabel))
	mac.Write(b[:pieceMACAt])
	return mac.Sum(dst)
}

// headerState says what stands at a place of a header.
type headerState int

const (
	headerNone    headerState = iota // zeros, or of another journal
	headerTorn                       // something else
	headerForged                     // whole and of this journal, but not authentic
	headerGood                       //
	headerUnknown                    // whole, of another version
)

// decodeHeader checks b, which it changes, for a header of this vault and id.
func decodeHeader(b *[sector]byte, mac hash.Hash, vault, id [16]byte) (*header, headerState) {
	le := binary.LittleEndian
	crc := le.Uint32(b[8:])
	clear(b[8:12])
	switch {
	case crc == 0 && allZero(b[:]):
		return nil, headerNone
	case string(b[:8]) != pieceMagic || crc32.Checksum(b[:], castagnoli) != crc:
		return nil, headerTorn
	}
	if le.Uint16(b[12:]) != version {
		return nil, headerUnknown
	}
	h := &header{
		vault: [16]byte(b[16:]), id: [16]byte(b[32:]), sequence: le.Uint64(b[48:]), size: int64(le.Uint32(b[64:])),
		durable: LSN(le.Uint64(b[72:])), recycled: LSN(le.Uint64(b[80:])), chain: chain(b[88:]),
	}
	if h.vault != vault || h.id != id {
		return nil, headerNone
	}
	var sum [64]byte
	if !hmac.Equal(pieceMAC(mac, b, sum[:0]), b[pieceMACAt:]) || !h.plausible() || LSN(le.Uint64(b[56:])) != h.start() ||
		!allZero(b[14:16]) || !allZero(b[68:72]) || !allZero(b[104:pieceMACAt]) {
		return nil, headerForged
	}
	return h, headerGood
}

func (h *header) plausible() bool {
	return h.sequence < maxSequence && h.size >= minPiece && h.size <= PieceSize && h.size%sector == 0 && h.durable <= h.start() && h.recycled <= h.limit()
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

const namePrefix = "journal."

// pieceName is the host name of the i-th file. Names carry no meaning: the order of pieces is that of their sequences.
func pieceName(i int) string {
	return namePrefix + string([]byte{'0' + byte(i/1000), '0' + byte(i/100%10), '0' + byte(i/10%10), '0' + byte(i%10)})
}

func isPieceName(s string) bool {
	digits, ok := strings.CutPrefix(s, namePrefix)
	return ok && len(digits) == 4 && strings.Trim(digits, "0123456789") == ""
}

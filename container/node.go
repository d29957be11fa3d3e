package container

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
)

const (
	nodeMagic   = "CTN1"
	nodePins    = 64 // offset of the pins in a node
	pinSize     = 16
	pinLabel    = "coffer pin v1\x00\x00\x00"
	headerLevel = 4 // of the header, for errors
)

// pin is the MAC of a meta block or tree node, held by its parent. The zero pin says that everything below is holes.
type pin [pinSize]byte

// unsealedPin stands in a parent for a child that is in memory only, until a flush computes its pin. It never reaches the host.
var unsealedPin = pin(bytes.Repeat([]byte{0xff}, pinSize))

func (p pin) hole() bool { return p == pin{} }

// headerPins are those that a header holds.
type headerPins [headerGroups + topNodes]pin

// pins are those of a tree.
func (h *header) pins() *headerPins {
	p := new(headerPins)
	for i := range p {
		p[i] = pin(h.body[i*pinSize:])
	}
	return p
}

// pin is one of those in the header, that of a hole where the body is no tree any more. The caller holds mu.
func (f *File) pin(i int) pin {
	if f.pins == nil {
		return pin{}
	}
	return f.pins[i]
}

// newMAC returns a hash keyed with K_auth.
func newMAC(auth *[32]byte) hash.Hash { return hmac.New(sha256.New, auth[:]) }

// keyedMAC is a hash keyed with the K_auth of a file.
type keyedMAC struct{ hash.Hash }

// takeMAC returns a hash keyed with the file's K_auth, at its beginning. To key one costs a tenth of what a block takes, so that one is used again:
// putMAC takes it back. It is no sync.Pool, which costs a small file, with its one MAC, more than it saves.
func (c *fileCrypto) takeMAC() *keyedMAC {
	mac := c.mac.Swap(nil)
	if mac == nil {
		return &keyedMAC{newMAC(&c.auth)}
	}
	mac.Reset()
	return mac
}

func (c *fileCrypto) putMAC(mac *keyedMAC) { c.mac.Store(mac) }

// pinOf computes the pin of a block (FORMAT.md section 6.1).
func (c *fileCrypto) pinOf(level uint8, index uint64, b *block) (p pin) {
	mac := c.takeMAC()
	defer c.putMAC(mac)
	var buf [sha256.Size]byte // of what comes before the block, then of the sum
	head := append(buf[:0], pinLabel...)
	head = binary.LittleEndian.AppendUint64(head, uint64(level))
	mac.Write(binary.LittleEndian.AppendUint64(head, index))
	mac.Write(b[:])
	copy(p[:], mac.Sum(buf[:0]))
	return p
}

// node views a block as a tree node:
//
//	0      4     8      16     24       32      48     64            2112
//	| magic| CRC |level |index |last LSN|file id|0 (16)| 128 pins    | 0 |
func (b *block) pin(i int) pin       { return pin(b[nodePins+pinSize*i:][:pinSize]) }
func (b *block) setPin(i int, p pin) { copy(b[nodePins+pinSize*i:], p[:]) }
func (b *block) beginNode(level uint8, index uint64, id []byte) {
	copy(b[:], nodeMagic)
	binary.LittleEndian.PutUint64(b[8:], uint64(level))
	binary.LittleEndian.PutUint64(b[16:], index)
	copy(b[32:48], id)
}

func (b *block) finishNode() {
	binary.LittleEndian.PutUint32(b[4:], crcExcept(b[:], 4))
}

// holes reports whether everything below a block of a level is holes.
func (b *block) holes(level uint8) bool {
	if level == 0 {
		return allZero(b[:])
	}
	return allZero(b[nodePins:])
}

func (b *block) checkNode(level uint8, index uint64, id []byte) error {
	switch {
	case string(b[:4]) != nodeMagic, crcExcept(b[:], 4) != binary.LittleEndian.Uint32(b[4:]),
		binary.LittleEndian.Uint64(b[8:]) != uint64(level), binary.LittleEndian.Uint64(b[16:]) != index,
		!bytes.Equal(b[32:48], id), !allZero(b[48:nodePins]), !allZero(b[nodePins+nodeFanout*pinSize:]):
		return fmt.Errorf("tree node: %w", ErrCorrupt)
	}
	return nil
}

// parentOf tells where the pin of a block is kept: in which block one level up, at which place. header is true for the pins that the
// container header holds.
func parentOf(level uint8, index uint64) (plevel uint8, pindex uint64, place int, header bool) {
	switch {
	case level == 0 && index < headerGroups:
		return 0, 0, int(index), true
	case level == 0:
		index -= headerGroups
	case level == treeLevels:
		return 0, 0, headerGroups + int(index), true
	}
	return level + 1, index >> fanoutShift, int(index & (nodeFanout - 1)), false
}

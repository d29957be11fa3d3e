package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/cofferfs/coffer/container/keys"
)

const (
	stateMagic  = "COFFERS1"
	stateLabel  = "coffer state v1"
	slotSize    = 4096
	stateSlots  = 2
	stateSize   = stateSlots * slotSize
	flagClean   = 1
	maxSessions = 64

	sessionsAt  = 128
	sessionSize = 32
	stateMACAt  = slotSize - sha256.Size
)

// session is the interval of one session that did not end cleanly, or of the open one (FORMAT.md section 10).
type session struct {
	start int64  // ns since 1970
	first uint64 // first link sequence it could draw
	end   uint64 // the first one it could not; 0 while it is open
}

// stateSlot is one decoded slot of .coffer/state.
type stateSlot struct {
	clean    bool
	sequence uint64
	vault    keys.VaultID
	nextLink uint64 // link sequences below may have been issued
	inode    uint64
	birth    int64    // ns since 1970, 0: the host does not say
	journal  [16]byte // of the open session, zero where it has none; of a clean state without meaning
	roCompat uint32
	compat   uint32
	sessions []session // at most maxSessions, the open one last
}

// What a slot can be if not good. Only these three let the other slot stand in.
var (
	errSlotEmpty = errors.New("state slot was never written")
	errSlotTorn  = errors.New("state slot is damaged")
	errSlotRead  = errors.New("state slot cannot be read")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A slot of the state file:
//
//	   0  8  magic "COFFERS1"
//	   8  4  CRC32C of the slot
//	  12  2  version = 1
//	  14  2  flags: bit 0: clean
//	  16  8  sequence
//	  24 16  vault id
//	  40  8  link sequences below this one may have been issued
//	  48  8  host inode number of the state file
//	  56  8  its birth time, ns since 1970
//	  64 16  journal id
//	  80  4  number of unclean sessions
//	  84 12  incompat, ro-compat, compat features
//	  96 32  reserved
//	 128 32  each: i64 start, u64 first link sequence, u64 end link sequence, 8 reserved
//	4064 32  HMAC(K_state, "coffer state v1"[16] ‖ bytes 0..4063 with the CRC field zero)
func (s *stateSlot) encode(key []byte) *[slotSize]byte {
	b := new([slotSize]byte)
	le := binary.LittleEndian
	copy(b[:], stateMagic)
	le.PutUint16(b[12:], formatVersion)
	if s.clean {
		le.PutUint16(b[14:], flagClean)
	}
	le.PutUint64(b[16:], s.sequence)
	copy(b[24:], s.vault[:])
	le.PutUint64(b[40:], s.nextLink)
	le.PutUint64(b[48:], s.inode)
	le.PutUint64(b[56:], uint64(s.birth))
	copy(b[64:], s.journal[:])
	le.PutUint32(b[80:], uint32(len(s.sessions)))
	le.PutUint32(b[88:], s.roCompat)
	le.PutUint32(b[92:], s.compat)
	for i, x := range s.sessions {
		at := b[sessionsAt+i*sessionSize:]
		le.PutUint64(at, uint64(x.start))
		le.PutUint64(at[8:], x.first)
		le.PutUint64(at[16:], x.end)
	}
	sealSlot(b, key)
	return b
}

// sealSlot sets the HMAC, then the CRC, which covers the HMAC.
func sealSlot(b *[slotSize]byte, key []byte) {
	clear(b[8:12])
	mac := stateMAC(b, key)
	copy(b[stateMACAt:], mac[:])
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:], castagnoli))
}

// stateMAC is computed with the CRC field zero.
func stateMAC(b *[slotSize]byte, key []byte) (sum [sha256.Size]byte) {
	var label [16]byte
	copy(label[:], stateLabel)
	var zero [4]byte
	h := hmac.New(sha256.New, key)
	h.Write(label[:])
	h.Write(b[:8])
	h.Write(zero[:])
	h.Write(b[12:stateMACAt])
	h.Sum(sum[:0])
	return sum
}

// slotCRC is the CRC32C with its own field zero.
func slotCRC(b *[slotSize]byte) uint32 {
	var zero [4]byte
	c := crc32.Update(0, castagnoli, b[:8])
	c = crc32.Update(c, castagnoli, zero[:])
	return crc32.Update(c, castagnoli, b[12:])
}

// decodeSlot reads and checks one slot. A slot with a wrong magic or CRC is torn (a power cut, rot); one that is whole but was
// not made with this vault's key is ErrState: somebody wrote it. ErrVersion and ErrFeature as for config.
func decodeSlot(b *[slotSize]byte, key []byte, id keys.VaultID) (*stateSlot, error) {
	le := binary.LittleEndian
	switch {
	case allZero(b[:]):
		return nil, errSlotEmpty
	case string(b[:8]) != stateMagic:
		return nil, fmt.Errorf("%w: no magic", errSlotTorn)
	case slotCRC(b) != le.Uint32(b[8:]):
		return nil, fmt.Errorf("%w: CRC", errSlotTorn)
	}
	if v := le.Uint16(b[12:]); v != formatVersion {
		return nil, fmt.Errorf("state version %d: %w", v, ErrVersion)
	}
	s := &stateSlot{
		clean: le.Uint16(b[14:])&flagClean != 0, sequence: le.Uint64(b[16:]), vault: keys.VaultID(b[24:40]),
		nextLink: le.Uint64(b[40:]), inode: le.Uint64(b[48:]), birth: int64(le.Uint64(b[56:])),
		journal: [16]byte(b[64:80]), roCompat: le.Uint32(b[88:]), compat: le.Uint32(b[92:]),
	}
	if s.vault != id {
		return nil, fmt.Errorf("state of another vault: %w", ErrState)
	}
	if mac := stateMAC(b, key); !hmac.Equal(mac[:], b[stateMACAt:]) {
		return nil, fmt.Errorf("HMAC: %w", ErrState)
	}
	if incompat := le.Uint32(b[84:]); incompat != 0 {
		return nil, fmt.Errorf("state incompat features %#x: %w", incompat, ErrFeature)
	}
	if err := s.decodeSessions(b); err != nil {
		return nil, fmt.Errorf("state slot: %w: %w", ErrState, err)
	}
	return s, nil
}

// decodeSessions reads the list and rejects what an honest writer does not write.
func (s *stateSlot) decodeSessions(b *[slotSize]byte) error {
	le := binary.LittleEndian
	n := le.Uint32(b[80:])
	if n > maxSessions {
		return fmt.Errorf("%d sessions", n)
	}
	end := sessionsAt + int(n)*sessionSize
	if le.Uint16(b[14:])&^flagClean != 0 || !allZero(b[96:sessionsAt]) || !allZero(b[end:stateMACAt]) {
		return errors.New("reserved bytes")
	}
	for at := sessionsAt; at < end; at += sessionSize {
		x := session{start: int64(le.Uint64(b[at:])), first: le.Uint64(b[at+8:]), end: le.Uint64(b[at+16:])}
		open := x.end == 0
		last := at+sessionSize == end
		if !allZero(b[at+24:at+32]) || !open && x.end < x.first || open && (s.clean || !last) {
			return errors.New("malformed session")
		}
		s.sessions = append(s.sessions, x)
	}
	if !s.clean && (n == 0 || s.sessions[n-1].end != 0) {
		return errors.New("neither clean nor open")
	}
	return nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// closeOpen ends the open session where the writer may have stopped: at the last link sequence it may have issued.
func (s *stateSlot) closeOpen() {
	if s.clean {
		return
	}
	// A session that could draw nothing still has a start; end 0 would say that it is open.
	s.sessions[len(s.sessions)-1].end = max(s.nextLink, 1)
	s.clean = true
}

// mergeSessions leaves at most n: the two oldest become one that covers both, and what lies between.
func mergeSessions(list []session, n int) []session {
	for len(list) > n {
		a, b := list[0], list[1]
		list = list[1:]
		list[0] = session{start: min(a.start, b.start), first: min(a.first, b.first), end: max(a.end, b.end)}
	}
	return list
}

// everything is the session of a state that was lost: all times, and the link sequences below end.
func everything(end uint64) session {
	return session{start: math.MinInt64, end: max(end, 1)}
}

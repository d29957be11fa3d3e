package journal

import (
	"encoding/binary"
	"hash"
	"hash/crc32"
)

// record is the header of a record.
type record struct {
	flags    uint8
	head     int    // bytes of the transaction's head in this record
	bulk     int    // bytes of its bulk, behind
	pos      LSN    // of the first byte of the record
	number   uint64 // of the transaction, from 0
	durable  LSN    // synced when the record was made
	recycled LSN    // given up when the record was made
	payload  uint32 // CRC32C of head and bulk
	mac      chain
}

func (r *record) has(flag uint8) bool { return r.flags&flag != 0 }

// size is that of the whole record in the log.
func (r *record) size() LSN { return recordSize(r.head + r.bulk) }

func (r *record) end() LSN { return r.pos + r.size() }

// recordSize is how much log a record with n bytes of payload takes.
func recordSize(n int) LSN { return LSN(recordHeader+n+sector-1) &^ (sector - 1) }

// encode writes the header of a record, all but the MAC and its own CRC, which sealRecord sets. Head and bulk follow it, then whatever fills the sector; a writer
// writes zeros.
//
//	 0  4  magic "CJR1"
//	 4  4  CRC32C of the 96 bytes
//	 8  4  CRC32C of head and bulk
//	12  1  kind: 1
//	13  1  flags: bit 0: first record of its transaction; bit 1: commit, the last one
//	14  2  0
//	16  4  length of the head in this record
//	20  4  length of the bulk in this record
//	24  8  LSN of the first byte of this record
//	32  8  transaction number: 0, 1, 2, …
//	40  8  durable LSN
//	48  8  recycled LSN
//	56 16  journal id
//	72  8  0
//	80 16  MAC = HMAC(K_journal, "coffer record v1"[16] ‖ MAC of the record before ‖ bytes 0..79 with the CRC at 4 zero ‖ head)[0:16]
//
// The header has a CRC of its own because its lengths are used before, and its durable LSN even without, the payload.
func (r *record) encode(b []byte, id *[16]byte) {
	le := binary.LittleEndian
	clear(b[:recordHeader])
	copy(b, recordMagic)
	le.PutUint32(b[8:], r.payload)
	b[12] = kindData
	b[13] = r.flags
	le.PutUint32(b[16:], uint32(r.head))
	le.PutUint32(b[20:], uint32(r.bulk))
	le.PutUint64(b[24:], uint64(r.pos))
	le.PutUint64(b[32:], r.number)
	le.PutUint64(b[40:], uint64(r.durable))
	le.PutUint64(b[48:], uint64(r.recycled))
	copy(b[56:], id[:])
}

// sealRecord sets the MAC of an encoded header, then the CRC over all of it.
func sealRecord(b []byte, mac *chain) {
	copy(b[recordMACAt:recordHeader], mac[:])
	clear(b[4:8])
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[:recordHeader], castagnoli))
}

// decodeRecord checks what stands at a log position against everything that needs no payload and no key. ok says that it is the header of a
// record of this journal at this very position, whose payload lies before limit.
func decodeRecord(b []byte, id *[16]byte, pos, limit LSN) (r record, ok bool) {
	le := binary.LittleEndian
	if len(b) < recordHeader || !begun(b, id, pos) {
		return record{}, false
	}
	h := [recordHeader]byte(b)
	clear(h[4:8])
	if crc32.Checksum(h[:], castagnoli) != le.Uint32(b[4:]) {
		return record{}, false
	}
	head, bulk := int64(le.Uint32(b[16:])), int64(le.Uint32(b[20:]))
	if b[12] != kindData || b[13]&^(flagFirst|flagCommit) != 0 || !allZero(b[14:16]) || !allZero(b[72:80]) || head+bulk > int64(limit-pos)-recordHeader {
		return record{}, false
	}
	r = record{
		flags: b[13], head: int(head), bulk: int(bulk), pos: pos, number: le.Uint64(b[32:]), durable: LSN(le.Uint64(b[40:])), recycled: LSN(le.Uint64(b[48:])),
		payload: le.Uint32(b[8:]), mac: chain(b[recordMACAt:]),
	}
	return r, r.durable <= pos && r.recycled <= pos
}

// begun reports whether b looks like the beginning of a record of this journal at pos, whole or torn.
func begun(b []byte, id *[16]byte, pos LSN) bool {
	return len(b) >= recordHeader && string(b[:4]) == recordMagic && LSN(binary.LittleEndian.Uint64(b[24:])) == pos && [16]byte(b[56:]) == *id
}

// sealer computes the chain. Not for concurrent use.
type sealer struct {
	mac hash.Hash
	sum [64]byte
	pre [recordMACAt]byte
}

// begin starts the MAC of the record with this encoded header; the head goes to s.mac next.
func (s *sealer) begin(prev *chain, b []byte) {
	copy(s.pre[:16], recordLabel)
	copy(s.pre[16:], prev[:])
	s.mac.Reset()
	s.mac.Write(s.pre[:16+macSize])
	copy(s.pre[:], b[:recordMACAt])
	clear(s.pre[4:8])
	s.mac.Write(s.pre[:])
}

// end returns the MAC.
func (s *sealer) end() chain { return chain(s.mac.Sum(s.sum[:0])) }

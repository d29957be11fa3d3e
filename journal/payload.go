package journal

import (
	"hash/crc32"

	"github.com/cofferfs/coffer/internal/crc32c"
)

// payload is what is left of head and bulk.
type payload struct {
	head []byte
	bulk [][]byte
	sums []uint32 // CRC32C of each slice of bulk, or nil
	skip int      // bytes of bulk[0] that are gone
	left int      // bytes of head and bulk
}

// take cuts n bytes off the front.
func (t *payload) take(n int) payload {
	part := payload{head: t.head[:min(n, len(t.head))], bulk: t.bulk, sums: t.sums, skip: t.skip, left: n}
	t.left -= n
	t.head = t.head[len(part.head):]
	for n -= len(part.head); n > 0; {
		k := min(n, len(t.bulk[0])-t.skip)
		n -= k
		if t.skip += k; t.skip == len(t.bulk[0]) {
			t.drop()
		}
	}
	return part
}

// next cuts the longest run that lies in one slice off the front; it is empty for empty slices.
func (t *payload) next() []byte {
	if len(t.head) > 0 {
		s := t.head
		t.head = nil
		t.left -= len(s)
		return s
	}
	s := t.bulk[0][t.skip:]
	if len(s) > t.left {
		s = s[:t.left]
	}
	t.drop()
	t.left -= len(s)
	return s
}

// drop takes the first slice of bulk away.
func (t *payload) drop() {
	t.bulk, t.skip = t.bulk[1:], 0
	if t.sums != nil {
		t.sums = t.sums[1:]
	}
}

// checksum is the CRC32C of all of it.
func (t payload) checksum() uint32 {
	crc := uint32(0)
	for t.left > 0 {
		if len(t.head) == 0 && t.sums != nil && t.skip == 0 && len(t.bulk[0]) <= t.left {
			sum := t.sums[0]
			crc = crc32c.Combine(crc, sum, int64(len(t.next())))
			continue
		}
		crc = crc32.Update(crc, castagnoli, t.next())
	}
	return crc
}

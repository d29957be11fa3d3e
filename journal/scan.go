package journal

import (
	"crypto/hmac"
	"errors"
	"hash/crc32"
	"io"

	"github.com/cofferfs/coffer/internal/disk"
)

const windowSize = 256 << 10

// window is a part of a piece in memory.
type window struct {
	f   disk.File
	buf []byte
	off int64
	n   int
}

// at returns n bytes (at most windowSize) at off, fewer at the end of the file; they are valid until the next call.
func (w *window) at(f disk.File, off int64, n int) ([]byte, error) {
	if w.f != f || off < w.off || off+int64(n) > w.off+int64(w.n) {
		w.f = nil
		k, err := f.ReadAt(w.buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		w.f, w.off, w.n = f, off, k
	}
	b := w.buf[off-w.off : w.n]
	return b[:min(n, len(b))], nil
}

// scan verifies the records of a piece, one after another, from its first to the one that is bad, missing or not wholly below until, and calls visit with
// each good one and its part of the head, which is valid during the call. It returns the end of the last good one and the chain there. Errors are the host's, and visit's.
func (r *Reader) scan(s *source, until LSN, visit func(rec *record, head []byte) error) (LSN, chain, error) {
	pos, ch := s.header.start(), s.header.chain
	for pos < until {
		rec, ok, err := r.readRecord(s, pos, &ch)
		if err != nil || !ok || rec.end() > until {
			return pos, ch, err
		}
		if err := visit(&rec, r.head); err != nil {
			return pos, ch, err
		}
		pos, ch = rec.end(), rec.mac
	}
	return pos, ch, nil
}

// readRecord reads and verifies the record at pos, whose part of the head is then in r.head.
func (r *Reader) readRecord(s *source, pos LSN, prev *chain) (rec record, ok bool, err error) {
	off := s.header.offset(pos)
	b, err := r.window.at(s.f, off, recordHeader)
	if err != nil {
		return record{}, false, err
	}
	if rec, ok = decodeRecord(b, &r.c.ID, pos, s.header.limit()); !ok {
		return record{}, false, nil
	}
	r.sealer.begin(prev, b)
	r.head = r.head[:0]
	crc := uint32(0)
	off += recordHeader
	for left := rec.head + rec.bulk; left > 0; {
		b, err := r.window.at(s.f, off, min(left, windowSize))
		if err != nil || len(b) == 0 {
			return record{}, false, err
		}
		crc = crc32.Update(crc, castagnoli, b)
		r.head = append(r.head, b[:min(len(b), rec.head-len(r.head))]...)
		off += int64(len(b))
		left -= len(b)
	}
	if crc != rec.payload {
		return record{}, false, nil
	}
	r.sealer.mac.Write(r.head)
	mac := r.sealer.end()
	return rec, hmac.Equal(mac[:], rec.mac[:]), nil
}

// verify finds out what every piece holds by itself, then which of it is the log that is to be replayed, and whether that is all there was.
func (r *Reader) verify() error {
	for _, s := range r.pieces {
		var err error
		// What a record says was given up holds wherever it stands, even behind a gap.
		s.end, s.chain, err = r.scan(s, s.header.limit(), func(rec *record, _ []byte) error {
			r.recycled = max(r.recycled, rec.recycled)
			return nil
		})
		if err != nil {
			return err
		}
	}
	r.reconcile()
	r.gap = r.recycled
	first := uint64(r.recycled / span(r.pieces[0].header.size))
	for i, s := range r.pieces {
		switch {
		case s.header.sequence < first:
			continue
		case len(r.run) == 0 && s.header.sequence == first:
		case len(r.run) == 0 || !r.run[len(r.run)-1].continues(s):
			return r.beyond(r.pieces[i:])
		}
		r.run = append(r.run, s)
		if r.gap = max(r.recycled, s.end); s.end < s.header.limit() {
			return r.beyond(r.pieces[i:])
		}
	}
	return nil
}

// continues reports whether the log goes on from s in next.
func (s *source) continues(next *source) bool {
	return s.end == s.header.limit() && next.header.sequence == s.header.sequence+1 && next.header.chain == s.chain
}

// beyond looks at what lies behind the gap: anything there says that the log is torn, which is normal. That it is there although durable commits
// before it are missing is not: then one of the records states that the log was durable past the gap.
func (r *Reader) beyond(pieces []*source) error {
	for _, s := range pieces {
		r.lost = r.lost || s.header.durable > r.gap
		r.cut = r.cut || s.cut
		for pos := max(s.header.start(), r.gap); pos < s.header.limit(); pos += sector {
			b, err := r.window.at(s.f, s.header.offset(pos), recordHeader)
			if err != nil {
				return err
			}
			r.torn = r.torn || begun(b, &r.c.ID, pos)
			rec, ok := decodeRecord(b, &r.c.ID, pos, s.header.limit())
			r.lost = r.lost || ok && rec.durable > r.gap
		}
	}
	return nil
}

// reconcile sorts out pieces that contradict each other: of two of one sequence the longer one counts, and of two sizes that of the first.
func (r *Reader) reconcile() {
	kept := r.pieces[:0]
	for _, s := range r.pieces {
		switch n := len(kept); {
		case n == 0 || !s.contradicts(kept[n-1]):
			kept = append(kept, s)
			continue
		case s.header.size == kept[n-1].header.size && s.end > kept[n-1].end:
			kept[n-1], s = s, kept[n-1]
		}
		r.doubles, r.lost = append(r.doubles, s), true
	}
	r.pieces = kept
}

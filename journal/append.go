package journal

import (
	"fmt"
	"slices"
)

// Entry is a transaction to append. What it holds is only read, and not kept.
type Entry struct {
	Head  []byte
	Bulk  [][]byte // one string of bytes, cut anyhow
	Sums  []uint32 // CRC32C of each slice of Bulk, where they are known, else nil
	Hurry Hurry    // what is known of the Sync that follows

	// From, where it is set, is told where the transaction will begin, once there is room for it and before it, or another, is written. It must not call
	// the Journal. Append answers its error as it is, and appends nothing then.
	From func(LSN) error
}

// Hurry says what is known of the Sync after an Append.
type Hurry uint8

const (
	Later Hurry = iota // nothing
	Soon               // it comes at once: Append may take a way to the disk that leaves nothing to it
	Ahead              // it comes in a moment: the disk may begin, and Sync, or the next Append, waits for it
)

// Append writes one transaction to the pieces and returns its LSN. The transaction then survives the death of the process, and after Sync a power cut.
// Transactions are ordered as their Appends took effect. In steady state nothing is allocated.
//
// While there is no room Append waits, until Recycle makes some or Pressed answers that none is to be had. So a goroutine that appends must not be the only one
// that recycles.
//
// All or nothing: after an error nothing of the transaction is ever delivered, as far as the host obeys. The errors:
//
//	ErrTooLarge           it would not fit an empty journal
//	ENOSPC, EDQUOT        the host has no room for a piece that it needs, and it does not fit those that there are, even if empty; the caller may try again
//	of Pressed, or From   as they answered it; the caller may try again
//	ErrFailed             sticky: a write or sync failed, now or before
//	ErrClosed
func (j *Journal) Append(e Entry) (LSN, error) {
	t := payload{head: e.Head, bulk: e.Bulk, sums: e.Sums, left: len(e.Head)}
	for _, b := range e.Bulk {
		t.left += len(b)
	}
	if t.left > maxTransaction(int64(j.max), j.c.pieceSize) {
		return 0, fmt.Errorf("journal: %d bytes: %w", t.left, ErrTooLarge)
	}
	j.waiting.Add(1)
	j.appending.Lock()
	w := way(e.Hurry)
	if j.waiting.Add(-1) > 0 {
		w = cached // one sync for all of them is less
	}
	lsn, err := j.append(&t, e.From, w)
	j.appending.Unlock()
	if err != nil {
		return 0, err
	}
	_ = j.press(false) // the transaction stands, whether there will be room for the next or not
	return lsn, nil
}

// way is how a transaction gets to its piece, as its Hurry asks for.
type way uint8

const (
	cached = way(Later) // through the host's page cache: a Sync makes it durable
	direct = way(Soon)  // past it: it is durable then
	flying = way(Ahead) // past it, and the host goes on by itself
)

// append is Append under appending.
func (j *Journal) append(t *payload, from func(LSN) error, w way) (LSN, error) {
	if err := j.land(); err != nil {
		return 0, err
	}
	begin, err := j.reserve(t.left)
	if err != nil {
		return 0, err
	}
	if from != nil {
		if err := from(begin); err != nil {
			return 0, err
		}
	}
	ahead := w == flying
	j.mu.Lock()
	if j.synced != begin { // J3: what lies before may be in the page cache alone
		w = cached
	}
	j.mu.Unlock()
	end, stated, err := j.write(t, begin, &w)
	if err != nil {
		j.revoke(begin)
		return 0, j.fail("write", err)
	}
	j.number++
	j.mu.Lock()
	j.end, j.stated = end, stated
	last := j.live[len(j.live)-1] // once mu is free it may be recycled
	unsynced := max(j.synced, last.header.start())
	switch w {
	case direct:
		j.synced, j.given = end, stated
	case flying:
		j.flying = last
	}
	j.mu.Unlock()
	if ahead && w == cached {
		last.start(unsynced, end)
	}
	return end, nil
}

// write writes the records of a transaction from pos on, in reserved pieces, and returns its end, and what they say that is recycled. w is the way that they
// may go, and becomes the one that they went.
func (j *Journal) write(t *payload, pos LSN, w *way) (end, stated LSN, err error) {
	for first := true; first || t.left > 0; first = false {
		p, err := j.pieceAt(pos, *w)
		if err != nil {
			return 0, 0, err
		}
		rec := record{pos: pos, number: j.number}
		part := t.take(min(t.left, int(p.header.limit()-pos)-recordHeader))
		rec.head, rec.bulk = len(part.head), part.left-len(part.head)
		if first {
			rec.flags |= flagFirst
		}
		if t.left == 0 {
			rec.flags |= flagCommit
		}
		if *w == flying && (!first || t.left > 0) {
			*w = direct // one record can fly
		}
		j.mu.Lock()
		rec.durable, rec.recycled = j.synced, j.recycled
		j.mu.Unlock()
		if err := j.writeRecord(p, &rec, part, w); err != nil {
			return 0, 0, err
		}
		pos, stated = rec.end(), rec.recycled
	}
	return pos, stated, nil
}

// pieceAt returns the piece of a log position, and begins a free one where that is its first byte (J4 by being free). Its header need not be waited for (J2) where a
// Sync is to come that brings it to the disk with the records, w, and nobody misses what the piece held: what is durable says that it was recycled.
func (j *Journal) pieceAt(pos LSN, w way) (*piece, error) {
	d := span(j.c.pieceSize)
	j.mu.Lock()
	if pos%d != 0 {
		p := j.live[len(j.live)-1]
		j.mu.Unlock()
		return p, nil
	}
	p := j.free[0]
	h := header{
		vault: j.c.Vault, id: j.c.ID, sequence: uint64(pos / d), size: j.c.pieceSize, durable: j.synced, recycled: j.recycled, chain: j.chain,
	}
	missed := !p.used || p.header.limit() > j.given
	j.mu.Unlock()
	if err := p.writeHeader(&h, j.sealer.mac, missed || w != cached); err != nil {
		return nil, err
	}
	j.mu.Lock()
	j.free = append(j.free[:0], j.free[1:]...)
	j.live = append(j.live, p)
	j.mu.Unlock()
	return p, nil
}

// writeRecord writes one record. w is that of write.
func (j *Journal) writeRecord(p *piece, rec *record, part payload, w *way) error {
	off := p.header.offset(rec.pos)
	before := int(off % hostBlock)
	copy(j.buf[:before], j.last)
	g := gather{f: p.f, off: off - int64(before), b: j.buf[:before+recordHeader]}
	end := g.off + roundUp(int64(before)+int64(rec.size()), hostBlock)
	pad := int(min(end, p.header.size)-off) - recordHeader - part.left

	rec.payload = part.checksum()
	h := g.b[before:]
	rec.encode(h, &j.c.ID)
	j.sealer.begin(&j.chain, h)
	j.sealer.mac.Write(part.head)
	mac := j.sealer.end()
	sealRecord(h, &mac)

	if p.direct == nil || len(g.b)+part.left+pad > cap(g.b) {
		*w = cached
	}
	for part.left > 0 {
		if err := g.add(part.next()); err != nil {
			return err
		}
	}
	if err := g.add(zeros[:pad]); err != nil {
		return err
	}
	last := int(p.header.offset(rec.end()) % hostBlock)
	j.last = g.b[len(g.b)-int(roundUp(int64(last), hostBlock)):][:last]
	j.chain = mac
	return g.end(p, w)
}

// revoke takes the first record of a failed transaction away, durably, so that it is not replayed should all of it have reached the host. Where even that
// fails nobody can help.
func (j *Journal) revoke(begin LSN) {
	j.mu.Lock()
	live := slices.Clone(j.live)
	j.mu.Unlock()
	for _, p := range live {
		if p.header.start() <= begin && begin < p.header.limit() {
			if _, err := p.f.WriteAt(zeros[:sector], p.header.offset(begin)); err == nil {
				_ = p.f.Datasync()
			}
		}
	}
}

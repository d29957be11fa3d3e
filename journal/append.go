package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"syscall"
	"time"

	"github.com/cofferfs/coffer/internal/crc32c"
	"github.com/cofferfs/coffer/internal/event"
)

// askAgain is how long an Append waits for room before it asks for it once more.
const askAgain = 100 * time.Millisecond

// Entry is a transaction to append. What it holds is only read, and not kept.
type Entry struct {
	Head []byte
	Bulk [][]byte // one string of bytes, cut anyhow
	Sums []uint32 // CRC32C of each slice of Bulk, where they are known, else nil
	Soon bool     // a Sync follows at once; it may then find that nothing is left to do

	// From, where it is set, is told where the transaction will begin, once there is room for it, before it is written and before another can come. It must not call the
	// Journal. Its error is answered as it is, and nothing was appended.
	From func(LSN) error
}

// Append writes one transaction to the pieces and returns its LSN. It then survives the death of the process, and after Sync a power cut.
//
// It waits while there is no room, until Recycle makes some or Pressed says that it will not: never call Recycle after it in the same goroutine alone. All or nothing: after an error
// nothing of the transaction is ever delivered, as far as the host obeys. Errors: ErrTooLarge; ENOSPC or EDQUOT where a piece that the transaction
// needs cannot be made and those that there are would not do even if empty (nothing has happened, the caller may try again; as long as
// they would do it waits for them); what Pressed answered to one that waits, likewise; ErrFailed, sticky; ErrClosed. Transactions are ordered as their Appends took effect; it allocates nothing in steady state.
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
	alone := j.waiting.Add(-1) == 0 // else one sync for all of them is less
	lsn, err := j.append(&t, e.From, e.Soon && alone)
	j.appending.Unlock()
	if err != nil {
		return 0, err
	}
	_ = j.press(false) // the transaction stands, whether there will be room for the next or not
	return lsn, nil
}

// append is Append under appending. direct: it may go straight to the disk.
func (j *Journal) append(t *payload, from func(LSN) error, direct bool) (LSN, error) {
	begin, err := j.reserve(t.left)
	if err != nil {
		return 0, err
	}
	if from != nil {
		if err := from(begin); err != nil {
			return 0, err
		}
	}
	j.mu.Lock()
	direct = direct && j.synced == begin // J3: what lies before may be in the page cache alone
	j.mu.Unlock()
	end, stated, err := j.write(t, begin, &direct)
	if err != nil {
		j.revoke(begin)
		return 0, j.fail("write", err)
	}
	j.number++
	j.mu.Lock()
	j.end, j.stated = end, stated
	if direct {
		j.synced, j.given = end, stated
	}
	j.mu.Unlock()
	return end, nil
}

// piecesFor says how many pieces a transaction of n bytes at pos begins.
func (j *Journal) piecesFor(pos LSN, n int) int {
	d := span(j.c.pieceSize)
	pieces := 0
	for first := true; first || n > 0; first = false {
		if pos%d == 0 {
			pieces++
		}
		part := min(n, int(d-pos%d)-recordHeader)
		pos += recordSize(part)
		n -= part
	}
	return pieces
}

// reserve returns where a transaction of n bytes begins, once the pieces for it are free: first those that were recycled, then new ones, then it
// waits. The caller holds appending, so that they stay free.
func (j *Journal) reserve(n int) (begin LSN, err error) {
	var full error // of the host, when no more pieces can be made
	for {
		j.mu.Lock()
		err, free, total, seen, begin := j.usable(), len(j.free), len(j.live)+len(j.free), j.recycled, j.end
		j.mu.Unlock()
		need, begun := j.piecesFor(begin, n), 0
		if begin%span(j.c.pieceSize) != 0 {
			begun = 1 // the piece that the transaction begins in stays in use
		}
		switch {
		case err != nil:
			return 0, err
		case free >= need:
			return begin, nil
		case full == nil && total < j.max:
			if full, err = j.grow(); err != nil {
				return 0, err
			}
			continue
		case full != nil && total < need+begun:
			next := begin + span(j.c.pieceSize) - 1
			next -= next % span(j.c.pieceSize)
			switch {
			case total < j.piecesFor(next, n):
				return 0, fmt.Errorf("journal: make a piece: %w", full)
			case seen == begin:
				j.skipTo(next)
				continue
			}
		}
		if err := j.press(true); err != nil {
			return 0, err
		}
		j.await(seen)
	}
}

// skipTo has the log go on at the front of a piece, though the one in use has room left: all of it is recycled, so it can be used again. The caller
// holds appending.
func (j *Journal) skipTo(next LSN) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.free = append(j.free, j.live...)
	j.live = j.live[:0]
	j.end, j.synced, j.recycled = next, next, next
}

// await returns when more than seen is recycled, or nothing will be, or after a while: who was asked for room may have been unable to make any just then.
func (j *Journal) await(seen LSN) {
	late := false
	timer := time.AfterFunc(askAgain, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		late = true
		j.cond.Broadcast()
	})
	defer timer.Stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.recycled == seen && j.usable() == nil && !late {
		j.cond.Wait()
	}
}

// Prepare makes the first piece, where there is none: then a host that gets full later still takes transactions. One that is full now is no error.
func (j *Journal) Prepare() error {
	j.appending.Lock()
	defer j.appending.Unlock()
	j.mu.Lock()
	err, total := j.usable(), len(j.live)+len(j.free)
	j.mu.Unlock()
	if err != nil || total > 0 {
		return err
	}
	_, err = j.grow()
	return err
}

// grow makes a piece. full says that the host has no room for one, or this process no descriptor; anything else is sticky.
func (j *Journal) grow() (full, err error) {
	p, err := makePiece(j.c.Dir, pieceName(j.made), j.c.pieceSize)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		if !j.stunted {
			j.c.Events.Emit(event.Event{Kind: event.Info, Object: pieceName(j.made), Offset: -1, Err: err, Note: "no room or descriptor for another piece: the journal stays smaller"})
		}
		j.stunted = true
		return err, nil
	case err != nil:
		return nil, j.fail("make a piece", err)
	}
	j.made++
	j.stunted = false
	j.mu.Lock()
	j.free = append(j.free, p)
	j.mu.Unlock()
	return nil, nil
}

// press asks the caller for room: where more than half is used, once until that was answered or much came to it; always where somebody waits. An error
// says that there will be none.
func (j *Journal) press(waiting bool) error {
	if j.c.Pressed == nil {
		return nil
	}
	size := LSN(j.max) * LSN(j.c.pieceSize)
	j.mu.Lock()
	end := j.end
	ask := waiting || end-j.recycled > size/2 && (j.pressed <= j.recycled || end-j.pressed > size/8)
	if ask {
		j.pressed = end
	}
	j.mu.Unlock()
	if !ask {
		return nil
	}
	return j.c.Pressed(end)
}

// write writes the records of a transaction from pos on, in reserved pieces, and returns its end, and what they say that is recycled. Where direct is set they go
// straight to the disk; it is unset where one of them could not.
func (j *Journal) write(t *payload, pos LSN, direct *bool) (end, stated LSN, err error) {
	for first := true; first || t.left > 0; first = false {
		p, err := j.pieceAt(pos)
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
		j.mu.Lock()
		rec.durable, rec.recycled = j.synced, j.recycled
		j.mu.Unlock()
		if err := j.writeRecord(p, &rec, part, direct); err != nil {
			return 0, 0, err
		}
		pos, stated = rec.end(), rec.recycled
	}
	return pos, stated, nil
}

// pieceAt returns the piece of a log position, and begins a free one where that is its first byte (J4 by being free).
func (j *Journal) pieceAt(pos LSN) (*piece, error) {
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
	j.mu.Unlock()
	if err := p.writeHeader(&h, j.sealer.mac); err != nil {
		return nil, err
	}
	j.mu.Lock()
	j.free = append(j.free[:0], j.free[1:]...)
	j.live = append(j.live, p)
	j.mu.Unlock()
	return p, nil
}

// writeRecord writes one record. direct is that of write.
func (j *Journal) writeRecord(p *piece, rec *record, part payload, direct *bool) error {
	off := p.header.offset(rec.pos)
	before := int(off % hostBlock)
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

	*direct = *direct && p.direct != nil && len(g.b)+part.left+pad <= cap(g.b)
	for part.left > 0 {
		if err := g.add(part.next()); err != nil {
			return err
		}
	}
	if err := g.add(zeros[:pad]); err != nil {
		return err
	}
	last := int(p.header.offset(rec.end()) % hostBlock)
	if *direct {
		var err error
		if *direct, err = p.writeDirect(g.b, g.off); err != nil {
			return err
		}
	}
	if !*direct {
		if err := g.write(g.b); err != nil {
			return err
		}
	}
	if last > 0 {
		copy(j.buf[:last], g.b[(len(g.b)-1)&^(hostBlock-1):])
	}
	j.chain = mac
	return nil
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

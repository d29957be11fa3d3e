package journal

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cofferfs/coffer/internal/disk"
)

// Transaction is one that was appended, verified as a whole.
type Transaction struct {
	LSN     LSN
	Head    []byte // valid during the call only
	BulkLen int64

	bulk []place
}

// Keep answers the bulk of the transaction for use after the call.
func (t *Transaction) Keep() Bulk { return Bulk{slices.Clone(t.bulk), t.BulkLen} }

// Bulk is where the bulk of a transaction lies. It can be read until the Reader is closed, also concurrently.
type Bulk struct {
	places []place
	n      int64
}

// ReadAt reads len(p) bytes at off. Errors are the host's; a range beyond the end is io.ErrUnexpectedEOF. What is read was verified by Each and is not
// verified again.
func (b Bulk) ReadAt(p []byte, off int64) error { return readPlaces(b.places, b.n, p, off) }

// Log says what Each delivered and what it ended at.
type Log struct {
	Transactions int
	Bytes        int64 // of their heads and bulks
	Recycled     LSN   // transactions up to here were given up and are not delivered
	End          LSN   // of the last transaction, at least Recycled
	// Torn: something of later transactions is there, but not all. They had not been synced unless Lost says so: a power cut does that.
	Torn bool
	// Lost: a later record states that transactions beyond End had been durable. This is no crash: the host lost or changed what it had
	// acknowledged, and what the log delivers is not the last state.
	Lost bool
	// Cut: the piece in which the log ends, or a later one, is shorter than it was made, or one has no header that says whose it is, which is synced before all
	// else (J2). This is no crash either, and what was there nobody knows.
	Cut bool
}

// Damaged reports whether the log may end before its end for a reason that is no crash.
func (l *Log) Damaged() bool { return l.Lost || l.Cut }

// place is a run of bulk bytes in a piece.
type place struct {
	f      disk.File
	off, n int64
}

// assembly puts records together to transactions.
type assembly struct {
	fn   func(t *Transaction, bulk func(p []byte, off int64) error) error
	log  Log
	seen bool // a record that begins a transaction
	open bool
	next uint64 // number of the transaction that is open, or comes next
	t    Transaction
}

// Each calls fn with every complete transaction that was not recycled, in order of LSN. bulk reads len(p) bytes of its bulk at off, and is valid during the call
// only. It may be called several times. Errors are fn's, unchanged, the host's, or ErrMalformed; the Log then says how far it came.
func (r *Reader) Each(fn func(t *Transaction, bulk func(p []byte, off int64) error) error) (Log, error) {
	a := assembly{fn: fn, log: Log{Recycled: r.recycled, End: r.recycled, Torn: r.torn, Lost: r.lost, Cut: r.cut}}
	for _, s := range r.run {
		r.window.f = nil // read anew: the bulk is read past it
		end, _, err := r.scan(s, s.end, func(rec *record, head []byte) error { return a.add(s, rec, head) })
		if r.c.Salvage && errors.Is(err, ErrMalformed) {
			a.log.Lost = true
			return a.log, nil
		}
		if err != nil {
			return a.log, err
		}
		if end != s.end {
			return a.log, fmt.Errorf("journal: %s changed while it was read: %w", s.name, ErrMalformed)
		}
	}
	a.log.Torn = a.log.Torn || a.open
	return a.log, nil
}

// add takes the next record of the log.
func (a *assembly) add(s *source, rec *record, head []byte) error {
	if rec.has(flagFirst) {
		if a.open || a.seen && rec.number != a.next {
			return fmt.Errorf("journal: record at %d: %w", rec.pos, ErrMalformed)
		}
		a.seen, a.open, a.next = true, true, rec.number
		a.t.Head, a.t.BulkLen, a.t.bulk = a.t.Head[:0], 0, a.t.bulk[:0]
	} else if !a.open {
		if a.seen || rec.pos > a.log.Recycled {
			return fmt.Errorf("journal: record at %d: %w", rec.pos, ErrMalformed)
		}
		return nil // the rest of a transaction that began in a piece that was given up
	}
	if rec.number != a.next || rec.head > 0 && a.t.BulkLen > 0 {
		return fmt.Errorf("journal: record at %d: %w", rec.pos, ErrMalformed)
	}
	a.t.Head = append(a.t.Head, head...)
	if rec.bulk > 0 {
		a.t.bulk = append(a.t.bulk, place{s.f, s.header.offset(rec.pos) + recordHeader + int64(rec.head), int64(rec.bulk)})
		a.t.BulkLen += int64(rec.bulk)
	}
	if !rec.has(flagCommit) {
		return nil
	}
	a.open = false
	a.next++
	if a.t.LSN = rec.end(); a.t.LSN <= a.log.Recycled {
		return nil
	}
	if err := a.fn(&a.t, a.readBulk); err != nil {
		return err
	}
	a.log.Transactions++
	a.log.Bytes += int64(len(a.t.Head)) + a.t.BulkLen
	a.log.End = a.t.LSN
	return nil
}

// readBulk is the function that fn gets.
func (a *assembly) readBulk(p []byte, off int64) error {
	return readPlaces(a.t.bulk, a.t.BulkLen, p, off)
}

// readPlaces reads len(p) bytes at off of n bytes that lie in all.
func readPlaces(all []place, n int64, p []byte, off int64) error {
	if off < 0 || off > n || int64(len(p)) > n-off {
		return fmt.Errorf("journal: read bulk: %d bytes at %d of %d: %w", len(p), off, n, io.ErrUnexpectedEOF)
	}
	for _, b := range all {
		if len(p) == 0 {
			break
		}
		if off >= b.n {
			off -= b.n
			continue
		}
		k := min(int64(len(p)), b.n-off)
		if _, err := b.f.ReadAt(p[:k], b.off+off); err != nil {
			return fmt.Errorf("journal: read bulk: %w", err)
		}
		p, off = p[k:], 0
	}
	return nil
}

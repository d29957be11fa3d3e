package journal

import (
	"fmt"
	"hash"
	"sync"
	"sync/atomic"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// Config says where a journal lies and whose it is.
type Config struct {
	Dir   disk.Dir         // holds the pieces; stays the caller's, and open as long as the journal is
	MAC   func() hash.Hash // makes a keyed hash of at least 32 bytes (HMAC-SHA256 under K_journal)
	Vault [16]byte
	ID    [16]byte // drawn anew for each session that writes
	Size  int64    // of all pieces in bytes, 0: DefaultSize; rounded down to whole pieces, of which there are 4 to 1024
	// Pressed asks for Sync and Recycle up to the LSN: more than half of the journal is used, or an Append waits for room. It is called without a lock, from within
	// Append, and must not wait for it. An error, as of a full host, says that no room is to be had now: an Append that waits answers it. May be nil: then the
	// caller recycles on its own.
	Pressed func(LSN) error
	Events  event.Sink
	// Salvage has a Reader make the best of pieces that contradict each other and of records that make no sense, which is Log.Lost then, no error.
	Salvage bool

	pieceSize int64 // tests make small ones
	inline    bool  // a spare piece is made by the Append that asks for it: tests that count host calls
}

// Journal is one being written. All methods may be called concurrently.
type Journal struct {
	c   Config
	max int // pieces

	appending sync.Mutex // one Append at a time; guards what follows
	sealer    sealer
	chain     chain  // of the last record
	number    uint64 // of the next transaction
	buf       []byte // gathers small writes; as direct files want it. What flies lies in it
	last      []byte // what its last block has, of buf: the next record writes it again
	stunted   bool   // the host had no room for the last piece, and that was said

	waiting atomic.Int32 // for appending

	mu       sync.Mutex // guards what follows
	cond     sync.Cond  // any of it changed
	live     []*piece   // hold the log from recycled to end, in order
	free     []*piece   // hold nothing that is needed, the longest unused first
	made     int        // pieces ever made, for their names
	tried    int        // the last of them that was to be a spare
	making   bool       // a spare one is; that is started under appending
	end      LSN
	synced   LSN
	recycled LSN
	stated   LSN // of recycled, in the records up to end
	given    LSN // of recycled, in those up to synced
	pressed  LSN // asked for last
	syncing  bool
	flying   *piece // the host writes to it what lies between synced and end; Sync waits for that
	closed   bool
	err      error // sticky

	batch []*piece // of the Sync that runs
}

// New makes no host call: pieces are made by the first transactions that need them. The error is ErrSize. Pieces of other journals in the directory are
// overwritten as their names are needed: replay first.
func New(c Config) (*Journal, error) {
	if c.pieceSize == 0 {
		c.pieceSize = PieceSize
	}
	if c.Size == 0 {
		c.Size = DefaultSize
	}
	n := c.Size / c.pieceSize
	if n < minPieces || n > maxPieces {
		return nil, fmt.Errorf("journal: %d bytes: %w (%d to %d)", c.Size, ErrSize, minPieces*c.pieceSize, maxPieces*c.pieceSize)
	}
	j := &Journal{c: c, max: int(n), buf: disk.DirectBuffer(gatherSize)[:0], sealer: sealer{mac: c.MAC()}}
	j.cond.L = &j.mu
	return j, nil
}

// maxTransaction is how many bytes of head and bulk together always fit so many pieces once all before is recycled: one piece may be in use where the transaction
// begins, and each of the others has a header.
func maxTransaction(pieces, pieceSize int64) int {
	return int(max(pieces-1, 0)) * int(span(pieceSize)-recordHeader)
}

// End is the LSN of the last transaction appended.
func (j *Journal) End() LSN { j.mu.Lock(); defer j.mu.Unlock(); return j.end }

// Given is the LSN up to which the disk itself says that everything was recycled: from now on no replay delivers what ends there or before, whatever a power cut
// takes. It follows Recycle once later records are synced.
func (j *Journal) Given() LSN { j.mu.Lock(); defer j.mu.Unlock(); return j.given }

// Used is how many bytes of log are not recycled.
func (j *Journal) Used() int64 { j.mu.Lock(); defer j.mu.Unlock(); return int64(j.end - j.recycled) }

// Recycle gives up the transactions up to upTo, as far as they are synced: what they did is durable elsewhere, and a replay that learns of it
// does not deliver them. Their pieces are used again. Whoever waits for room goes on.
func (j *Journal) Recycle(upTo LSN) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if upTo = min(upTo, j.synced); upTo <= j.recycled {
		return
	}
	j.recycled = upTo
	for len(j.live) > 0 && j.live[0].header.limit() <= upTo {
		j.free = append(j.free, j.live[0])
		j.live = append(j.live[:0], j.live[1:]...)
	}
	j.cond.Broadcast()
}

// Fail makes err the sticky error, unless there is one, and wakes whoever waits: for callers that will never Recycle again.
func (j *Journal) Fail(err error) { _ = j.fail("stop", err) }

// fail answers the sticky error.
func (j *Journal) fail(op string, err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = fmt.Errorf("%w: %s: %w", ErrFailed, op, err)
	}
	j.cond.Broadcast()
	return j.err
}

// usable answers the reason why nothing can be appended or synced. The caller holds mu.
func (j *Journal) usable() error {
	if j.err != nil {
		return j.err
	}
	if j.closed {
		return fmt.Errorf("journal: %w", ErrClosed)
	}
	return nil
}

// Close ends the journal; it waits for a running Append and Sync, and for a piece that is being made, and wakes those that wait with ErrClosed. It syncs nothing. With remove (everything is durable
// elsewhere, a clean unmount) the pieces are removed, durably (J5); after a failure they stay whatever remove says, and the sticky error is answered.
// The second call does nothing.
func (j *Journal) Close(remove bool) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.cond.Broadcast()
	j.mu.Unlock()

	j.appending.Lock() // whoever waits for room has left
	defer j.appending.Unlock()
	j.mu.Lock()
	for j.syncing || j.making {
		j.cond.Wait()
	}
	live, free, err, flying := j.live, j.free, j.err, j.flying
	j.live, j.free, j.flying = nil, nil, nil
	j.mu.Unlock()
	if flying != nil {
		_ = flying.end() // nobody asked whether it is durable
	}

	all := append(append([]*piece(nil), free...), live...)
	defer func() {
		for _, p := range all {
			p.close()
		}
	}()
	if !remove || len(all) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	newest := all[0]
	for _, p := range all {
		if p.header.sequence >= newest.header.sequence && p.used {
			newest = p
		}
	}
	return removePieces(j.c.Dir, newest, all, j.sealer.mac)
}

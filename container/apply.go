package container

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// MostWaiting is how many bytes of images may wait for their places, and of the buffers that images are cut from: whoever brings more waits.
const MostWaiting = 40 << 20

const (
	applyBytes = 16 << 20        // of waiting images: more are applied at once
	applyFiles = 512             // with waiting images: the same
	applyQueue = 8192            // transactions: the same
	applyAge   = 5 * time.Second // after which what waits is made durable and applied
	mostLoose  = 16 << 20        // of buffers whose images are not logged yet, in all files: who brings more has its own logged
	retryAfter = 200 * time.Millisecond
	syncFiles  = 8 // most files that a checkpoint syncs one by one; for more it syncs the host's filesystem
)

// applier brings logged transactions to their places, in the order of the journal and never before it is durable, and recycles the journal
// (FORMAT.md section 12, A1 to A4). Most of the time it waits: what is overwritten again and again is applied once. One goroutine does it, from
// NewEngine to Close.
//
// Its locks are taken in the order of doc.go. Nothing is held over journal.Append but File.commit, paying and flushing, which the goroutine never takes.
type applier struct {
	log    atomic.Pointer[journal.Journal] // another one after a suspension
	config journal.Config
	host   disk.Dir
	events event.Sink
	wake   chan struct{} // something below changed that run looks at
	ended  chan struct{}
	lent   *atomic.Int64 // bytes of buffers that images, or runs being sealed, hold

	suspensions atomic.Uint64 // how often the journal was suspended: each time all that had been flushed became durable
	prepared    atomic.Bool   // the journal has a first piece, or the host was asked for one
	preparing   sync.Mutex    // held while it is asked; before mu
	paying      sync.Mutex    // one appends what is owed at a time; before mu
	flushing    sync.RWMutex  // shared by each flush and each wait for a checkpoint: a suspension waits for those under way; before paying
	suspended   bool          // there is no journal now; guarded by flushing
	spare       disk.File     // keeps a descriptor for that piece, so that programs cannot have opened the last one; nil where there is none

	mu       sync.Mutex // guards what follows
	cond     sync.Cond  // queue got shorter, or err
	queue    []*transaction
	bytes    int                           // of their images
	files    map[*File]int                 // how many of them each file has
	open     map[any]journal.LSN           // where what is being appended begins, or must not be recycled for another reason
	last     journal.LSN                   // of the last one that was appended
	cutoff   journal.LSN                   // what begins before may be given up: no patch may need it any more
	touched  map[*File]struct{}            // changed on the host since the last checkpoint, and open
	logged   map[keys.ObjectID]journal.LSN // last transaction of objects since the last checkpoint
	made     map[keys.ObjectID]journal.LSN // files that count as made; see made.go
	names    journal.LSN                   // end of the last transaction that made one, or says what became of it
	owed     []nameNote                    // that the journal had no room for
	anywhere bool                          // the next checkpoint syncs the host's filesystem, not single files
	due      time.Time                     // when the queue is applied at the latest
	now      bool                          // apply the queue now
	rounds   int                           // checkpoints that are over
	press    bool                          // a checkpoint is asked for
	working  bool                          // run is at it
	full     error                         // the host has no room for what was logged; it is tried again and again
	closing  bool
	err      error // sticky: nothing is accepted any more
}

func newApplier(c journal.Config, host disk.Dir, events event.Sink, lent *atomic.Int64) (*applier, error) {
	a := &applier{
		host: host, events: events, lent: lent, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		files: map[*File]int{}, open: map[any]journal.LSN{}, touched: map[*File]struct{}{}, logged: map[keys.ObjectID]journal.LSN{},
		made: map[keys.ObjectID]journal.LSN{},
	}
	a.cond.L = &a.mu
	c.Pressed = func(journal.LSN) error { return a.ask(&a.press) }
	a.config = c
	log, err := journal.New(c)
	if err != nil {
		return nil, err
	}
	a.log.Store(log)
	if f, err := host.OpenPath(".coffer"); err == nil {
		a.spare = f
	}
	go a.run()
	return a, nil
}

// ask sets one of the flags that run looks at. The error is the host's, where it has no room for what waits already.
func (a *applier) ask(flag *bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	*flag = true
	a.signal()
	return a.full
}

func (a *applier) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// fail makes err the sticky error. The host may hold less than was promised, so the vault takes no change any more until it is mounted anew.
func (a *applier) fail(op string, err error) error {
	a.mu.Lock()
	first := a.err == nil
	if first {
		a.err = fmt.Errorf("container: %s: %w", op, err)
	}
	err = a.err
	a.cond.Broadcast()
	a.mu.Unlock()
	if first {
		a.log.Load().Fail(err)
		a.events.Emit(event.Event{Kind: event.Failed, Offset: -1, Err: err, Note: "nothing is written any more until the vault is mounted anew"})
	}
	return err
}

// failed answers the sticky error; a nil applier never failed.
func (a *applier) failed() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// prepare makes the first piece of the journal before new data takes the last room on the host: what is stored could not be changed any more then, not
// even truncated. A nil applier needs none.
func (a *applier) prepare() error {
	if a == nil || a.prepared.Load() {
		return nil
	}
	a.preparing.Lock()
	defer a.preparing.Unlock()
	if a.prepared.Load() {
		return nil
	}
	a.closeSpare()
	err := a.log.Load().Prepare()
	a.prepared.Store(true) // not before: who comes meanwhile may take that room
	if err != nil {
		return a.fail("journal", err)
	}
	return nil
}

// closeSpare frees the descriptor. After the first call it does nothing.
func (a *applier) closeSpare() {
	if a.spare != nil {
		_ = a.spare.Close()
	}
}

// admit waits while too much waits to be applied. One image keeps the whole buffer that it is cut from, so that these count by themselves; those whose images are
// not logged yet nobody frees by waiting.
func (a *applier) admit() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		switch {
		case a.err != nil:
			return a.err
		case a.full != nil:
			return a.full
		case a.bytes < MostWaiting && a.lent.Load() < MostWaiting, len(a.files) == 0:
			return nil
		}
		a.now = true
		a.signal()
		a.cond.Wait()
	}
}

// crowded reports whether the buffers whose images are not logged yet get too many, all files together. A nil applier is never crowded: it keeps none.
func (a *applier) crowded() bool {
	if a == nil || a.lent.Load() < mostLoose {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lent.Load()-int64(a.bytes) > mostLoose
}

// append appends transaction t to the journal: e, with this head. Until enqueue the journal keeps it, whatever is recycled; but while t waits for room it holds
// nothing back, or those who wait for room would wait for each other. errGivenUp: t patches blocks that the journal may have given up.
func (a *applier) append(t *transaction, head *redo.Head, e journal.Entry) (err error) {
	if err := a.payNotes(); err != nil && !disk.IsFull(err) {
		return err
	}
	e.Head, e.From = head.Append(nil), a.keepFor(t)
	if t.lsn, err = a.log.Load().Append(e); err != nil {
		a.unkeep(t)
		if errors.Is(err, errGivenUp) {
			return err
		}
		if errors.Is(err, journal.ErrFailed) {
			return a.fail("journal", err)
		}
		return fmt.Errorf("container: journal: %w", err)
	}
	return nil
}

// keep answers what has the journal keep all from a position on, until unkeep.
func (a *applier) keep(token any) func(journal.LSN) error {
	return func(from journal.LSN) error {
		a.mu.Lock()
		a.open[token] = from
		a.mu.Unlock()
		return nil
	}
}

// keepFor is keep for a transaction, from the oldest of the whole blocks that it patches. That is decided only once there is room, see append, and by then they
// may have been given up: errGivenUp.
func (a *applier) keepFor(t *transaction) func(journal.LSN) error {
	return func(from journal.LSN) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		t.begin = from
		if t.patches {
			if t.base < a.cutoff {
				return errGivenUp
			}
			from = t.base
		}
		a.open[t] = from
		return nil
	}
}

func (a *applier) unkeep(token any) {
	a.mu.Lock()
	delete(a.open, token)
	a.mu.Unlock()
}

// enqueue hands over a transaction that is in the journal.
func (a *applier) enqueue(t *transaction) {
	a.mu.Lock()
	t.floor = a.open[t]
	delete(a.open, t)
	for _, m := range t.images {
		a.bytes += len(m.data)
	}
	a.drop(t)
	if len(a.queue) == 0 {
		a.due = time.Now().Add(applyAge)
	}
	a.queue = append(a.queue, t)
	a.files[t.f]++
	a.touched[t.f] = struct{}{}
	a.logged[t.f.crypto.id] = t.lsn
	a.last = max(a.last, t.lsn)
	if t.made != nil {
		a.made[t.f.crypto.id] = t.lsn
		a.names, a.anywhere = max(a.names, t.lsn), true // no sync of the file covers its name
	}
	first := len(a.queue) == 1
	if a.bytes > applyBytes || a.lent.Load() > 2*applyBytes || len(a.files) > applyFiles || len(a.queue) > applyQueue {
		a.now, first = true, true
	}
	a.mu.Unlock()
	if first {
		a.signal()
	}
}

// drop takes the images that t covers away from transactions that wait: nobody reads them any more, and t is applied in the same batch. The caller holds mu.
func (a *applier) drop(t *transaction) {
	for _, m := range t.covers {
		if !m.t.taken && m.t.images[m.off] == m {
			delete(m.t.images, m.off)
			a.bytes -= len(m.data)
			t.f.release(m)
		}
	}
	t.covers = nil
}

// appendHead logs what stands on the host already, so that nothing is to be applied. f is the file where it is open, else nil.
func (a *applier) appendHead(h *redo.Head, f *File) (journal.LSN, error) {
	t := &transaction{}
	if err := a.append(t, h, journal.Entry{}); err != nil {
		return 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, t)
	a.last = max(a.last, t.lsn)
	a.logged[h.ID] = max(a.logged[h.ID], t.lsn)
	if f != nil {
		a.touched[f] = struct{}{}
	} else {
		a.anywhere = true
	}
	return t.lsn, nil
}

// drain has everything applied until done answers true: it is called under mu, at first and whenever something was applied. The error is the sticky one,
// or that of a full host.
func (a *applier) drain(done func() bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !done() {
		switch {
		case a.err != nil:
			return a.err
		case a.full != nil:
			return a.full
		}
		a.now = true
		a.signal()
		a.cond.Wait()
	}
	return nil
}

// lastOf answers the last transaction of an object that the journal still holds, 0 if there is none.
func (a *applier) lastOf(id keys.ObjectID) journal.LSN {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.logged[id]
}

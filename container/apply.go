package container

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

const (
	applyBytes = 16 << 20        // of waiting images: more are applied at once
	applyFiles = 512             // with waiting images: the same
	applyQueue = 8192            // transactions: the same
	applyAge   = 5 * time.Second // after which what waits is made durable and applied
	mostBytes  = 40 << 20        // of waiting images: whoever brings more waits
	retryAfter = 200 * time.Millisecond
	syncFiles  = 8 // most files that a checkpoint syncs one by one; for more it syncs the host's filesystem
)

// applier brings logged transactions to their places, in the order of the journal and never before it is durable, and recycles the journal
// (FORMAT.md section 12, A1 to A4). Most of the time it waits: what is overwritten again and again is applied once. One goroutine does it, from
// NewEngine to Close.
//
// Lock order: File.commit, File.hostMu, File.slots, File.mu, applier.mu. Nothing is held over journal.Append but File.commit, which the applier never takes.
type applier struct {
	log    atomic.Pointer[journal.Journal] // another one after a suspension
	config journal.Config
	host   disk.Dir
	events event.Sink
	wake   chan struct{} // something below changed that run looks at
	ended  chan struct{}

	suspensions atomic.Uint64 // how often the journal was suspended: each time all that had been flushed became durable
	prepared    atomic.Bool   // the journal has a first piece, or the host was asked for one
	preparing   sync.Mutex    // held while it is asked; before mu
	paying      sync.Mutex    // one appends what is owed at a time; before mu
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

func newApplier(c journal.Config, host disk.Dir, events event.Sink) (*applier, error) {
	a := &applier{
		host: host, events: events, wake: make(chan struct{}, 1), ended: make(chan struct{}),
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

// admit waits while too much waits to be applied.
func (a *applier) admit() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		switch {
		case a.err != nil:
			return a.err
		case a.full != nil:
			return a.full
		case a.bytes < mostBytes:
			return nil
		}
		a.now = true
		a.signal()
		a.cond.Wait()
	}
}

// append appends a transaction, e, which lacks its head as yet; errGivenUp where it has patches whose whole blocks the journal may not keep. Until enqueue the journal keeps it, whatever is recycled. Before it has room it holds nothing back, or those who wait for room
// would wait for each other.
func (a *applier) append(t *transaction, head *redo.Head, e journal.Entry) (err error) {
	if err := a.payNotes(); err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
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

// keepFor is keep for a transaction, from where the whole blocks are that it patches. Only now that there is room for it, since whoever waits for room must hold
// nothing back: in the meantime these may have been given up.
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
	if a.bytes > applyBytes || len(a.files) > applyFiles || len(a.queue) > applyQueue {
		a.now, first = true, true
	}
	a.mu.Unlock()
	if first {
		a.signal()
	}
}

// drop drops the images that t covers, of transactions that wait: nobody finds them any more, and t is applied along with those. The caller holds mu.
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

// appendHead appends the head of what stands on the host already: it needs no application. f is the file where it is open, else nil.
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

// drain returns when done says so, which is asked under mu whenever something was applied.
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

// run applies and makes checkpoints until the engine is closed or something failed.
func (a *applier) run() {
	defer close(a.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		a.mu.Lock()
		if a.working {
			a.working = false
			a.cond.Broadcast()
		}
		wait := time.Hour
		if len(a.queue) > 0 {
			wait = time.Until(a.due)
		}
		apply, press, stop := a.now || len(a.queue) > 0 && wait <= 0, a.press, a.closing || a.err != nil
		a.now, a.press, a.working = false, false, apply || press
		a.mu.Unlock()
		switch {
		case stop:
			return
		case press:
			a.checkpoint()
			continue
		case apply:
			a.applyAll()
			continue
		}
		timer.Reset(wait)
		select {
		case <-a.wake:
		case <-timer.C:
		}
	}
}

// applyAll makes the journal durable and applies what waits (A1, A2).
func (a *applier) applyAll() bool {
	a.mu.Lock()
	batch := a.queue
	a.queue = nil
	var end journal.LSN
	for _, t := range batch {
		end, t.taken = max(end, t.lsn), true
	}
	a.mu.Unlock()
	if len(batch) == 0 {
		a.mu.Lock()
		a.cond.Broadcast()
		a.mu.Unlock()
		return true
	}
	if err := a.log.Load().Sync(end); err != nil {
		_ = a.fail("journal", err)
	}
	files := map[*File][]*transaction{}
	var order []*File
	for _, t := range batch {
		if files[t.f] == nil {
			order = append(order, t.f)
		}
		files[t.f] = append(files[t.f], t)
	}
	for i, f := range order {
		err := a.failed()
		if err == nil {
			err = f.apply(files[f])
		}
		switch {
		case err == nil:
			a.applied(f, files[f])
			continue
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			a.stall(err)
		default:
			_ = a.fail("write what is in the journal to its place", err)
		}
		// What is left waits again, before what came meanwhile.
		var rest []*transaction
		for _, f := range order[i:] {
			rest = append(rest, files[f]...)
		}
		a.mu.Lock()
		a.queue = append(rest, a.queue...)
		a.mu.Unlock()
		return false
	}
	a.mu.Lock()
	if a.full != nil {
		a.full = nil
		a.events.Emit(event.Event{Kind: event.Info, Offset: -1, Note: "the host has room again: everything logged is in its place"})
	}
	if len(a.queue) > 0 {
		a.due = time.Now().Add(applyAge)
	}
	a.mu.Unlock()
	return true
}

// stall notes that the host is full. Everything logged stays in the journal and in memory; writers are refused until it fits.
func (a *applier) stall(err error) {
	a.mu.Lock()
	first := a.full == nil
	a.full = err
	a.due = time.Now().Add(retryAfter)
	a.cond.Broadcast()
	a.mu.Unlock()
	if first {
		a.events.Emit(event.Event{Kind: event.Failed, Offset: -1, Err: err, Note: "the host is full: what is in the journal waits for room"})
	}
}

// applied is called when transactions of a file are in their places.
func (a *applier) applied(f *File, ts []*transaction) {
	f.mu.Lock()
	for _, t := range ts {
		for off, m := range t.images {
			if f.overlay[off] == m {
				delete(f.overlay, off)
			}
			f.release(m)
		}
		if t.frees {
			f.freeing--
		}
	}
	f.queued -= len(ts)
	gone := f.abandoned
	f.mu.Unlock()
	hooks := f.hooks.Load()
	if hooks == nil || gone {
		hooks = &Hooks{}
	}
	if hooks.Applied != nil {
		hooks.Applied() // before the journal may give the transactions up: they say which mtime the host file has
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range ts {
		for _, m := range t.images {
			a.bytes -= len(m.data)
		}
	}
	if a.files[f] -= len(ts); a.files[f] == 0 {
		delete(a.files, f)
		if hooks.Idle != nil {
			hooks.Idle() // under mu: whoever waits for this in drain comes after it
		}
	}
	a.cond.Broadcast()
}

// lastOf answers the last transaction of an object that the journal still holds, 0 if there is none.
func (a *applier) lastOf(id keys.ObjectID) journal.LSN {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.logged[id]
}

package container

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/journal"
)

// checkpoint makes durable in its place what is in the journal, and gives that up (A3, A4). Readers and writers go on meanwhile.
func (a *applier) checkpoint() {
	a.mu.Lock()
	a.cutoff = a.last // what is logged from here on needs nothing of what this one is to give up
	a.mu.Unlock()
	if !a.applyAll() {
		a.mu.Lock()
		a.press = a.err == nil // again, when what waits fits
		a.mu.Unlock()
		if a.failed() == nil {
			time.Sleep(retryAfter)
		}
		return
	}
	upTo, touched, anywhere := a.reach()
	err := a.syncTouched(touched, anywhere) // A3
	if err == nil {
		err = a.log.Load().Sync(upTo)
	}
	if err != nil {
		_ = a.fail("checkpoint", err)
		return
	}
	a.log.Load().Recycle(upTo) // A4
	a.forgetGiven()
}

// reach says how far a checkpoint can give the journal up: to where nothing waits or is being appended that needs it. touched are the files that it syncs;
// with anywhere it syncs the host's filesystem. What is touched from here on is the next checkpoint's.
func (a *applier) reach() (upTo journal.LSN, touched map[*File]struct{}, anywhere bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	upTo = a.last
	for _, floor := range a.open {
		upTo = min(upTo, floor)
	}
	for _, t := range a.queue {
		upTo = min(upTo, t.floor)
	}
	a.cutoff = max(a.cutoff, upTo)
	touched, anywhere = a.touched, a.anywhere || len(a.touched) > syncFiles
	a.touched, a.anywhere = map[*File]struct{}{}, false
	for f := range a.files {
		a.touched[f] = struct{}{} // more of it waits
	}
	return upTo, touched, anywhere
}

// syncTouched makes host files durable one by one, or all of the host's filesystem where that was asked for or one of them is closed by now.
func (a *applier) syncTouched(touched map[*File]struct{}, anywhere bool) (err error) {
	for f := range touched {
		if err == nil {
			err = f.settleHost()
		}
	}
	for f := range touched {
		if anywhere || err != nil {
			break
		}
		anywhere, err = f.syncHost()
	}
	if anywhere && err == nil {
		err = a.host.SyncAll()
	}
	return err
}

// forgetGiven ends a checkpoint. Objects are forgotten of which the journal holds nothing any more. What this checkpoint gave up a replay may still deliver,
// until later records that say so are durable: perhaps not before the next checkpoint, or the one after.
func (a *applier) forgetGiven() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rounds++
	a.cond.Broadcast()
	given := a.log.Load().Given()
	for _, m := range []map[keys.ObjectID]journal.LSN{a.logged, a.made} {
		maps.DeleteFunc(m, func(_ keys.ObjectID, lsn journal.LSN) bool { return lsn <= given })
	}
}

// syncHost makes the host file durable, its times included, unless it was closed meanwhile.
func (f *File) syncHost() (closed bool, err error) {
	f.hostMu.Lock()
	defer f.hostMu.Unlock()
	if f.hostClosed {
		return true, nil
	}
	return false, f.host.Sync()
}

// settleHost is settle, unless the host file was closed meanwhile.
func (f *File) settleHost() error {
	f.hostMu.Lock()
	defer f.hostMu.Unlock()
	if f.hostClosed {
		return nil
	}
	return f.settle()
}

// leave is called before a file is closed: later checkpoints cannot sync it by itself.
func (a *applier) leave(f *File) {
	a.mu.Lock()
	if _, ok := a.touched[f]; ok {
		delete(a.touched, f)
		a.anywhere = true
	}
	a.mu.Unlock()
}

// intend makes the intent of an exchange durable in the journal before it begins; it is kept there until done is called and the host's filesystem
// synced after that. Where done is told of an error the host has neither the old names nor the new ones: only the next mount can finish that, and nothing is
// accepted any more, since the journal cannot be recycled past the intent.
func (a *applier) intend(payload []byte) (done func(error), err error) {
	t := &transaction{}
	if t.lsn, err = a.log.Load().Append(journal.Entry{Head: payload, Hurry: journal.Soon, From: a.keep(t)}); err == nil {
		err = a.log.Load().Sync(t.lsn)
	}
	a.mu.Lock()
	a.last = max(a.last, t.lsn)
	a.mu.Unlock()
	done = func(err error) {
		if err != nil {
			_ = a.fail("exchange of two names", err)
			return
		}
		// First of all: whoever waits for room in the journal may wait for that of the intent, and nothing else is appended until it comes.
		a.mu.Lock()
		a.anywhere = true
		delete(a.open, t)
		a.mu.Unlock()
		// Not synced: without it the next mount finds that there is nothing to finish, or finishes it.
		var end journal.LSN
		if b, err := redo.Over(payload); err == nil {
			end, _ = a.log.Load().Append(journal.Entry{Head: b, From: a.keep(&payload)})
		}
		a.mu.Lock()
		a.last = max(a.last, end)
		a.anywhere = true
		delete(a.open, &payload)
		a.mu.Unlock()
	}
	if err != nil {
		a.unkeep(t)
		return nil, fmt.Errorf("container: journal: %w", err)
	}
	return done, nil
}

// checkpointNow returns when everything that was logged before is durable in its place, as it is while the journal is suspended.
func (a *applier) checkpointNow() error {
	a.flushing.RLock() // one that a suspension overtook would give up what the next journal holds
	defer a.flushing.RUnlock()
	if a.suspended {
		return a.failed()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	until, asked := a.rounds+1, -1
	if a.working {
		until++ // what runs may be one that began before
	}
	for a.rounds < until {
		switch {
		case a.err != nil:
			return a.err
		case a.full != nil:
			return a.full
		case a.closing:
			return ErrClosed
		}
		if asked != a.rounds {
			a.press, asked = true, a.rounds
			a.signal()
		}
		a.cond.Wait()
	}
	return nil
}

// suspend is close without an end: resume goes on with another journal. Whoever opens a file for reading meanwhile may find one that must be salvaged: what
// comes of that is not flushed before resume.
func (a *applier) suspend() error {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	// No checkpoint that began before may end after resume: it would give up what the next journal holds.
	if err := a.drain(func() bool { return len(a.queue) == 0 && len(a.files) == 0 && !a.press && !a.working }); err != nil {
		return err
	}
	if err := a.host.SyncAll(); err != nil {
		return a.fail("suspension", err)
	}
	if err := a.log.Load().Close(true); err != nil {
		return a.fail("suspension", err)
	}
	a.mu.Lock()
	a.last, a.cutoff, a.names, a.anywhere = 0, 0, 0, false
	a.owed = nil
	clear(a.touched)
	clear(a.logged)
	clear(a.made)
	a.mu.Unlock()
	a.suspended = true
	a.suspensions.Add(1) // last: who opens a file meanwhile looks at it first
	return nil
}

// isSuspended: there is no journal between suspend and resume; a nil applier is never suspended. The caller holds flushing.
func (a *applier) isSuspended() bool { return a != nil && a.suspended }

// resume opens the journal id.
func (a *applier) resume(id [16]byte) error {
	c := a.config
	c.ID = id
	log, err := journal.New(c)
	if err != nil {
		return a.fail("resumption", err)
	}
	a.flushing.Lock()
	defer a.flushing.Unlock()
	a.log.Store(log)
	a.prepared.Store(false)
	a.suspended = false
	return nil
}

// close applies and syncs everything and removes the journal; where that fails the journal stays, for the next mount to replay.
func (a *applier) close(clean bool) error {
	err := a.drain(func() bool { return len(a.queue) == 0 && len(a.files) == 0 })
	if err == nil {
		err = a.failed() // also where nothing was left to be done, and the journal is closed already
	}
	a.mu.Lock()
	a.closing = true
	a.cond.Broadcast()
	a.mu.Unlock()
	a.signal()
	<-a.ended
	if !a.prepared.Swap(true) {
		a.closeSpare()
	}
	if err == nil && clean {
		err = a.host.SyncAll()
	}
	return errors.Join(err, a.log.Load().Close(err == nil && clean))
}

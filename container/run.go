package container

import (
	"slices"
	"time"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// atRest is how long run waits where there is nothing to do: until it is woken up.
const atRest = time.Hour

// run applies and makes checkpoints until the engine is closed or something failed.
func (a *applier) run() {
	defer close(a.ended)
	timer := time.NewTimer(atRest)
	defer timer.Stop()
	for {
		a.mu.Lock()
		if a.working {
			a.working = false
			a.cond.Broadcast()
		}
		wait := atRest
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

// applyAll makes the journal durable and brings what waits to its places (A1, A2). It answers false where some of it waits on.
func (a *applier) applyAll() bool {
	batch, end := a.takeQueue()
	if len(batch) == 0 {
		a.mu.Lock()
		a.cond.Broadcast()
		a.mu.Unlock()
		return true
	}
	if err := a.log.Load().Sync(end); err != nil {
		_ = a.fail("journal", err)
	}
	groups := byFile(batch)
	for i, ts := range groups {
		if !a.applyFile(ts) {
			a.putBack(slices.Concat(groups[i:]...))
			return false
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.full != nil {
		a.full = nil
		a.events.Emit(event.Event{Kind: event.Info, Offset: -1, Note: "the host has room again: everything logged is in its place"})
	}
	if len(a.queue) > 0 {
		a.due = time.Now().Add(applyAge)
	}
	return true
}

// takeQueue takes all that waits, and says up to where the journal has to be durable for that.
func (a *applier) takeQueue() (batch []*transaction, end journal.LSN) {
	a.mu.Lock()
	defer a.mu.Unlock()
	batch, a.queue = a.queue, nil
	for _, t := range batch {
		end, t.taken = max(end, t.lsn), true
	}
	return batch, end
}

// putBack has transactions wait again, before those that came meanwhile.
func (a *applier) putBack(ts []*transaction) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(ts, a.queue...)
}

// byFile groups transactions by their file. Groups come in the order of their first transactions, and those of a group in their own.
func byFile(ts []*transaction) (groups [][]*transaction) {
	group := map[*File]int{}
	for _, t := range ts {
		g, seen := group[t.f]
		if !seen {
			g = len(groups)
			group[t.f], groups = g, append(groups, nil)
		}
		groups[g] = append(groups[g], t)
	}
	return groups
}

// applyFile brings transactions of one file to their places. It answers false where they stay in the journal and in memory: for now, as the host is full,
// or until the next mount.
func (a *applier) applyFile(ts []*transaction) bool {
	f, err := ts[0].f, a.failed()
	if err == nil {
		err = f.apply(ts)
	}
	switch {
	case err == nil:
		a.applied(f, ts)
		return true
	case disk.IsFull(err):
		a.stall(err)
	default:
		_ = a.fail("write what is in the journal to its place", err)
	}
	return false
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
		f.letGo(t)
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

package container

import (
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/journal"
)

// The first sync of a new small file (FORMAT.md section 12, C8) costs a sync of the journal and none of the host: one transaction has all of the host file,
// and a replay makes the file where the host has nothing of it. Until a checkpoint has synced the host, name and all, the file counts as made:
//
//	applier.made   files whose make the journal may still hold; each has one name
//	applier.names  where the last transaction ends that makes a file or says what became of it: whoever promises that names are so syncs the journal up to there
//
// Whoever moves the one name or takes it away says so in the journal behind that (Engine.NoteMoved, Engine.NoteRemoved). What gives the file another name,
// or its name to another object, makes the name durable on the host and ends the make before (Engine.NoteDurable), and so does what needs the host file to
// be durable, data or attributes (File.EndMake).

// mostMade is the longest host file of which the journal takes all.
const mostMade = rideMax + 4*BlockSize

// SyncNew is Sync of a new file that has one name, by the journal alone: that has all of the file then, and what it is made with. The directory of the
// name is durable, and nothing but files made so came into it or went since. It answers false where the file is too large or not new, or the journal has
// no room; then nothing was promised.
func (f *File) SyncNew(m redo.Made) (made bool, err error) {
	lsn, err := f.makeNow(m)
	if err != nil || lsn == 0 {
		return false, err
	}
	return true, f.eng.applier.syncNames(lsn)
}

// MakeAhead is SyncNew that leaves the sync to Sync, which comes in a moment: the disk begins if it can.
func (f *File) MakeAhead(m redo.Made) (made bool, err error) {
	f.SyncAhead()
	lsn, err := f.makeNow(m)
	return lsn != 0, err
}

// makeNow flushes and logs all of the file; 0 where that cannot be.
func (f *File) makeNow(m redo.Made) (journal.LSN, error) {
	f.commit.Lock()
	defer f.commit.Unlock()
	if f.eng.applier == nil {
		return 0, nil
	}
	if err := f.flush(); err != nil {
		return 0, err
	}
	f.mu.RLock()
	n := f.geo.HostLength(f.hdr.size)
	fits := !f.held && !f.abandoned && !f.virgin && f.tx == nil && f.queued == 0 && n <= mostMade && n <= f.hostLen
	was, said, dirty := f.durable, f.hdr.durable, f.headerDirty
	f.mu.RUnlock()
	if w := f.where.Load(); !fits || w == nil || len(w.path()) == 0 {
		return 0, nil
	}
	all := make([]byte, n)
	if _, err := f.host.ReadAt(all, 0); err != nil {
		return 0, nil // the sync of the host file says what is wrong
	}
	t := f.pending()
	t.made = &m
	for off := int64(BlockSize); off < n; off += BlockSize { // the header comes with the transaction
		if b := all[off:min(off+BlockSize, n)]; !allZero(b) {
			t.riding = append(t.riding, &image{off: off, data: b})
			t.bytes += len(b)
		}
	}
	clear(f.imaged)
	f.mu.Lock()
	f.durable, f.headerDirty = true, true
	f.mu.Unlock()
	err := f.log()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.held = true
		return f.lsn, nil
	}
	f.durable, f.hdr.durable, f.headerDirty, f.tx = was, said, dirty, nil // all that it has stands on the host
	if disk.IsFull(err) {
		return 0, nil
	}
	return 0, err
}

// EndMake makes a file that counts as made durable on the host, its name and attributes included, and ends that. It answers false where it does not.
func (f *File) EndMake() (ended bool, err error) {
	f.commit.Lock()
	defer f.commit.Unlock()
	return f.endMake()
}

// endMake is EndMake under commit.
func (f *File) endMake() (ended bool, err error) {
	a := f.eng.applier
	if !a.isMade(f.crypto.id) {
		return false, nil
	}
	err = f.host.Sync()
	if w := f.where.Load(); err == nil && w != nil {
		err = w.sync()
	}
	if err != nil {
		return false, a.fail("sync of a host file and its name", err)
	}
	return true, a.appendNote(endOf(f.crypto.id))
}

// Made reports whether the file id counts as made: its one name and all of it may be in the journal alone.
func (e *Engine) Made(id keys.ObjectID) bool { return e.applier.isMade(id) }

// NoteDurable says that the name of a file that counts as made is durable on the host, which ends that; what is in it the journal has.
func (e *Engine) NoteDurable(id keys.ObjectID) error { return e.applier.appendNote(endOf(id)) }

// NoteRemoved says that a file lost the one name that it had, which was at the host names path: no replay makes it again, and SyncNames makes the removal durable.
func (e *Engine) NoteRemoved(id keys.ObjectID, path []string) error {
	if e.applier == nil {
		return nil
	}
	return e.applier.note(nameNote{id: id, ends: true, payload: (&redo.End{ID: id, Removed: true, Path: path}).Append(nil)})
}

// NoteMoved says that a file that counts as made has the host names path now, in a durable directory.
func (e *Engine) NoteMoved(id keys.ObjectID, path []string) error {
	return e.applier.note(nameNote{id: id, payload: (&redo.Head{ID: id, Path: path, Length: -1}).Append(nil)})
}

// SyncNames returns when all that made files and ended that so far is durable in the journal.
func (e *Engine) SyncNames() error {
	if e.applier == nil {
		return nil
	}
	return e.applier.syncNames(0)
}

// syncNames syncs the journal up to lsn, and at least as far as it says which files were made or removed: no file that was removed before what is promised now
// comes back behind it.
func (a *applier) syncNames(lsn journal.LSN) error {
	if err := a.payNotes(); err != nil {
		return err
	}
	a.mu.Lock()
	lsn = max(lsn, a.names)
	a.mu.Unlock()
	return a.log.Load().Sync(lsn)
}

// payNotes appends what is owed. A note is owed until it is appended, so that whoever comes meanwhile does not promise without it.
func (a *applier) payNotes() error {
	next := func(done int) (n nameNote, more bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.owed = a.owed[min(done, len(a.owed)):]; len(a.owed) == 0 {
			return n, false
		}
		return a.owed[0], true
	}
	if _, owing := next(0); !owing {
		return nil
	}
	a.paying.Lock()
	defer a.paying.Unlock()
	for n, more := next(0); more; n, more = next(1) {
		if err := a.appendNote(n); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) isMade(id keys.ObjectID) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, made := a.made[id]
	return made
}

// nameNote is a transaction that says what became of a file that was made.
type nameNote struct {
	id      keys.ObjectID
	ends    bool // it counts as made no more
	payload []byte
}

func endOf(id keys.ObjectID) nameNote {
	return nameNote{id: id, ends: true, payload: (&redo.End{ID: id}).Append(nil)}
}

// note appends what became of the name of a file, behind what is owed: of two moves of a file the later one counts. To remove and to move files must be
// possible on a full host, too: where the journal has no room just then, whoever logs or promises something next appends it. Where the journal has failed
// nobody can, and no name is promised any more: a replay may undo what the note tells of.
func (a *applier) note(n nameNote) error {
	a.mu.Lock()
	a.owed = append(a.owed, n)
	a.mu.Unlock()
	err := a.payNotes()
	if err == nil {
		return nil
	}
	if n.ends {
		a.mu.Lock()
		delete(a.made, n.id)
		a.mu.Unlock()
	}
	if errors.Is(err, journal.ErrFailed) {
		return err
	}
	return nil
}

// appendNote appends a note. What it tells of was done on the host before, so that the next checkpoint covers it.
func (a *applier) appendNote(n nameNote) error {
	t := &transaction{}
	lsn, err := a.log.Load().Append(journal.Entry{Head: n.payload, From: a.keep(t)})
	if err != nil {
		a.unkeep(t)
		if errors.Is(err, journal.ErrFailed) {
			return a.fail("journal", err)
		}
		return fmt.Errorf("container: journal: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, t)
	if n.ends {
		delete(a.made, n.id)
	}
	a.last, a.names, a.anywhere = max(a.last, lsn), max(a.names, lsn), true
	return nil
}

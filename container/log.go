package container

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/journal"
)

// The commit path over the journal: C4 to C7 of doc.go. A file is durable, in the sense of its header's flag, from its first sync on. Before, a power cut may take any part of it that was not yet
// written by the host: such parts become holes when the file is opened next (salvage.go).

// Hooks tell the owner of a file about what happens to its host file outside of calls. Any may be nil.
type Hooks struct {
	// Mtime is the modification time that is to stand on the host file with what is logged now.
	Mtime func() unix.Timespec
	// Applying is called before the applier writes to the host file, Applied after. They must not wait for any call of the File.
	Applying, Applied func()
	// Idle is called when the last of what was flushed has come to its place: Pending is false then. It must not wait, nor call the File.
	Idle func()
}

// SetHooks comes before the first change.
func (f *File) SetHooks(h Hooks) { f.hooks.Store(&h) }

// name is where the host has the file.
type name struct {
	path func() []string
	sync func() error
}

// SetName says how to find the host names from the vault's root down to the file, at any time, and how to make the last of them durable on the host. They help
// a replay to find it; wrong ones cost it time. Both are called with locks of f held.
func (f *File) SetName(path func() []string, sync func() error) { f.where.Store(&name{path, sync}) }

// log appends what changed since the last flush to the journal as one transaction (C4 to C6). The caller holds commit.
func (f *File) log() error {
	a := f.eng.applier
	if err := a.admit(); err != nil {
		return err
	}
	f.finishMeta()
	t := f.pending()
	if err := f.placeMeta(t); err != nil {
		return err
	}
	f.hdr.durable = f.durable
	sealed := new(block)
	f.sealHeader(sealed)
	header := &image{data: sealed[:]}
	f.put(t, header)
	f.usePatch(t, header, f.wasHeader)
	t.length = f.geo.HostLength(f.hdr.size)
	if err := f.extend(t.length); err != nil {
		return err
	}

	// C5: what the transaction refers to is durable before it can be.
	if t.direct && f.durable {
		ended, err := f.endMake() // which syncs the host file, too
		if err != nil {
			return err
		}
		if !ended {
			err = f.host.Datasync()
		}
		if err != nil {
			return a.fail("sync of a host file", err) // what the host kept of it nobody knows
		}
	}

	// C6: append.
	head := f.head()
	head.Length, head.Freed, head.Made = t.length, merged(t.freed), t.made
	err := f.append(t, head)
	if errors.Is(err, errGivenUp) {
		clear(f.imaged)
		t.wholeBlocks()
		err = f.append(t, head)
	}
	if err != nil {
		return err
	}
	f.noteBlocks(t, sealed)
	f.mu.Lock()
	for _, m := range t.images {
		f.cover(m)
	}
	f.cleanLocked()
	f.tx, f.virgin, f.lsn, f.timeLogged = nil, false, t.lsn, head.Mtime
	f.queued++
	for _, m := range t.riding {
		f.release(m)
	}
	t.riding = nil
	f.mu.Unlock()
	a.enqueue(t)
	return nil
}

// append appends a transaction with its images.
func (f *File) append(t *transaction, head *redo.Head) error {
	e := journal.Entry{Hurry: journal.Hurry(f.hurry.Swap(int32(journal.Later)))}
	head.Images, head.Patches, e.Sums, e.Bulk = t.sorted(f.geo)
	return f.eng.applier.append(t, head, e)
}

// extend has the host file reach a length, so that a host that cannot have it says so now, and not when it is logged and acknowledged. A file that is longer than
// its header says is no harm.
func (f *File) extend(n int64) error {
	f.slots.RLock() // the applier does not set the length meanwhile
	defer f.slots.RUnlock()
	f.mu.RLock()
	have := f.hostLen
	f.mu.RUnlock()
	if have >= n {
		return nil
	}
	err := f.host.Truncate(n)
	f.hostChanged.Store(true)
	if err != nil {
		return &MetaError{Op: "write", Level: headerLevel, Err: err}
	}
	f.mu.Lock()
	f.hostLen = max(f.hostLen, n)
	f.mu.Unlock()
	return nil
}

// head begins the head of a transaction.
func (f *File) head() *redo.Head {
	h := &redo.Head{ID: f.crypto.id, Length: -1}
	if w := f.where.Load(); w != nil {
		h.Path = w.path()
	}
	if hooks := f.hooks.Load(); hooks != nil && hooks.Mtime != nil {
		h.Mtime, h.Timed = hooks.Mtime(), true
	}
	return h
}

// placeMeta enters the changed meta blocks and nodes into the transaction. Where one is new it is written to its place at once, so that the host
// finds room now; it is logged as well unless the host file is synced first, or may lose it.
func (f *File) placeMeta(t *transaction) error {
	fresh := f.freshNow()
	t.wholeBlocks()
	t.meta = t.meta[:0]
	for k, b := range f.dirty {
		m := &image{off: f.blockAddr(k.level, k.index), data: b[:]}
		if !fresh || !f.made[k] {
			f.put(t, m)
			f.usePatch(t, m, f.was[k])
			continue
		}
		if !f.placed[k] {
			f.slots.RLock() // the applier does not set the length meanwhile
			err := f.writeBlock(k, b)
			f.slots.RUnlock()
			if err != nil {
				return err
			}
		}
		delete(f.imaged, m.off)
		if f.durable && !t.direct {
			t.riding = append(t.riding, m)
			t.meta = append(t.meta, m)
		}
	}
	return nil
}

// NoteTime tells of a modification time that was put on the host file after its last commit: a replay of that commit must not set the older one. logged says that
// the next Sync makes it durable; else only a sync of the host file does.
func (f *File) NoteTime(ts unix.Timespec) (logged bool, err error) {
	f.commit.Lock()
	defer f.commit.Unlock()
	f.noteSuspension()
	f.mu.RLock()
	ever, known := f.lsn != 0 && !f.closed && !f.abandoned, f.timeLogged == ts
	f.mu.RUnlock()
	if !ever || known {
		return ever, nil
	}
	h := f.head()
	h.Mtime, h.Timed = ts, true
	lsn, err := f.eng.applier.appendHead(h, f)
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	f.lsn, f.timeLogged = lsn, ts
	f.mu.Unlock()
	return true, nil
}

// NoteTime is File.NoteTime for an object that is not open. path are its host names, asked for only where they are needed.
func (e *Engine) NoteTime(id keys.ObjectID, path func() []string, ts unix.Timespec) (logged bool, err error) {
	if e.applier == nil || e.applier.lastOf(id) == 0 {
		return false, nil
	}
	_, err = e.applier.appendHead(&redo.Head{ID: id, Path: path(), Length: -1, Mtime: ts, Timed: true}, nil)
	return err == nil, err
}

// SyncSoon says that Sync comes right after the next Flush, which then may take a way to the disk that leaves less to it.
func (f *File) SyncSoon() { f.hurry.Store(int32(journal.Soon)) }

// SyncAhead says that Sync comes a moment after the next Flush, which has the disk begin if it can without waiting for it.
func (f *File) SyncAhead() { f.hurry.Store(int32(journal.Ahead)) }

// Sync is Flush and makes everything flushed so far durable (C7). An error means that nothing may be assumed durable.
func (f *File) Sync() error {
	lsn, err := f.commitNow()
	if err != nil || f.eng.applier == nil {
		return err
	}
	return f.eng.applier.syncNames(lsn)
}

// noteSuspension takes note of one: with it all that had been flushed became durable, and the session of the file's name ended. The caller holds commit.
func (f *File) noteSuspension() {
	a := f.eng.applier
	if a == nil || a.suspensions.Load() == f.suspensions {
		return
	}
	clear(f.imaged) // there is another journal since
	f.mu.Lock()
	defer f.mu.Unlock()
	f.suspensions = a.suspensions.Load()
	if !f.virgin {
		f.durable, f.held, f.lsn = true, true, 0
	}
}

// commitNow flushes, and syncs the host file where the journal alone does not hold what was flushed; the rest is durable with the journal up to lsn.
func (f *File) commitNow() (lsn journal.LSN, err error) {
	f.commit.Lock()
	defer f.commit.Unlock()
	f.SyncSoon()
	defer f.hurry.Store(int32(journal.Later))
	if err := f.flush(); err != nil {
		return 0, err
	}
	f.mu.RLock()
	lsn, held := f.lsn, f.held
	f.mu.RUnlock()
	if f.eng.applier != nil && f.durable && held {
		return lsn, nil
	}
	err = f.host.Datasync()
	if f.eng.applier == nil {
		return 0, err
	}
	if err != nil {
		return 0, f.eng.applier.fail("sync of a host file", err)
	}
	f.mu.Lock()
	f.durable, f.held = true, true
	f.headerDirty = !f.hdr.durable
	f.mu.Unlock()
	// From here on its header says so. Whether that survives matters only to later transactions, which come after it in the journal; on a full host the first
	// of them says it.
	err = f.flush()
	if disk.IsFull(err) {
		f.mu.Lock()
		f.headerDirty, f.tx = false, nil // which has nothing but the header
		f.mu.Unlock()
		err = nil
	}
	return lsn, err
}

package container

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// File is an open container. Reads may run concurrently with each other and with one writer; WriteFrames, SetSize, Discard, Flush and Sync
// are serialized inside. A File knows nothing of dirty plaintext: that is cache's.
//
// Its locks are taken in the order of doc.go.
type File struct {
	eng      *Engine
	host     disk.File
	geo      *Geometry
	crypto   fileCrypto
	readOnly bool

	// commit serializes everything that changes the file.
	commit sync.Mutex
	sealer *suite.Sealer // of what was sealed since the last flush; guarded by commit

	// slots: shared while a read uses slots by the entries it looked up; exclusive while stored slots are overwritten or freed, until
	// their new entries are published.
	slots sync.RWMutex

	// load is held while metadata is read from the host, so that each block is read and verified once. Blocks of a level whose index is the same modulo
	// loaders share a lock; who waits for the disk holds up nobody who waits for another block.
	load [treeLevels + 1][loaders]sync.Mutex
	// hostMu is held while the applier writes or syncs the host file, and over its closing.
	hostMu     sync.Mutex
	hostClosed bool      // guarded by hostMu
	unsettled  unsettled // the same; see settle

	hostChanged atomic.Bool  // see HostChanged
	hurry       atomic.Int32 // a journal.Hurry; see SyncSoon, SyncAhead

	streams streams // of large reads; see fetchStream
	scatter scatter

	early early // see startEarly

	hooks atomic.Pointer[Hooks]
	where atomic.Pointer[name]

	// flushes counts the beginnings and ends of flushes: a load that failed across one is repeated.
	flushes atomic.Uint64

	mu          sync.RWMutex       // guards what follows
	hdr         header             // body only current after sealBody
	serial      uint64             // of this file's blocks in the engine's cache; renewed when blocks are dropped
	pins        *headerPins        // nil where the body is no tree
	single      *block             // of group 0, where the body is single: its first record lives in the header
	dirty       map[metaKey]*block // blocks newer than the host's
	made        map[metaKey]bool   // dirty blocks that did not exist before
	headerDirty bool
	hostLen     int64 // of the host file
	closed      bool

	// With a journal only; see log.go. commit guards the changes of all of them, too.
	virgin      bool             // nothing but fresh frames was written to the host file
	durable     bool             // what a transaction refers to is made durable before it
	held        bool             // all that was flushed is durable, or is so with the journal
	suspensions uint64           // applier.suspensions when f was looked at last
	abandoned   bool             // nobody can read the file again: nothing of it is written any more
	tx          *transaction     // changes since the last flush, nil where there are none but metadata
	overlay     map[int64]*image // by place on the host: what is not applied yet
	queued      int              // transactions that are not applied
	freeing     int              // transactions that freed something and are not applied, tx included
	lsn         journal.LSN      // of the last transaction, 0 where there is none that matters
	timeLogged  unix.Timespec    // in it

	// Of blocks that are logged as patches, see patch.go, but placed. Guarded by commit alone.
	placed    map[metaKey]bool      // made meta blocks that were written to their places: whether as they are; see placeFull
	imaged    map[int64]journal.LSN // by place: where the last transaction begins that has all of the block
	was       map[metaKey]*block    // dirty blocks as they were flushed last
	wasHeader *block                // the header as it was logged last
}

// ready makes a File of one that has its header and nothing else.
func (f *File) ready(e *Engine, h disk.File, k *keys.FileKeys) error {
	hdr := &f.hdr
	c, err := suite.New(hdr.suite, k.Enc[:])
	if err != nil {
		return fmt.Errorf("container: %w", err)
	}
	f.eng, f.host, f.geo, f.serial = e, h, hdr.geo, e.serial.Add(1)
	f.crypto = fileCrypto{vault: hdr.vault, id: hdr.id, suite: hdr.suite, digest: hdr.digest, cipher: c, auth: k.Auth}
	if e.applier != nil {
		f.suspensions = e.applier.suspensions.Load()
	}
	switch hdr.kind {
	case bodySingle:
		f.single = e.clearBlock()
		copy(f.single[:], hdr.body[:hdr.geo.record])
	case bodyTree:
		f.pins = hdr.pins()
	}
	return nil
}

// checkLength compares the host length with the sealed size, and outside of clean sessions puts it right.
func (f *File) checkLength(opt OpenOptions) error {
	st := unix.Stat_t{Size: opt.Length}
	if opt.Length == 0 {
		if err := f.host.Stat(&st); err != nil {
			return err
		}
	}
	f.hostLen = st.Size
	want := f.geo.HostLength(f.hdr.size)
	switch {
	case st.Size == want:
		return nil
	case opt.TrustLength:
		return &MetaError{Op: "open", Level: headerLevel, Err: fmt.Errorf("host length %d, sealed size %d wants %d: %w", st.Size, f.hdr.size, want, ErrSize)}
	case f.readOnly:
		return nil
	}
	err := f.host.Truncate(want)
	f.hostChanged.Store(true)
	if err != nil {
		return err
	}
	f.hostLen = want
	f.eng.events.Emit(event.Event{Kind: event.Repaired, Object: f.crypto.id.String(), Offset: -1, Note: "host length put right after an unclean session"})
	return nil
}

// ID is the object id of the file.
func (f *File) ID() keys.ObjectID { return f.crypto.id }

// Geometry is that of the container, which may differ from the vault's.
func (f *File) Geometry() *Geometry { return f.geo }

// Host is the host file, for its attributes. It stays the File's.
func (f *File) Host() disk.File { return f.host }

// HostChanged reports whether the host file was changed, and its mtime with it, since this was asked last. What is in the journal alone changes nothing there;
// the applier does, and says so by Hooks.Applied.
func (f *File) HostChanged() bool { return f.hostChanged.Swap(false) }

// Waits reports whether anything flushed waits for the applier. Where it does Hooks.Applied is still to be called, or about to be.
func (f *File) Waits() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.queued > 0
}

// ReadOnly reports whether changes are refused with ErrReadOnly.
func (f *File) ReadOnly() bool { return f.readOnly }

// Size is the plain size in bytes, changes not yet flushed included.
func (f *File) Size() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.hdr.size
}

// Dirty reports whether anything was changed since the last successful Flush.
func (f *File) Dirty() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.headerDirty || len(f.dirty) > 0 || f.tx != nil
}

// Pending reports whether anything flushed is not in its place yet. Close waits for it; Hooks.Idle tells when it is.
func (f *File) Pending() bool {
	a := f.eng.applier
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.files[f] > 0
}

// drain returns when everything flushed is durable and in its place. On an error (the host is full, or failed) it stays in the journal.
func (f *File) drain() error {
	a := f.eng.applier
	if a == nil {
		return nil
	}
	return a.drain(func() bool { return a.files[f] == 0 })
}

// Abandon gives up a file that lost its last name and that nobody has open: nothing of it is written any more. Only Close may follow.
func (f *File) Abandon() {
	f.commit.Lock()
	defer f.commit.Unlock()
	if a := f.eng.applier; a != nil {
		// A power cut may undo the removal of the name, and needs the journal then: it is kept until that is durable. First of all: from the next step on
		// the applier passes over what the journal has.
		a.mu.Lock()
		a.anywhere = true
		a.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.abandoned = true
	clear(f.overlay)
}

// Close closes the host file. It does not flush: what was not flushed is lost. What was flushed is applied first.
func (f *File) Close() error {
	f.mu.RLock()
	abandoned := f.abandoned
	f.mu.RUnlock()
	var err error
	if a := f.eng.applier; a != nil && !abandoned {
		if err = f.drain(); err != nil {
			err = a.fail("close of a file", err) // the next mount replays what it lacks
		}
	}
	f.commit.Lock()
	defer f.commit.Unlock()
	f.hostMu.Lock()
	defer f.hostMu.Unlock()
	f.slots.Lock()
	defer f.slots.Unlock()
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return ErrClosed
	}
	f.closed = true
	if f.tx != nil {
		f.letGo(f.tx)
		f.tx = nil
	}
	if f.single != nil { // whoever looks for it from now on learns that the file is closed
		f.eng.headers.Put(f.single)
		f.single = nil
	}
	f.mu.Unlock()
	if a := f.eng.applier; a != nil {
		a.leave(f)
	}
	f.hostClosed = true
	return errors.Join(err, f.host.Close())
}

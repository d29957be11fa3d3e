package vault

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// Vault is an open vault: the host's root directory, the keys, and a session in the state. Safe for concurrent use. Close ends
// it; every container must be flushed before that.
type Vault struct {
	path     string // for the lock only; "" where there is no path
	root     disk.Dir
	dir      disk.Dir // .coffer
	cfg      *Config
	ring     *keys.Ring
	lock     *lockFile // nil: opened for reading and there is no lock file
	state    *state
	view     *redo.View // of a journal that was not replayed; nil: none
	damage   *redo.Damage
	events   event.Sink
	readOnly bool
	closed   atomic.Bool
}

// OpenOptions say how Open opens a vault.
type OpenOptions struct {
	ReadOnly    bool // write nothing at all to the host; share the vault with other readers
	NoView      bool // with ReadOnly: leave a journal unread, whatever it holds; see Pending
	NoAtime     bool // leave access times on the host alone, as far as the files are this user's
	Recover     bool // open a copy that was not closed cleanly, or one whose state is not authentic
	ForceUnlock bool // ignore the note of another host
	Salvage     bool // make the best of a journal that is damaged, or that no state names any more, and put its pieces aside; see JournalDamage
	Mountpoint  string
	Events      event.Sink
}

// Open locks the vault at path, reads its state and, unless for reading only, replays the journal of a session that did not end cleanly and begins
// one, which is durable when Open returns. cfg and mk are what ReadConfig and Unlock returned; both stay the caller's, and mk may be destroyed afterwards.
//
// For writing, the session excludes every other opener; config and config.bak are made the same again where they differ, and
// a lost state is rebuilt. For reading only nothing is written, and a lock is shared with other readers where the host has a
// lock file and locks: it keeps writers out meanwhile. On a host without locks only the holder's note is checked. A journal is then shown by View.
//
// Errors: *InUseError (ErrInUse), ErrCopied, ErrState, ErrTampered, ErrVersion, ErrFeature; those of package redo, ErrLost and ErrIncomplete only for
// writing, and of journal.Open; or the host's.
func Open(path string, cfg *Config, mk *keys.MasterKey, o OpenOptions) (*Vault, error) {
	open := disk.OpenRoot
	switch {
	case o.ReadOnly:
		open = disk.OpenReadOnly
	case o.NoAtime:
		open = disk.OpenNoAtime
	}
	root, dir, err := openDirs(path, open)
	if err != nil {
		return nil, err
	}
	return openDisk(path, root, dir, cfg, mk, o)
}

// OpenDir is Open on a directory that is open already, which it takes over, on failure too. A lock is the kernel's and needs a path: the lock
// file carries the note here, which keeps out other hosts, and no more. Whoever opens a vault this way sees to it that nobody else has it.
func OpenDir(root disk.Dir, cfg *Config, mk *keys.MasterKey, o OpenOptions) (*Vault, error) {
	dir, err := openCoffer(root)
	if err != nil {
		root.Close()
		return nil, err
	}
	return openDisk("", root, dir, cfg, mk, o)
}

// openDisk is Open on directories that are open already. It takes them over.
func openDisk(path string, root, dir disk.Dir, cfg *Config, mk *keys.MasterKey, o OpenOptions) (*Vault, error) {
	v := &Vault{path: path, root: root, dir: dir, cfg: cfg, ring: keys.NewRing(mk, cfg.VaultID), events: o.Events, readOnly: o.ReadOnly}
	if err := v.open(o); err != nil {
		v.view.Close()
		if v.state != nil {
			v.state.close()
		}
		// A session that was begun stays open in the state, as after a crash. The first error says more.
		_ = v.lock.release()
		v.closeDirs()
		return nil, err
	}
	return v, nil
}

func (v *Vault) open(o OpenOptions) error {
	err := v.cfg.authenticate(v.ring)
	switch {
	case err != nil:
		return err
	case v.cfg.ROCompat != 0 && !o.ReadOnly:
		return fmt.Errorf("vault: ro-compat features %#x allow reading only: %w", v.cfg.ROCompat, ErrFeature)
	case o.ReadOnly:
		v.lock, err = lockReader(v.path, v.dir, o.ForceUnlock)
	default:
		v.lock, err = lockWriter(v.path, v.dir, o.Mountpoint, o.ForceUnlock)
	}
	if err != nil {
		return err
	}
	v.state, err = openState(v.dir, v.ring, stateOptions{
		readOnly: o.ReadOnly, recover: o.Recover, events: o.Events,
		scan:     func() (uint64, error) { return scanNames(v.root, v.ring) },
		orphaned: v.orphaned,
	})
	if err != nil {
		return err
	}
	if err := v.takeJournal(o); err != nil || o.ReadOnly {
		return err
	}
	if err := repairConfigs(v.path, v.dir, v.cfg, v.ring, o.Events); err != nil {
		return err
	}
	start, err := v.sessionStart()
	if err != nil {
		return err
	}
	return v.state.begin(start)
}

// clockSlack is how much earlier than the host's clock a session is said to begin: the coarsest time stamp of a host
// filesystem is two seconds.
const clockSlack = 2 * time.Second

// sessionStart returns the time that no ctime of this session can lie before. It is the host's clock that counts, which on a
// network filesystem is not ours: the note in the lock was written a moment ago.
func (v *Vault) sessionStart() (int64, error) {
	var st unix.Stat_t
	if err := v.lock.f.Stat(&st); err != nil {
		return 0, fmt.Errorf("vault: lock: %w", err)
	}
	return min(nanoseconds(st.Ctim), time.Now().UnixNano()) - int64(clockSlack), nil
}

// nanoseconds since 1970; times beyond what fits, 292 years either way, are cut to that.
func nanoseconds(ts unix.Timespec) int64 {
	const most = math.MaxInt64/int64(time.Second) - 1
	return min(max(ts.Sec, -most), most)*int64(time.Second) + ts.Nsec
}

// Root is the vault's directory on the host, .coffer included, with the names that a View shows. The Vault closes it.
func (v *Vault) Root() disk.Dir { return v.view.Root(v.root) }

// Ring holds the keys. Close destroys it.
func (v *Vault) Ring() *keys.Ring { return v.ring }

// Config is what Open was given.
func (v *Vault) Config() *Config { return v.cfg }

// Params are those of every container of the vault.
func (v *Vault) Params() keys.FileParams { return v.cfg.Params }

// GeometryID is that of new containers.
func (v *Vault) GeometryID() uint8 { return v.cfg.GeometryID() }

// ReadOnly tells whether the vault was opened for reading only.
func (v *Vault) ReadOnly() bool { return v.readOnly }

// NextSeq draws a link sequence: higher than every one drawn or seen before, in this and all earlier sessions, crashed ones
// included. It does no I/O except when it has to wait for the next block of 4096. ErrReadOnly, ErrClosed, or the error of the
// state's last write, which stays: then no further name can be made in this session.
func (v *Vault) NextSeq() (uint64, error) { return v.state.nextSeq() }

// SawSeq tells of an authentic link sequence met in the tree: none up to it is drawn any more. A state that was restored from a
// backup is behind the tree. No I/O.
func (v *Vault) SawSeq(seq uint64) { v.state.sawSeq(seq) }

// UncleanTime tells whether an earlier session that did not end cleanly began at or before ctime, so that a host file changed
// at ctime may have a length that does not match its size. No I/O.
func (v *Vault) UncleanTime(ctime unix.Timespec) bool { return v.state.uncleanTime(nanoseconds(ctime)) }

// UncleanSeq tells whether an earlier session that did not end cleanly may have drawn the link sequence seq. No I/O.
func (v *Vault) UncleanSeq(seq uint64) bool { return v.state.uncleanSeq(seq) }

// Unclean tells whether any earlier session did not end cleanly and was not forgotten.
func (v *Vault) Unclean() bool { return len(*v.state.unclean.Load()) > 0 }

// Suspend says on the host that the session ended cleanly, for a copy that is made of the vault before Resume begins another session. It comes after
// everything was handed over and the journal removed (ErrJournal), and no link sequence may be drawn in between. Who opens the copy finds no session.
func (v *Vault) Suspend() error {
	if err := v.noJournal(); err != nil {
		return err
	}
	if err := v.root.SyncAll(); err != nil {
		return err
	}
	return v.state.pause()
}

// Resume begins another session, with a journal of its own. After an error the state on the host may say that there is no session. So no name
// is made any more; what still can be done, to remove names and to set attributes, needs none.
func (v *Vault) Resume() error {
	start, err := v.sessionStart()
	if err == nil {
		err = v.state.begin(start)
	}
	return v.state.fail(err)
}

// Close makes everything on the host's filesystem durable, ends the session cleanly, unless its journal is still there (ErrJournal), empties the note,
// releases the lock and destroys the ring. It must come after the last change to the host, all of it handed over successfully: where that failed,
// CloseUnclean is right. Where it cannot be made durable the session stays open in the state. A second call answers ErrClosed.
func (v *Vault) Close() error { return v.finish(true) }

// CloseUnclean is Close for a session that could not hand everything to the host: the state keeps it as one that did not end
// cleanly.
func (v *Vault) CloseUnclean() error { return v.finish(false) }

func (v *Vault) finish(clean bool) error {
	if v.closed.Swap(true) {
		return ErrClosed
	}
	var err error
	if clean && !v.readOnly {
		// What was handed over is in the host's memory. No cut may leave a state that says clean beside files that are not whole.
		if err = v.root.SyncAll(); err == nil {
			err = v.noJournal()
		}
	}
	if clean && !v.readOnly && err == nil {
		err = v.state.end()
	} else {
		v.state.abandon()
	}
	v.state.close()
	v.view.Close()
	err = errors.Join(err, v.lock.release())
	v.closeDirs()
	return err
}

func (v *Vault) closeDirs() {
	v.ring.Destroy()
	v.dir.Close()
	v.root.Close()
}

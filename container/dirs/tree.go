package dirs

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"golang.org/x/sys/unix"
)

// Besides these, errors are bare syscall.Errno values where POSIX has one for what was asked, and wrapped *fs.PathError values
// where the host refused.
var (
	// ErrStale: the name no longer carries the object that the caller means. It reads its locator again and retries.
	ErrStale = errors.New("name no longer carries the object")
	// ErrDuplicate: a second host directory under the id of a live one (FORMAT.md 8.5).
	ErrDuplicate = errors.New("second host object under one object id")
	// ErrName: the host object is not what its sealed name says, or is gone behind our back.
	ErrName = errors.New("host object does not match its name")
	// ErrTargetTooLong: the sealed target does not fit into a host symlink; SymlinkContainer takes it.
	ErrTargetTooLong = errors.New("target too long for a host symlink")
)

const (
	defaultMaxEntries  = 1 << 20
	defaultMaxOpenDirs = 256

	// configDir in the vault's root is not part of the tree.
	configDir = ".coffer"
)

// Config says what a Tree works on. All functions may be called concurrently and under locks of the Tree: they must not call
// back into it.
type Config struct {
	Root     disk.Dir      // host directory of the vault; stays the caller's
	RootID   keys.ObjectID // directory id of the root: the vault id
	Codec    *names.Codec
	Geometry uint8 // of new files

	// NextSeq draws a link sequence that was never drawn before. Not needed when ReadOnly.
	NextSeq func() (uint64, error)
	// SawSeq is told the highest sequence of each directory that is loaded. May be nil.
	SawSeq func(uint64)
	// Headerless reports whether the file at host in d, whose link l has flag NoHeader, is a leftover of an unclean session:
	// l.Seq lies in an unclean interval of a former session and there is no valid header. It is asked only where several links
	// compete for one name. It must answer false for sequences of the running session. nil: never.
	Headerless func(l names.Link, d disk.Dir, host string) bool
	// CleanSeq reports whether a file with a link of this sequence is of a session that ended cleanly, so that all of it is durable. A new name of it does
	// not say then that it may have no header. nil: never.
	CleanSeq func(seq uint64) bool
	// BeforeUnlink is called just before a visible object that is no directory loses the name e, by Unlink or by a rename over
	// it. open pins the object so that it outlives the name: with data for reading and writing (containers only), else as
	// an O_PATH descriptor. open is valid during the call only. May be nil.
	BeforeUnlink func(e Entry, open func(data bool) (disk.File, error))

	// Intend is told of an exchange, by an intent as package redo encodes it, before the first of its host renames, and makes it durable before it returns: the
	// next mount then takes the steps that a crash left out. Its error is that of the exchange, of which nothing has happened then. done is called with nil once
	// the names are durable, those of the exchange or, where it failed and was undone, the old ones; with an error where neither could be had. nil: nobody
	// finishes an exchange.
	Intend func(intent []byte) (done func(error), err error)

	// Seal is set where this process cannot work with every mode that a file or directory may have: those get the owner's bits that it needs, and the
	// mode that was asked for is sealed (FORMAT.md 8.7).
	Seal *xattrs.Codec
	// ACL says that default ACLs of the host decide, with the mode that is asked for, about the permission bits of new objects. The process's
	// umask must then be 0, since it would look the same.
	ACL bool

	ReadOnly bool
	Events   event.Sink

	MaxEntries  int // links kept in memory over all maps; 0: 1048576. The map in use may exceed it alone
	MaxOpenDirs int // directory descriptors kept open; 0: 256, or a quarter of what the process may have. Those in use may exceed it
}

// Entry is one plain name and the object that it carries. It is a copy and stays as it is.
type Entry struct {
	Name     string
	Type     names.Type
	ID       keys.ObjectID
	Geometry uint8
	Flags    names.Flags
	Seq      uint64
}

// Tree is the directories of a mounted vault. Its methods may be called concurrently.
type Tree struct {
	cfg  Config
	root *Dir

	moves sync.Mutex
	// place guards parent and host of every Dir. They change under place and mu together; either is enough for reading.
	place sync.RWMutex

	mu         sync.Mutex // guards the four below and Dir.refs
	dirs       map[keys.ObjectID]*Dir
	loserLinks map[keys.ObjectID]int // hidden host links of objects that are not directories
	left       error                 // something half made could not be removed

	haveLosers atomic.Bool   // one loser was seen since the mount; spares Stat the lock
	links      atomic.Int64  // in all loaded maps, losers included
	loaded     atomic.Int64  // number of loaded maps
	clock      atomic.Uint64 // counts uses of maps, for their age

	fds descriptors
}

// New answers the tree of cfg. It reads nothing yet.
func New(cfg Config) (*Tree, error) {
	if cfg.Root == nil || cfg.Codec == nil || cfg.NextSeq == nil && !cfg.ReadOnly {
		return nil, errors.New("dirs: root directory, codec and source of link sequences are needed")
	}
	if cfg.MaxEntries <= 0 {
		cfg.MaxEntries = defaultMaxEntries
	}
	if cfg.MaxOpenDirs <= 0 {
		cfg.MaxOpenDirs = min(defaultMaxOpenDirs, disk.MaxOpen()/4)
	}
	t := &Tree{cfg: cfg, dirs: make(map[keys.ObjectID]*Dir), loserLinks: make(map[keys.ObjectID]int)}
	t.fds.max = cfg.MaxOpenDirs
	t.root = &Dir{t: t, id: cfg.RootID, refs: 1, fd: cfg.Root, pins: 1}
	t.dirs[cfg.RootID] = t.root
	return t, nil
}

// Root returns the root directory. It is live as long as the tree and needs no reference.
func (t *Tree) Root() *Dir { return t.root }

// Close closes every directory descriptor that the tree opened. No other call may run or follow. It also answers that something half made was left: the session
// must not count as clean then, since only after one that was not is a file without a header no damage.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.left
	for _, d := range t.dirs {
		if err := t.fds.drop(d); err != nil && first == nil {
			first = fmt.Errorf("dirs: directory %s: %w", d.id, err)
		}
	}
	return first
}

// Child returns the live Dir of the subdirectory called name, with a reference that the caller releases. ErrStale when name does not carry
// id, ENOTDIR when it is no directory, ErrDuplicate when that id is live in another place.
func (d *Dir) Child(name string, id keys.ObjectID) (*Dir, error) {
	if err := d.rlock(); err != nil {
		return nil, err
	}
	defer d.mu.RUnlock()
	n, ok := d.links[name]
	if !ok || n.id != id {
		return nil, ErrStale
	}
	return d.child(name, n)
}

// child is Child under d.mu.
func (d *Dir) child(name string, n link) (*Dir, error) {
	if n.typ != names.Dir {
		return nil, unix.ENOTDIR
	}
	t, host := d.t, d.hostName(name, n)
	t.mu.Lock()
	x := t.dirs[n.id]
	switch {
	case x == nil:
		x = &Dir{t: t, id: n.id, refs: 1, parent: d, host: host}
		t.dirs[n.id] = x
		d.refs++
	case x.parent == d && x.host == host:
		x.refs++
	default:
		x = nil
	}
	t.mu.Unlock()
	if x == nil {
		err := fmt.Errorf("dirs: directory %s: %w", n.id, ErrDuplicate)
		t.cfg.Events.Emit(event.Event{Kind: event.Duplicate, Object: host, Offset: -1, Err: err})
		return nil, err
	}
	return x, nil
}

// Retain adds a reference to d, of which the caller holds one already.
func (d *Dir) Retain() {
	d.t.mu.Lock()
	d.refs++
	d.t.mu.Unlock()
}

// Release gives one reference back. After the last one d must not be used any more.
func (d *Dir) Release() {
	t := d.t
	for d != nil {
		t.mu.Lock()
		d.refs--
		if d.refs > 0 || d == t.root {
			t.mu.Unlock()
			return
		}
		if t.dirs[d.id] == d {
			delete(t.dirs, d.id)
		}
		parent := d.parent
		t.mu.Unlock()
		d.mu.Lock()
		d.dropMap()
		d.mu.Unlock()
		if err := t.fds.drop(d); err != nil {
			t.cfg.Events.Emit(event.Event{Kind: event.Failed, Object: d.id.String(), Offset: -1, Err: err, Note: "close a directory"})
		}
		d = parent
	}
}

package fs

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

const (
	typeFile    = names.File
	typeDir     = names.Dir
	typeSymlink = names.Symlink

	noHeader = names.NoHeader
)

// link is one name under which the kernel found an object. It holds its parent.
type link struct {
	parent *inode
	entry  dirs.Entry
}

// inode is one object that the kernel knows. The first seven fields never change.
type inode struct {
	node     uint64
	id       keys.ObjectID
	typ      names.Type
	ino      uint64 // of the host; 0 for the root, whose attributes are asked of its Dir
	geometry uint8  // of a file
	linked   bool   // it had other names, too, when it was met
	refused  bool   // a second host object under an id that another one has: its name shows and can be removed, and it is good for nothing else

	lookups uint64 // guarded by FS.mu
	holds   int    // guarded by FS.mu

	dir atomic.Pointer[dirs.Dir] // of a directory, once needed; stays until the inode goes

	// loc guards links, linkIndex, left and found. It is held shared over host calls by name, so that a rename never pulls the name away in between.
	loc       sync.RWMutex
	links     []link
	linkIndex map[linkKey]int // of links, where there are many
	left      []*inode        // directories in which links were removed since the last sync of this object; each held
	found     dirs.Entry      // the last link that was added: flags and sequence outlive the link

	mu      sync.Mutex // guards what follows, and opening and closing of the file
	file    *cache.File
	pinned  disk.File // keeps the object reachable once its last known name is gone; nil where file does that
	early   disk.File // was opened before the READ that follows OPEN; see expectRead
	keep    bool      // file is not closed before the inode goes
	orphan  bool      // counted in FS.orphans
	opens   int       // handles
	users   int       // calls that work on file
	closes  uint64    // how often file was closed: what the host said of it before is not so any more
	lingers bool      // file is open though nobody has it open: see closeIdle; one hold

	told         atomic.Int64  // when the kernel was last given name and attributes, 0 where that does not count any more; see told.go
	paged        atomic.Bool   // the kernel has or had pages of it
	worked       atomic.Bool   // the open file was made or used for more than reading; see untouched
	lingering    atomic.Bool   // lingers, for who does not hold mu
	writers      atomic.Int32  // handles that may write
	held         atomic.Uint32 // what is known of its attributes on the host; see held.go
	xattrMu      sync.Mutex    // held over host calls that change or list attributes; before loc
	privFree     atomic.Bool   // mode is known to have no suid or sgid bit; see killpriv.go
	owner        atomic.Pointer[dirOwner]
	freeing      sync.RWMutex // of a directory: shared while the host frees what was removed from it; before all other locks
	linkSync     sync.Mutex   // held while its links are synced, and while a file is moved or gets another link; before loc
	linksSynced  atomic.Bool  // no link of this object changed since they were synced
	asMade       atomic.Bool  // it was made in this session, has had one name at a time, and mode, owner and extended attributes are what they were then
	metaDirty    atomic.Bool  // mode or owner may have been set since the last full sync
	headerSynced atomic.Bool  // a header of the file was made durable in this session

	habit habit

	times
}

// addLink notes a name of n.
func (fs *FS) addLink(n, parent *inode, e dirs.Entry) {
	n.loc.RLock()
	i := n.linkAt(parent, e.Name)
	same := i >= 0 && n.links[i].entry == e
	n.loc.RUnlock()
	if same {
		return
	}
	n.loc.Lock()
	defer n.loc.Unlock()
	fs.addLinkLocked(n, parent, e)
}

func (fs *FS) addLinkLocked(n, parent *inode, e dirs.Entry) {
	fs.attrsChange(n)
	if i := n.linkAt(parent, e.Name); i >= 0 {
		n.links[i].entry = e
		return
	}
	fs.hold(parent)
	n.appendLink(link{parent, e})
	n.found = e
}

// removeLinkLocked forgets a name. The parent's hold goes over to left until the removal is synced.
func (fs *FS) removeLinkLocked(n, parent *inode, name string) {
	i := n.linkAt(parent, name)
	if i < 0 {
		return
	}
	n.deleteLink(i)
	fs.attrsChange(n)
	n.linksSynced.Store(false)
	if slices.Contains(n.left, parent) {
		fs.release(parent)
		return
	}
	n.left = append(n.left, parent)
}

// directory returns the Dir of a directory inode, opening it on first use.
func (n *inode) directory() (*dirs.Dir, error) {
	if n.typ != typeDir {
		return nil, unix.ENOTDIR
	}
	if d := n.dir.Load(); d != nil {
		return d, nil
	}
	n.loc.RLock()
	defer n.loc.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := n.dir.Load(); d != nil {
		return d, nil
	}
	err := n.byName(func(d *dirs.Dir, name string) error {
		child, err := d.Child(name, n.id)
		if err == nil {
			n.dir.Store(child)
		}
		return err
	})
	return n.dir.Load(), err
}

// byName calls fn with the links of n until one is not stale. The caller holds loc. With no link left the answer is ErrStale.
// The locks it takes are those of directories above n, never the other way round.
func (n *inode) byName(fn func(d *dirs.Dir, name string) error) error {
	err := error(dirs.ErrStale)
	for _, l := range n.links {
		d, derr := l.parent.directory()
		if derr != nil {
			return derr
		}
		if err = fn(d, l.entry.Name); !errors.Is(err, dirs.ErrStale) {
			return err
		}
	}
	return err
}

// attrs is what an open host file, a directory and a name in a directory can do.
type attrs interface {
	Stat(st *unix.Stat_t) error
	BirthTime() (int64, error)
	Chmod(mode uint32) error
	Chown(uid, gid int) error
	Utimes(ts *[2]unix.Timespec) error
	// Xattrs calls fn with the extended attributes; with change it may write to them.
	Xattrs(change bool, fn func(disk.Xattrs) error) error
}

// host calls fn with the way to the attributes of n on the host: the directory itself, the open file, the pinned descriptor or a name.
func (n *inode) host(fn func(attrs) error) error {
	if d := n.dir.Load(); d != nil {
		return fn(dirSelf{d})
	}
	n.loc.RLock()
	defer n.loc.RUnlock()
	n.mu.Lock()
	if n.file != nil || n.pinned != nil {
		// Under mu, so that the file is not closed meanwhile. These calls are short.
		defer n.mu.Unlock()
		if n.file != nil {
			return fn(openFile{n.file.Container().Host()})
		}
		return fn(pinned{openFile{n.pinned}, n})
	}
	n.mu.Unlock()
	return n.byName(func(d *dirs.Dir, name string) error { return fn(dirName{d, name, n.id}) })
}

// stat asks the host.
func (n *inode) stat(st *unix.Stat_t) error {
	return n.host(func(a attrs) error { return a.Stat(st) })
}

// statTimeless is stat, but leaves the host's times out while n is open and they do not count: see times.
func (n *inode) statTimeless(st *unix.Stat_t) error {
	return n.host(func(a attrs) error {
		if f, ok := a.(openFile); ok && n.ownTimes(f.File) {
			return disk.StatTimeless(f.File, st)
		}
		return a.Stat(st)
	})
}

type dirSelf struct{ d *dirs.Dir }

func (s dirSelf) Stat(st *unix.Stat_t) error        { return s.d.StatSelf(st) }
func (s dirSelf) BirthTime() (int64, error)         { return s.d.BirthTimeSelf() }
func (s dirSelf) Chmod(mode uint32) error           { return s.d.ChmodSelf(mode) }
func (s dirSelf) Chown(uid, gid int) error          { return s.d.ChownSelf(uid, gid) }
func (s dirSelf) Utimes(ts *[2]unix.Timespec) error { return s.d.UtimesSelf(ts) }
func (s dirSelf) Xattrs(change bool, fn func(disk.Xattrs) error) error {
	return s.d.XattrsSelf(change, fn)
}

type dirName struct {
	d    *dirs.Dir
	name string
	id   keys.ObjectID
}

func (s dirName) Stat(st *unix.Stat_t) error        { return s.d.Stat(s.name, s.id, st) }
func (s dirName) BirthTime() (int64, error)         { return s.d.BirthTime(s.name, s.id) }
func (s dirName) Chmod(mode uint32) error           { return s.d.Chmod(s.name, s.id, mode) }
func (s dirName) Chown(uid, gid int) error          { return s.d.Chown(s.name, s.id, uid, gid) }
func (s dirName) Utimes(ts *[2]unix.Timespec) error { return s.d.Utimes(s.name, s.id, ts) }
func (s dirName) Xattrs(change bool, fn func(disk.Xattrs) error) error {
	return s.d.Xattrs(s.name, s.id, change, fn)
}

// openFile is an open host file, or an O_PATH descriptor.
type openFile struct{ disk.File }

func (f openFile) Xattrs(_ bool, fn func(disk.Xattrs) error) error { return fn(f.File) }

// pinned is an object that lost its last known name. Its Stat says what dirs.Dir.Stat said of the name.
type pinned struct {
	openFile
	n *inode
}

func (p pinned) Stat(st *unix.Stat_t) error {
	if err := p.File.Stat(st); err != nil || p.n.typ != typeSymlink {
		return err
	}
	if p.n.inContainer() {
		st.Mode = unix.S_IFLNK | 0o777
	} else {
		st.Size = names.TargetLen(st.Size)
	}
	return nil
}

// inContainer reports whether the host object is a container. The caller holds loc.
func (n *inode) inContainer() bool {
	return n.typ == typeFile || n.found.Flags&names.ContainerSymlink != 0
}

// pin makes sure that n stays reachable after its name in parent goes, if that is the last one known. The caller holds loc exclusively. A
// file is opened, not only referenced, so that it can still be opened again through /proc/PID/fd.
func (fs *FS) pin(n, parent *inode, d *dirs.Dir, name string) error {
	if len(n.links) != 1 || n.linkAt(parent, name) != 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil {
		n.keep = true
	}
	if n.file != nil || n.pinned != nil || n.dir.Load() != nil {
		return nil
	}
	if n.pinned = fs.takeEarly(n); n.pinned != nil {
		return nil
	}
	var err error
	if n.typ == typeFile {
		if n.pinned, err = d.Open(name, n.id, disk.Access(fs.cfg.ReadOnly)); err == nil {
			return nil
		}
	}
	n.pinned, err = d.OpenPath(name, n.id)
	return err
}

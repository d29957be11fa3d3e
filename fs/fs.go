package fs

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/event"
)

// DefaultTimeout is how long the kernel may believe names and attributes: one vault has one writer, which is this process.
const DefaultTimeout = time.Hour

// nameMax is the longest plain name in bytes.
const nameMax = 255

// Config is what a filesystem is made of. Tree, Engine and Cache stay the caller's and must live until Close has returned.
type Config struct {
	Tree   *dirs.Tree
	Engine *container.Engine
	Cache  *cache.Cache
	Attrs  *xattrs.Codec

	// UncleanSeq reports whether an unclean session may have drawn a link sequence, so that a new file may lack its header (vault.UncleanSeq). Nil: none may.
	UncleanSeq func(seq uint64) bool
	// UncleanTime reports whether a host file with this ctime may have a length that does not tell its size. Nil: none.
	UncleanTime func(ctime unix.Timespec) bool

	// InSession reports whether a link with this sequence was made since the vault was opened (vault.InSession). Nil: none was.
	InSession func(seq uint64) bool

	Ctimes map[keys.ObjectID]vault.Ctime // of earlier sessions, taken over; nil: none

	ReadOnly  bool
	WriteBack bool          // the kernel's write-back cache is asked for
	ACL       bool          // the host's POSIX ACLs count; those of Tree must, too
	Timeout   time.Duration // of names and attributes; 0: DefaultTimeout
	MaxNodes  int           // inodes that the kernel may know before it is asked to forget some; 0: DefaultMaxNodes
	Events    event.Sink
	Log       *slog.Logger // nil: slog.Default
}

// FS is a mounted vault's filesystem. Its methods are called by go-fuse, concurrently.
type FS struct {
	fuse.RawFileSystem // answers ENOSYS to what is not here

	cfg     Config
	asRoot  bool // the daemon may give files away
	noAttrs bool // the host has no extended attributes
	noAsk   bool // the kernel asks for none: set by Mount
	server  atomic.Pointer[fuse.Server]
	log     errorLog
	panics  atomic.Uint64

	closing closings
	trails  *trails

	attrChanges atomic.Uint64 // how often mode, owner or extended attributes of anything were about to change

	started time.Time
	forgot  atomic.Int64 // when the kernel last showed that it forgets names; see told.go

	orphans   atomic.Int64 // files without a name that the host still has because of us
	early     atomic.Int64 // files with inode.early
	lingering atomic.Int64 // files without a handle that are open until the journal's content is in its place

	mu       sync.RWMutex // guards the node table; see table.go
	nodes    map[uint64]*inode
	objects  map[keys.ObjectID]*inode
	lastNode uint64
	pruneAt  int // number of inodes beyond which the kernel is asked to forget; see prune.go
	root     *inode

	handleMu   sync.Mutex // guards the open directories; see readdir.go
	handles    map[uint64]*dirHandle
	lastHandle uint64

	syncMu   sync.Mutex // guards unsynced; see sync.go
	unsynced map[keys.ObjectID]*dirChanges
	changes  uint64

	ctimes ctimes
	habits habits
}

// New returns a filesystem ready for Mount. It holds a reference to the root directory until Close.
func New(c Config) *FS {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxNodes == 0 {
		c.MaxNodes = DefaultMaxNodes
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.UncleanSeq == nil {
		c.UncleanSeq = func(uint64) bool { return false }
	}
	if c.InSession == nil {
		c.InSession = func(uint64) bool { return false }
	}
	if c.UncleanTime == nil {
		c.UncleanTime = func(unix.Timespec) bool { return false }
	}
	fs := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           c,
		pruneAt:       c.MaxNodes,
		asRoot:        os.Geteuid() == 0,
		started:       time.Now(),
		nodes:         map[uint64]*inode{},
		objects:       map[keys.ObjectID]*inode{},
		handles:       map[uint64]*dirHandle{},
		unsynced:      map[keys.ObjectID]*dirChanges{},
		trails:        newTrails(),
	}
	fs.log.to = c.Log
	fs.closing.none.L = &fs.closing.mu
	if fs.ctimes.of = c.Ctimes; c.Ctimes == nil {
		fs.ctimes.of = map[keys.ObjectID]vault.Ctime{}
	}
	fs.enterRoot(c.Tree.Root())
	fs.noAttrs = !hasAttrs(c.Tree.Root())
	return fs
}

// String names the filesystem type in /proc/mounts.
func (fs *FS) String() string { return "coffer" }

// Init is called by go-fuse when the kernel has said hello.
func (fs *FS) Init(s *fuse.Server) { fs.server.Store(s) }

// Panics counts requests that panicked and were answered with EIO.
func (fs *FS) Panics() uint64 { return fs.panics.Load() }

// Close hands everything to the host and gives up all inodes. Call it after the mount is gone; no request may be under way. It returns
// the first error: data of that file may be lost.
func (fs *FS) Close() error {
	fs.trails.fetches.wait()
	fs.mu.Lock()
	var orphans, others []*inode
	for _, n := range fs.nodes {
		if n.orphan {
			orphans = append(orphans, n)
		} else {
			others = append(others, n)
		}
	}
	clear(fs.nodes)
	clear(fs.objects)
	fs.mu.Unlock()
	var errs []error
	for _, n := range orphans { // first: they only take room on the host
		errs = append(errs, fs.discard(n))
	}
	errs = append(errs, fs.cfg.Cache.FlushAll())
	for _, n := range others {
		errs = append(errs, fs.discard(n))
	}
	fs.closing.wait()
	return errors.Join(errs...)
}

// checkName refuses what no directory can hold; the kernel itself lets through up to 1024 bytes.
func checkName(name string) error {
	if len(name) > nameMax {
		return unix.ENAMETOOLONG
	}
	return nil
}

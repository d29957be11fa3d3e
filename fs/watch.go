package fs

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// op is a kind of request.
type op int

// maxErrno is above every errno of Linux.
const maxErrno = 256

// Failure is a request that failed for a reason that lies in the vault, its host or the daemon, and not with who asked. Path is plain: it
// is for the owner's eyes, never for a log.
type Failure struct {
	Op     string
	Errno  syscall.Errno
	Path   string // from the root of the mount, "" where it is not known any more
	Offset int64  // where the request began, in plain bytes; -1 for requests that have no place in a file
}

// Watch stands between go-fuse and an FS (MountOptions.Wrap): it counts what the kernel asks, remembers when it last did, and holds up what would change
// something while the vault is frozen. Its counters may be read at any time.
type Watch struct {
	fuse.RawFileSystem
	fs     *FS
	failed func(Failure)
	start  time.Time
	last   atomic.Int64 // nanoseconds from start to the last answer

	turns turns

	changes sync.RWMutex // shared by every request that may change something, held by a freeze; see freeze.go

	requests [opCount]atomic.Uint64
	answers  [maxErrno]atomic.Uint64 // by errno; 0 is not counted
}

// NewWatch watches fs. failed is called for each Failure, concurrently, and must be quick; nil drops them.
func NewWatch(fs *FS, failed func(Failure)) *Watch {
	if failed == nil {
		failed = func(Failure) {}
	}
	return &Watch{RawFileSystem: fs, fs: fs, failed: failed, start: time.Now()}
}

// again reports whether a request that was answered with s is worth another try: descriptors may have come free.
func (w *Watch) again(s fuse.Status) bool {
	return s == fuse.Status(unix.ENFILE) && w.fs.closeLingering()
}

// answer counts a request that was answered with s. name is the name below node that it was about, if any.
func (w *Watch) answer(o op, node uint64, name string, off int64, s fuse.Status) fuse.Status {
	w.requests[o].Add(1)
	now := time.Since(w.start)
	w.last.Store(int64(now))
	w.turns.take(now)
	if s == fuse.OK {
		return s
	}
	if s > 0 && int(s) < maxErrno {
		w.answers[s].Add(1)
	}
	if errno := syscall.Errno(s); unasked(errno) {
		w.failed(Failure{Op: o.String(), Errno: errno, Path: w.fs.pathBelow(node, name), Offset: off})
	}
	return s
}

// unasked reports whether an errno speaks of the vault, its host or the daemon. The others are what programs ask for and expect.
func unasked(errno syscall.Errno) bool {
	switch errno {
	case unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ESTALE:
		return true
	}
	return false
}

// Quiet is how long ago the last request was answered.
func (w *Watch) Quiet() time.Duration { return time.Since(w.start) - time.Duration(w.last.Load()) }

// Requests returns how many requests of each kind were answered. FORGET is not among them: nobody waits for it.
func (w *Watch) Requests() map[string]uint64 {
	out := map[string]uint64{}
	for o := range w.requests {
		if n := w.requests[o].Load(); n > 0 {
			out[op(o).String()] = n
		}
	}
	return out
}

// Answers returns how many requests were answered with each errno, by its name. ENOENT and ENODATA are everyday answers.
func (w *Watch) Answers() map[string]uint64 {
	out := map[string]uint64{}
	for e := range w.answers {
		if n := w.answers[e].Load(); n > 0 {
			out[unix.ErrnoName(syscall.Errno(e))] += n
		}
	}
	return out
}

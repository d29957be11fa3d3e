package fs

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/siv"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// errUnknownNode: a request names a node id or handle that was never given or is gone.
var errUnknownNode = errors.New("fs: unknown node or handle")

// class is what an error means to an application.
type class struct {
	err    error
	errno  syscall.Errno
	damage bool // stored bytes are not what was sealed
}

// classes returns every sentinel of the layers below. The first that matches counts, before any errno further down the chain: damage
// stays EIO whatever host call found it.
func classes() []class {
	return []class{
		{container.ErrAuth, syscall.EIO, true},
		{container.ErrCorrupt, syscall.EIO, true},
		{container.ErrTruncated, syscall.EIO, true},
		{container.ErrDigest, syscall.EIO, true},
		{container.ErrTrailing, syscall.EIO, true},
		{container.ErrResume, syscall.EIO, false},
		{container.ErrNoHeader, syscall.EIO, true},
		{container.ErrKey, syscall.EIO, true},
		{container.ErrIdentity, syscall.EIO, true},
		{container.ErrVersion, syscall.EIO, true},
		{container.ErrFeature, syscall.EIO, true},
		{container.ErrSize, syscall.EIO, true},
		{container.ErrGeometry, syscall.EIO, true},
		{container.ErrTooLarge, syscall.EFBIG, false},
		{container.ErrReadOnly, syscall.EROFS, false},
		{container.ErrClosed, syscall.EIO, false},
		{suite.ErrAuth, syscall.EIO, true},
		{suite.ErrUnknown, syscall.EIO, true},
		{suite.ErrKeySize, syscall.EIO, false},
		{suite.ErrNonceSize, syscall.EIO, false},
		{siv.ErrAuth, syscall.EIO, true},
		{siv.ErrKeySize, syscall.EIO, false},
		{names.ErrForeign, syscall.EIO, true},
		{names.ErrBadName, syscall.EIO, true},
		{names.ErrSidecar, syscall.EIO, true},
		{xattrs.ErrForeign, syscall.EIO, true},
		{xattrs.ErrBadAttr, syscall.EIO, true},
		{names.ErrTooLong, syscall.ENAMETOOLONG, false},
		// The kernel looks a path up again, once, before it lets an application see ESTALE.
		{dirs.ErrStale, syscall.ESTALE, false},
		{dirs.ErrDuplicate, syscall.EIO, true},
		{dirs.ErrName, syscall.EIO, true},
		{dirs.ErrTargetTooLong, syscall.ENAMETOOLONG, false},
		{cache.ErrNoData, syscall.ENXIO, false},
		{vault.ErrReadOnly, syscall.EROFS, false},
		{vault.ErrClosed, syscall.EIO, false},
		{vault.ErrExhausted, syscall.EIO, false},
		{vault.ErrState, syscall.EIO, true},
		{disk.ErrNotRegular, syscall.EIO, true},
		{errUnknownNode, syscall.ESTALE, false},
	}
}

// errnoOf is the only map from errors to errno. What it does not know is EIO.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	errno, bare := err.(syscall.Errno) //nolint:errorlint // nothing is wrapped: an everyday answer, which needs no search
	if !bare {
		for _, c := range classes() {
			if errors.Is(err, c.err) {
				return c.errno
			}
		}
		if !errors.As(err, &errno) {
			return syscall.EIO
		}
	}
	switch errno {
	case syscall.ENOSYS, // would switch an operation off for the life of the mount, FSYNC included
		syscall.EBADF,                 // a descriptor of ours: an internal error
		syscall.ELOOP,                 // a symlink in a file's place
		syscall.EINTR, syscall.EAGAIN, // nobody may be told to try again what was half done
		0:
		return syscall.EIO
	case syscall.EMFILE: // the limit of this process, not of the one that asks
		return syscall.ENFILE
	}
	return errno
}

// damage reports whether err says that stored bytes are not what was sealed.
func damage(err error) bool {
	for _, c := range classes() {
		if errors.Is(err, c.err) {
			return c.damage
		}
	}
	return false
}

// status answers a request with an error, and logs it if it is one that nobody could have expected.
func (fs *FS) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno := errnoOf(err)
	if errno == syscall.EIO {
		fs.log.error(op, err)
	}
	return fuse.Status(errno)
}

// failed reports work that no request can answer, where it failed.
func (fs *FS) failed(n *inode, err error, note string) {
	if err != nil {
		fs.cfg.Events.Emit(event.Event{Kind: event.Failed, Object: n.id.String(), Offset: -1, Err: err, Note: note})
	}
}

// damaged reports damage that the request which met it passes over.
func (fs *FS) damaged(id keys.ObjectID, err error, note string) {
	fs.cfg.Events.Emit(event.Event{Kind: event.Damage, Object: id.String(), Offset: -1, Err: err, Note: note})
}

// Of EIO-class errors, logBurst are logged at once and then one each logPause: a damaged file that a tool reads again and
// again must not fill the host's disk.
const (
	logBurst = 50
	logPause = time.Second
)

// errorLog logs errors with their whole chain, rate-limited.
type errorLog struct {
	to *slog.Logger

	mu      sync.Mutex // guards what follows
	spare   int        // lines that may be logged now
	since   time.Time  // when spare was counted last
	dropped int
}

func (l *errorLog) error(op string, err error) {
	if dropped, ok := l.admit(time.Now()); ok {
		attrs := []any{"op", op, "err", err}
		if dropped > 0 {
			attrs = append(attrs, "not_logged", dropped)
		}
		l.to.Error("request failed", attrs...)
	}
}

// admit says whether a line may be logged at t, and how many were not since the last one.
func (l *errorLog) admit(t time.Time) (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		l.spare, l.since = logBurst, t
	}
	if n := int(t.Sub(l.since) / logPause); n > 0 {
		l.spare = min(logBurst, l.spare+n)
		l.since = t
	}
	if l.spare == 0 {
		l.dropped++
		return 0, false
	}
	l.spare--
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}

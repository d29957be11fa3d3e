package bulk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// workers is how many files are copied at a time: enough that the fsync of one does not hold up the others.
const workers = 8

// Export copies plain trees to a directory of the host: out of a vault, or into the mount of one. The fields are set before Run.
type Export struct {
	Checksum bool // a file at the destination is finished when its bytes are the same, and not when size and mtime are
	Salvage  bool // copy damaged files, with holes for what is lost
	// Within says why an open directory, the destination, is not the one that is meant. It may be nil.
	Within func(fd int) error
	// Damage reports whether an error says that stored bytes are not what they were.
	Damage func(error) bool
	// Failed is told what could not be copied. Lost, with Salvage, which bytes of a file are holes now. Both may be called concurrently.
	Failed func(path string, err error)
	Lost   func(path string, from, to int64)

	large    int64 // files of more bytes are gone on with
	counters counters
	links    linkTable
	fatal    atomic.Pointer[error] // why the destination takes no more
	current  atomic.Value          // string: the file that was begun last
	landing  landing
	dirs     atomic.Int64 // that ended so far
	sem      chan struct{}
	wg       sync.WaitGroup

	leftMu sync.Mutex // guards left
	left   []string
}

// Summary returns the counts so far.
func (e *Export) Summary() Summary { return e.counters.summary() }

// Progress says how far Run is: files that are done, bytes of their contents, holes included, and the path that was begun last.
func (e *Export) Progress() (files, size int64, path string) {
	path, _ = e.current.Load().(string)
	return e.counters.files.Load() + e.counters.skipped.Load(), e.counters.done.Load(), path
}

// Unfinished names what stands for the beginnings of large files that Run could not end; the next Run goes on with them.
func (e *Export) Unfinished() []string {
	e.leftMu.Lock()
	defer e.leftMu.Unlock()
	return slices.Sorted(slices.Values(e.left))
}

func (e *Export) leave(path string) {
	e.leftMu.Lock()
	defer e.leftMu.Unlock()
	e.left = append(e.left, path)
}

// Job is one tree to copy: to Name in the destination; "" stands for the destination itself, where the node is a directory.
type Job struct {
	Node plain.Node
	Name string
}

// ErrSkipped is what Failed is told of objects whose type is not copied.
var ErrSkipped = errors.New("not copied: a socket or a device")

// errExists says that something else is in the way.
var errExists = errors.New("a directory stands in the way, or something else where a directory goes")

// Run copies the jobs to the directory dest, which exists. When it returns, everything that it counts is durable. The error is that of the context, or of a
// destination that takes no more; all others are told to Failed.
func (e *Export) Run(ctx context.Context, dest string, jobs []Job) error {
	e.sem = make(chan struct{}, workers)
	if e.large == 0 {
		e.large = checkpointBytes
	}
	d, err := openDest(dest, e.ended, e.fail)
	if err != nil {
		return err
	}
	if e.Within != nil {
		err = e.Within(d.fd)
	}
	if err == nil {
		e.landing.most = waiting(d.fd)
		for _, j := range jobs {
			e.tree(ctx, d, j.Node, j.Name)
		}
		e.wg.Wait()
		err = e.end(d)
	}
	d.release()
	switch fatal := e.fatal.Load(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case fatal != nil:
		return *fatal
	}
	return err
}

// fail tells of one object.
func (e *Export) fail(path string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	for _, end := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.ENOTCONN} {
		if errors.Is(err, end) && !e.fatal.CompareAndSwap(nil, &err) {
			return // once is enough
		}
	}
	e.counters.failed.Add(1)
	if e.Damage(err) {
		e.counters.damaged.Add(1)
	}
	e.Failed(path, err)
}

func (e *Export) stopped(ctx context.Context) bool { return ctx.Err() != nil || e.fatal.Load() != nil }

// tree copies n to name in d.
func (e *Export) tree(ctx context.Context, d *destDir, n plain.Node, name string) {
	if e.stopped(ctx) {
		return
	}
	path := filepath.Join(d.path, name)
	st, err := n.Stat()
	if err != nil {
		e.fail(path, err)
		return
	}
	switch st.Type() {
	case unix.S_IFDIR:
		err = e.directory(ctx, d, n, st, name)
	case unix.S_IFREG:
		e.spawn(ctx, d, n, st, name)
	case unix.S_IFLNK, unix.S_IFIFO:
		err = e.special(d, n, st, name)
	default:
		err = ErrSkipped
	}
	if err != nil {
		e.fail(path, err)
	}
}

// directory copies what is in a directory; its attributes are set when the last of it is done.
func (e *Export) directory(ctx context.Context, d *destDir, n plain.Node, st plain.Stat, name string) error {
	sub := d
	if name != "" {
		if have, ok, err := d.stat(name); err != nil || ok && have.Mode&unix.S_IFMT != unix.S_IFDIR {
			return errors.Join(err, errExists)
		}
		attrs, err := attributesOf(n, st)
		if err != nil {
			return err
		}
		if sub, err = d.sub(name); err != nil {
			return err
		}
		sub.finish = func() error { return attrs.apply(sub.fd, sub.path) }
		defer sub.release()
	}
	e.counters.dirs.Add(1)
	children, err := n.Children()
	for _, c := range children {
		e.tree(ctx, sub, c, c.Name())
		c.Release()
	}
	return err
}

// spawn copies a file beside others. The first name of several is copied, the others are linked to it when it is there.
func (e *Export) spawn(ctx context.Context, d *destDir, n plain.Node, st plain.Stat, name string) {
	again, err := n.Child(".") // a reference of its own
	if err != nil {
		e.fail(filepath.Join(d.path, name), err)
		return
	}
	var first *linked
	mine := true
	if st.Nlink > 1 {
		first, mine = e.links.claim(st.Object, filepath.Join(d.path, name))
	}
	d.refs.Add(1)
	e.sem <- struct{}{}
	e.wg.Go(func() {
		defer func() { <-e.sem }()
		defer d.release()
		defer again.Release()
		if e.stopped(ctx) {
			first.decide(mine, false)
			return
		}
		if !mine && e.link(d, first, name) {
			return
		}
		err := e.file(ctx, d, again, st, name)
		first.decide(mine, err == nil)
		if err != nil {
			e.fail(filepath.Join(d.path, name), err)
		}
	})
}

// special copies a symlink or a FIFO.
func (e *Export) special(d *destDir, n plain.Node, st plain.Stat, name string) error {
	path := filepath.Join(d.path, name)
	have, ok, err := d.stat(name)
	if err != nil {
		return err
	}
	if ok && have.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errExists
	}
	err = d.place(name, func(temp string) error {
		if st.Type() == unix.S_IFLNK {
			target, err := n.Readlink()
			if err != nil {
				return err
			}
			if err := unix.Symlinkat(target, d.fd, temp); err != nil {
				return pathError("symlink", path, err)
			}
		} else if err := unix.Mkfifoat(d.fd, temp, 0o600); err != nil {
			return pathError("mkfifo", path, err)
		}
		return d.dress(temp, st, path)
	})
	if err == nil {
		e.counters.others.Add(1)
	}
	return err
}

// dress sets the attributes of what cannot be opened; it is removed again where that fails.
func (d *destDir) dress(temp string, st plain.Stat, path string) (err error) {
	defer func() {
		if err != nil {
			_ = unix.Unlinkat(d.fd, temp, 0) // the first error says more
		}
	}()
	if os.Geteuid() == 0 {
		if err := unix.Fchownat(d.fd, temp, int(st.UID), int(st.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return pathError("chown", path, err)
		}
	}
	if st.Type() != unix.S_IFLNK {
		if err := unix.Fchmodat(d.fd, temp, st.Mode&0o7777, 0); err != nil {
			return pathError("chmod", path, err)
		}
	}
	return pathError("utimes", path, unix.UtimesNanoAt(d.fd, temp, []unix.Timespec{st.Atime, st.Mtime}, unix.AT_SYMLINK_NOFOLLOW))
}

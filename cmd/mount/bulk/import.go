package bulk

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/plain"
	"github.com/cofferfs/coffer/internal/disk"
)

// Import copies host files and trees into a vault that is open for writing. The fields are set before Run; the layers stay the caller's. One
// large file is copied at a time, its frames sealed in parallel; of small ones some.
//
// A file stands in .coffer/import until it is whole and durable; then it gets its name at once. Small ones are made durable many at a time.
type Import struct {
	View   *plain.View  // of the vault
	Root   disk.Dir     // of the vault
	Key    []byte       // K_state; wiped by the caller after Run
	SyncOf func() error // makes all of the host's filesystem durable

	// Geometry is that of the files that are made. nil: the vault's; for files large enough to have resume points that of streams, 1M/32K, where that is larger: it
	// costs less space and time.
	Geometry *container.Geometry

	Checksum bool // a file in the vault is finished when its bytes are the same, and not when size and mtime are
	// Failed is told what could not be copied.
	Failed func(path string, err error)

	sizes    limits
	engines  [2]*container.Engine // of files, and of large ones
	counters counters
	current  atomic.Value // string
	partials *partials
	open     *batch // what is whole is added to it
	settling *batch // the one before, which becomes durable; nil where there is none
	making   making
	bufs     chan *segments     // of small files
	within   []*dirs.Dir        // the walk is below them; their names may not be durable
	links    map[identity]*name // sources with several names; nil: on its way to the first one
	fatal    error              // why nothing more can be written
}

// name is a plain name in a directory, of which it holds a reference.
type name struct {
	dir   *dirs.Dir
	name  string
	entry dirs.Entry
}

// Source is one thing to copy: the host path, to Name in the destination directory; "" copies what is in it.
type Source struct{ Path, Name string }

// Summary returns the counts so far.
func (m *Import) Summary() Summary {
	s := m.counters.summary()
	for i, e := range m.engines {
		if e != nil && (i == 0 || e != m.engines[0]) {
			s.Add(e.Stats())
		}
	}
	return s
}

// Progress says how far Run is, as Export.Progress does.
func (m *Import) Progress() (files, size int64, path string) {
	path, _ = m.current.Load().(string)
	return m.counters.files.Load() + m.counters.skipped.Load(), m.counters.done.Load(), path
}

// Run copies the sources to the directory to of the vault. When it returns nil, everything that it counts is durable. The error is that of the context, or of a vault
// that takes no more; all others are told to Failed. What is unfinished then is gone on with by the next Run.
func (m *Import) Run(ctx context.Context, to *dirs.Dir, sources []Source) (err error) {
	if m.partials, err = openPartials(m.Root, m.Key); err != nil {
		return err
	}
	if m.sizes == (limits{}) {
		m.sizes = limits{checkpoint: checkpointBytes, step: stepBytes, small: smallFile}
	}
	if err := m.chooseEngines(); err != nil {
		m.partials.close()
		return err
	}
	m.links, m.open = map[identity]*name{}, &batch{began: time.Now()}
	beside := min(workers, runtime.GOMAXPROCS(0)+1) // more of them wait for each other, in one directory of the host
	m.making.done, m.bufs = make(chan made, beside), make(chan *segments, beside)
	for _, s := range sources {
		m.tree(ctx, to, s.Path, s.Name)
	}
	m.settle()
	for _, l := range m.links {
		if l != nil {
			l.dir.Release()
		}
	}
	m.partials.close()
	switch {
	case m.fatal != nil:
		return m.fatal
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return m.SyncOf()
}

// chooseEngines makes the engines of the geometries that are wanted.
func (m *Import) chooseEngines() (err error) {
	small, large := m.Geometry, m.Geometry
	if m.Geometry == nil {
		small = m.View.Engine.Geometry()
		if large, err = container.GeometryFor(largeSegment, 0); err != nil {
			return err
		}
		if small.SegmentSize >= largeSegment {
			large = small
		}
	}
	for i, g := range []*container.Geometry{small, large} {
		m.engines[i] = m.View.Engine
		if g != m.View.Engine.Geometry() {
			if m.engines[i], err = m.View.Engine.Builder(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// engine is the one that makes a file.
func (m *Import) engine(large bool) *container.Engine {
	if large {
		return m.engines[1]
	}
	return m.engines[0]
}

// fail tells of one object. What the vault's host answers to a write ends the run; what the source does, does not.
func (m *Import) fail(path string, err error) {
	if errors.Is(err, context.Canceled) || m.fatal != nil {
		return
	}
	m.counters.failed.Add(1)
	m.Failed(path, err)
}

// vaultError marks an error of the vault's side.
type vaultError struct{ error }

func (e vaultError) Unwrap() error { return e.error }

// check ends the run on an error of the vault's side.
func (m *Import) check(path string, err error) {
	if err == nil {
		return
	}
	m.fail(path, err)
	var v vaultError
	if errors.As(err, &v) && m.fatal == nil {
		m.fatal = err
	}
}

func inVault(err error) error {
	if err == nil {
		return nil
	}
	return vaultError{err}
}

func (m *Import) stopped(ctx context.Context) bool { return ctx.Err() != nil || m.fatal != nil }

// tree copies the host object at path to name in d.
func (m *Import) tree(ctx context.Context, d *dirs.Dir, path, name string) {
	if m.stopped(ctx) {
		return
	}
	var st unix.Stat_t
	err := pathError("stat", path, unix.Lstat(path, &st))
	if err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = m.directory(ctx, d, path, name, &st)
		case unix.S_IFREG:
			err = m.regular(ctx, d, path, name, &st)
		case unix.S_IFLNK, unix.S_IFIFO:
			err = m.special(d, path, name, &st)
		default:
			err = ErrSkipped
		}
	}
	m.check(path, err)
}

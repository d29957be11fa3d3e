package bulk

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/stream"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// How much may be lost to an interruption, and how much is made durable at a time.
const (
	checkpointBytes = 64 << 20 // half of it is copied while the other is being made durable
	checkpointTime  = 2 * time.Second
	stepBytes       = 4 << 20 // a multiple of every segment size; resume points lie at multiples of it
	smallFile       = 1 << 20 // up to here files are made durable many at a time
	batchFiles      = 2048
	largeSegment    = stream.DefaultSegmentSize
)

// limits are those that tests choose smaller.
type limits struct {
	checkpoint int64 // bytes that may be lost; a larger file has resume points
	step       int64 // resume points lie at multiples of it
	small      int64
}

// regular copies a file, unless it is there, or is another name of one that is.
func (m *Import) regular(ctx context.Context, d *dirs.Dir, path, to string, st *unix.Stat_t) error {
	e, ok, err := lookup(d, to)
	if err != nil {
		return inVault(err)
	}
	if ok && inTheWay(e, names.File) {
		return errExists
	}
	m.current.Store(path)
	if st.Nlink > 1 {
		if done, err := m.link(d, to, e, ok, st); done || err != nil {
			return err
		}
	}
	src, err := openSource(path, st)
	if err != nil {
		return err
	}
	if ok && e.Type == names.File {
		done, err := m.finished(ctx, d, to, src, st)
		if done || err != nil {
			src.Close()
		}
		if err != nil {
			return err
		}
		if done {
			if st.Size > m.sizes.checkpoint { // an interruption right after it got its name leaves the record
				if err := m.partials.drop(m.partials.stem(d.ID(), to)); err != nil {
					return inVault(err)
				}
			}
			m.counters.skipped.Add(1)
			m.remember(d, to, e, st)
			return nil
		}
	}
	return m.copyFile(ctx, d, path, to, src, st)
}

// openSource opens what Lstat saw, and nothing that was put in its place.
func openSource(path string, st *unix.Stat_t) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unchangedSource(f, st); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// errChanged: the source changed meanwhile, so that the copy would be what it was at no moment.
var errChanged = errors.New("the file changed while it was read")

func unchangedSource(f *os.File, st *unix.Stat_t) error {
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return pathError("stat", f.Name(), err)
	}
	if identityOf(&now) != identityOf(st) {
		return errChanged
	}
	return nil
}

// finished reports whether the vault has the file: by size and mtime, or with Checksum by size and bytes.
func (m *Import) finished(ctx context.Context, d *dirs.Dir, to string, src io.ReaderAt, st *unix.Stat_t) (bool, error) {
	n, err := m.View.In(d, to)
	if err != nil {
		return false, inVault(err)
	}
	defer n.Release()
	have, err := n.Stat()
	if err != nil || have.Size != st.Size {
		return false, nil // what is damaged is replaced
	}
	if !m.Checksum {
		return have.Mtime == st.Mtim, nil
	}
	f, err := n.Open()
	if err != nil {
		return false, nil
	}
	defer func() { _ = f.Close() }() // it was only read
	ok, err := same(ctx, src, f)
	if err != nil && ctx.Err() == nil {
		return false, nil
	}
	return ok, err
}

// link makes a further name of a file that was copied under its first one.
func (m *Import) link(d *dirs.Dir, to string, e dirs.Entry, taken bool, st *unix.Stat_t) (done bool, err error) {
	first, coming := m.links[identityOf(st)]
	if first == nil && coming {
		m.settle()
		first = m.links[identityOf(st)]
	}
	if first == nil {
		m.links[identityOf(st)] = nil
		return false, nil
	}
	if taken && e.ID == first.entry.ID {
		m.counters.skipped.Add(1)
		return true, nil
	}
	if taken {
		if _, err := d.Unlink(to); err != nil {
			return false, inVault(err)
		}
	}
	if _, err := d.Link(to, first.dir, first.name, first.entry.ID, true); err != nil {
		return false, inVault(err)
	}
	m.counters.others.Add(1)
	return true, nil
}

// remember notes a source with several names.
func (m *Import) remember(d *dirs.Dir, to string, e dirs.Entry, st *unix.Stat_t) {
	if st.Nlink > 1 {
		m.rememberIdentity(d, to, e, identityOf(st))
	}
}

func (m *Import) rememberIdentity(d *dirs.Dir, to string, e dirs.Entry, ident identity) {
	if m.links[ident] == nil {
		d.Retain()
		m.links[ident] = &name{d, to, e}
	}
}

// copyFile puts a source on its way to its name, and closes it. A small one beside others.
func (m *Import) copyFile(ctx context.Context, d *dirs.Dir, path, to string, src *os.File, st *unix.Stat_t) error {
	d.Retain()
	if st.Size <= m.sizes.small {
		m.making.begin(m, func() made {
			w, err := m.makeFile(ctx, d, path, to, src, st)
			return made{w, err}
		})
		return nil
	}
	w, err := m.makeFile(ctx, d, path, to, src, st)
	m.add(made{w, err})
	m.turn()
	return nil
}

// makeFile makes the container of a source in .coffer/import, going on with one that is there, and closes the source. The result has a reference to d.
func (m *Import) makeFile(ctx context.Context, d *dirs.Dir, path, to string, src *os.File, st *unix.Stat_t) (w whole, err error) {
	defer src.Close()
	w = whole{to: name{dir: d, name: to}, path: path, size: st.Size, ident: identityOf(st), links: st.Nlink > 1, large: st.Size > m.sizes.checkpoint}
	attrs, err := hostAttributes(path)
	if err != nil {
		return w, err
	}
	var c *container.File
	var from int64
	w.stem = m.partials.fresh()
	if w.large {
		w.stem = m.partials.stem(d.ID(), to)
		if err = m.anchor(); err == nil {
			c, from, err = m.resume(w.stem, st)
		}
		if err == nil && c == nil {
			err = m.partials.drop(w.stem)
		}
		if err != nil {
			return w, inVault(err)
		}
	}
	if c == nil {
		if c, err = m.begin(m.engine(w.large), w.stem, st.Mode&0o777|0o600); err != nil {
			return w, inVault(err)
		}
	}
	w.to.entry = dirs.Entry{Type: names.File, ID: c.ID(), Geometry: c.Geometry().ID}
	m.counters.done.Add(from)
	m.counters.reused.Add(from)
	m.counters.frames.Add(from / int64(c.Geometry().FrameSize))
	err = m.fill(ctx, c, src, st, from, w.stem, w.large)
	if err == nil {
		err = unchangedSource(src, st)
	}
	if err == nil {
		err = inVault(m.dress(c, st, attrs))
	}
	switch {
	case err == nil && st.Size > m.sizes.small:
		w.file = c
		return w, nil
	case err == nil: // there may be thousands
		if err = inVault(c.Close()); err == nil {
			return w, nil
		}
	default:
		err = errors.Join(err, c.Close())
	}
	if !w.large || errors.Is(err, errChanged) { // nothing will go on with it
		err = errors.Join(err, m.partials.drop(w.stem))
	}
	return w, err
}

// add puts a file that was made into the open batch.
func (m *Import) add(f made) {
	if f.err != nil {
		m.check(f.path, f.err)
		f.to.dir.Release()
		return
	}
	m.open.files = append(m.open.files, f.whole)
	m.open.bytes += f.size
}

// begin makes a new, empty container.
func (m *Import) begin(e *container.Engine, stem string, mode uint32) (*container.File, error) {
	h, err := m.partials.dir.Create(stem+partSuffix, mode)
	if err != nil {
		return nil, err
	}
	c, err := e.Create(h, keys.RandomObjectID(), container.ObjectFile)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return c, nil
}

// resume opens the container that a record speaks of, as it was then: what was written behind it may be in any state. It answers nil where there is none for this
// source, or it is not good.
func (m *Import) resume(stem string, st *unix.Stat_t) (c *container.File, from int64, err error) {
	r, ok, err := m.partials.read(stem)
	e := m.engine(true)
	if err != nil || !ok || r.source != identityOf(st) || r.geometry != e.Geometry().ID || r.durable%uint64(m.sizes.step) != 0 || r.durable > r.source.size {
		return nil, 0, err
	}
	h, err := m.partials.dir.Open(stem+partSuffix, disk.ReadWrite)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if err = e.Geometry().PutEdge(h, r.edge); errors.Is(err, container.ErrCorrupt) {
		return nil, 0, h.Close()
	}
	if err != nil {
		return nil, 0, errors.Join(err, h.Close())
	}
	c, err = e.Open(h, r.id, container.OpenOptions{})
	if err != nil {
		return nil, 0, nil // it is begun anew
	}
	from = int64(r.durable)
	if c.Size() != from || c.ReadAt(make([]byte, 1), max(0, from-1)) != nil { // the last frame and the tree above it
		return nil, 0, c.Close()
	}
	return c, from, nil
}

// dress gives a whole container its attributes. Times come last: each write changes them.
func (m *Import) dress(c *container.File, st *unix.Stat_t, attrs map[string][]byte) error {
	if err := c.Flush(); err != nil {
		return err
	}
	h := c.Host()
	uid, gid := owner(st)
	if err := m.View.Tree.SetAttributes(h, c.ID(), st.Mode&0o7777, uid, gid); err != nil {
		return err
	}
	if err := m.setXattrs(h, xattrs.Object{ID: c.ID()}, attrs); err != nil {
		return err
	}
	return h.Utimes(&[2]unix.Timespec{st.Atim, st.Mtim})
}

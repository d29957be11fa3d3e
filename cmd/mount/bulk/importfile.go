package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
)

// How much may be lost to an interruption, and how much is made durable at a time.
const (
	checkpointBytes = 64 << 20
	checkpointTime  = 2 * time.Second
	chunkBytes      = 4 << 20 // read, sealed and written at a time: a multiple of every segment size
	smallFile       = 1 << 20 // up to here files are made durable many at a time
	batchFiles      = 256
)

// limits are those that tests choose smaller.
type limits struct {
	checkpoint int64 // bytes between resume points; a larger file has them
	chunk      int64
	small      int64
}

// whole is a file that has all of its bytes and attributes and waits to be durable and named.
type whole struct {
	to    name
	file  *container.File
	stem  string
	path  string // of the source
	ident identity
	links bool // the source has other names
	large bool // there may be a record
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
	defer src.Close()
	if ok && e.Type == names.File {
		done, err := m.finished(ctx, d, to, src, st)
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
			if m.Delete {
				if err := m.compare(ctx, d, to, src, st); err != nil {
					return err
				}
				m.gone = append(m.gone, path)
			}
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
	return f, unchangedSource(f, st)
}

// errChanged: a copy of what changes would be of no moment at all.
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

// compare says why a copy in the vault is not that of its source: it is read back and verified.
func (m *Import) compare(ctx context.Context, d *dirs.Dir, to string, src io.ReaderAt, st *unix.Stat_t) error {
	n, err := m.View.In(d, to)
	if err != nil {
		return inVault(err)
	}
	defer n.Release()
	f, err := n.Open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	ok, err := same(ctx, src, f)
	if err == nil && (!ok || f.Size() != st.Size) {
		err = errors.New("the copy differs from its source, which is kept")
	}
	return err
}

// link makes a further name of a file that was copied under its first one.
func (m *Import) link(d *dirs.Dir, to string, e dirs.Entry, taken bool, st *unix.Stat_t) (done bool, err error) {
	first := m.links[identityOf(st)]
	if first == nil {
		m.settleBatch() // it may be waiting there
		if first = m.links[identityOf(st)]; first == nil {
			return false, nil
		}
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

// copyFile makes the container of a source in .coffer/import, going on with one that is there, and puts it on its way to its name.
func (m *Import) copyFile(ctx context.Context, d *dirs.Dir, path, to string, src *os.File, st *unix.Stat_t) error {
	attrs, err := hostAttributes(path)
	if err != nil {
		return err
	}
	stem, large := m.partials.fresh(), st.Size > m.sizes.checkpoint
	var c *container.File
	var from int64
	if large {
		stem = m.partials.stem(d.ID(), to)
		if c, from, err = m.resume(stem, st); err == nil && c == nil {
			err = m.partials.drop(stem)
		}
		if err != nil {
			return inVault(err)
		}
	}
	if c == nil {
		if c, err = m.begin(stem); err != nil {
			return inVault(err)
		}
	}
	m.counters.done.Add(from)
	m.counters.reused.Add(from)
	err = m.fill(ctx, c, src, st, from, stem, large)
	if err == nil {
		err = unchangedSource(src, st)
	}
	if err == nil {
		err = inVault(m.dress(c, st, attrs))
	}
	if err != nil {
		err = errors.Join(err, c.Close())
		if !large || errors.Is(err, errChanged) { // nothing will go on with it
			err = errors.Join(err, m.partials.drop(stem))
		}
		return err
	}
	d.Retain()
	m.batch = append(m.batch, whole{
		to: name{dir: d, name: to, entry: dirs.Entry{Type: names.File, ID: c.ID(), Geometry: c.Geometry().ID}}, file: c, stem: stem, path: path,
		ident: identityOf(st), links: st.Nlink > 1, large: large,
	})
	m.pending += st.Size
	if st.Size > m.sizes.small || len(m.batch) >= batchFiles || m.pending > m.sizes.checkpoint || time.Since(m.began) > checkpointTime {
		m.settleBatch()
	}
	return nil
}

// begin makes a new, empty container.
func (m *Import) begin(stem string) (*container.File, error) {
	h, err := m.partials.dir.Create(stem+partSuffix, 0o600)
	if err != nil {
		return nil, err
	}
	c, err := m.View.Engine.Create(h, keys.RandomObjectID(), container.ObjectFile)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return c, nil
}

// resume opens the container that a record speaks of, cut to what is durable. It answers nil where there is none for this source, or it is not good.
func (m *Import) resume(stem string, st *unix.Stat_t) (c *container.File, from int64, err error) {
	r, ok, err := m.partials.read(stem)
	g := m.View.Engine.Geometry()
	if err != nil || !ok || r.source != identityOf(st) || r.geometry != g.ID || r.durable%uint64(m.sizes.chunk) != 0 || r.durable > r.source.size {
		return nil, 0, err
	}
	h, err := m.partials.dir.Open(stem+partSuffix, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	c, err = m.View.Engine.Open(h, r.id, container.OpenOptions{})
	if err != nil {
		return nil, 0, nil // it is begun anew
	}
	from = int64(r.durable)
	if c.Size() >= from {
		// What was written behind the record may be in any state. That the last frame before it opens shows that the tree above it is whole.
		if err = c.SetSize(from); err == nil {
			err = c.ReadAt(make([]byte, 1), max(0, from-1))
		}
	}
	if err != nil || c.Size() != from {
		return nil, 0, c.Close()
	}
	return c, from, nil
}

// fill copies the bytes of src from an offset on. Reading goes on while sealing and writing.
func (m *Import) fill(ctx context.Context, c *container.File, src *os.File, st *unix.Stat_t, from int64, stem string, large bool) error {
	sparse := st.Blocks*512 < st.Size
	if st.Size <= m.sizes.small {
		return m.fillSmall(c, src, st, sparse)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	free, full := make(chan *segments, 2), make(chan *segments, 2)
	size := int(min(m.sizes.chunk, (st.Size+int64(c.Geometry().SegmentSize)-1)/int64(c.Geometry().SegmentSize)*int64(c.Geometry().SegmentSize)))
	free <- newSegments(c.Geometry(), size)
	if st.Size > m.sizes.chunk {
		free <- newSegments(c.Geometry(), size)
	}
	failed := make(chan error, 1)
	go func() {
		defer close(full)
		failed <- m.readSource(ctx, src, st.Size, from, sparse, free, full)
	}()
	var err error
	since, last := int64(0), time.Now()
	for s := range full {
		if err != nil {
			continue
		}
		if large && (since >= m.sizes.checkpoint || time.Since(last) >= checkpointTime && since > 0) {
			err = m.checkpoint(c, st, s.at, stem)
			since, last = 0, time.Now()
		}
		if err == nil {
			start := time.Now()
			err = inVault(c.WriteFrames(s.at+int64(s.n), s.writes(s.at, s.n, sparse)))
			m.counters.writing.Add(int64(time.Since(start)))
		}
		if err != nil {
			cancel()
			continue
		}
		since += int64(s.n)
		m.counters.bytes.Add(int64(s.n))
		m.counters.done.Add(int64(s.n))
		free <- s
	}
	if rerr := <-failed; err == nil {
		err = rerr
	}
	if err == nil && c.Size() < st.Size {
		err = inVault(c.SetSize(st.Size))
	}
	return err
}

// fillSmall is fill of a file that is read at once, into a buffer that all of them share.
func (m *Import) fillSmall(c *container.File, src *os.File, st *unix.Stat_t, sparse bool) error {
	if st.Size > 0 {
		if m.buf == nil || m.buf.geo != c.Geometry() {
			m.buf = newSegments(c.Geometry(), int(m.sizes.small)+c.Geometry().SegmentSize)
		}
		if err := m.buf.read(src, 0, int(st.Size), &m.counters); err != nil {
			return err
		}
		start := time.Now()
		err := c.WriteFrames(st.Size, m.buf.writes(0, int(st.Size), sparse))
		m.counters.writing.Add(int64(time.Since(start)))
		if err != nil {
			return inVault(err)
		}
		m.counters.bytes.Add(st.Size)
		m.counters.done.Add(st.Size)
	}
	if c.Size() < st.Size {
		return inVault(c.SetSize(st.Size))
	}
	return nil
}

// checkpoint makes what was written durable, and then the record that says so. at is a multiple of the chunk size.
func (m *Import) checkpoint(c *container.File, st *unix.Stat_t, at int64, stem string) error {
	start := time.Now()
	defer func() { m.counters.syncing.Add(int64(time.Since(start))) }()
	if c.Size() < at { // a hole came last
		if err := c.SetSize(at); err != nil {
			return inVault(err)
		}
	}
	if err := c.Sync(); err != nil {
		return inVault(err)
	}
	return inVault(m.partials.write(stem, record{id: c.ID(), source: identityOf(st), geometry: c.Geometry().ID, durable: uint64(at)}))
}

// readSource sends the source chunk by chunk; of a sparse one those that are holes are left out.
func (m *Import) readSource(ctx context.Context, src *os.File, size, from int64, sparse bool, free chan *segments, full chan<- *segments) error {
	for at := from; at < size; {
		if sparse {
			data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
			if errors.Is(err, unix.ENXIO) {
				return nil
			}
			if err == nil && data-at >= m.sizes.chunk {
				at += (data - at) / m.sizes.chunk * m.sizes.chunk
			}
		}
		var s *segments
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s = <-free:
		}
		n := int(min(int64(len(s.buf)), size-at))
		if err := s.read(src, at, n, &m.counters); err != nil {
			return err
		}
		full <- s
		at += int64(n)
	}
	return nil
}

// dress gives a whole container its attributes and, where it is large, makes it durable. Times come last: each write changes them.
func (m *Import) dress(c *container.File, st *unix.Stat_t, attrs map[string][]byte) error {
	if err := c.Flush(); err != nil {
		return err
	}
	h := c.Host()
	uid, gid := owner(st)
	if err := m.View.Tree.Settle(h, c.ID(), st.Mode&0o7777, uid, gid); err != nil {
		return err
	}
	if err := m.setXattrs(h, xattrs.Object{ID: c.ID()}, attrs); err != nil {
		return err
	}
	return h.Utimes(&[2]unix.Timespec{st.Atim, st.Mtim})
}

// settleBatch makes the files of the batch durable and then gives them their names.
func (m *Import) settleBatch() {
	batch := m.batch
	m.batch, m.pending, m.began = nil, 0, time.Now()
	defer m.settleDirs()
	if len(batch) == 0 {
		return
	}
	start := time.Now()
	var err error
	if len(batch) == 1 {
		err = batch[0].file.Host().Sync()
	} else {
		err = m.SyncOf()
	}
	m.counters.syncing.Add(int64(time.Since(start)))
	for _, w := range batch {
		if err == nil && m.fatal == nil {
			m.check(w.path, m.publish(w))
		}
		if cerr := w.file.Close(); cerr != nil {
			m.check(w.path, inVault(cerr))
		}
		w.to.dir.Release()
	}
	if err != nil {
		m.check(batch[0].path, inVault(fmt.Errorf("make durable: %w", err)))
	}
}

// publish gives a durable file its name, in place of what has it.
func (m *Import) publish(w whole) error {
	d, to := w.to.dir, w.to.name
	e, err := d.Adopt(to, m.partials.dir, w.stem+partSuffix, w.to.entry)
	if err == nil && w.large {
		err = m.partials.drop(w.stem) // the record
	}
	if err != nil {
		return inVault(err)
	}
	m.counters.files.Add(1)
	if w.links {
		m.rememberIdentity(d, to, e, w.ident)
	}
	if m.Delete {
		return m.verifySource(w)
	}
	return nil
}

// verifySource compares a copy with its source, which may be deleted then.
func (m *Import) verifySource(w whole) error {
	src, err := os.Open(w.path)
	if err != nil {
		return err
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return pathError("stat", w.path, err)
	}
	if identityOf(&st) != w.ident {
		return errChanged
	}
	if err := m.compare(context.Background(), w.to.dir, w.to.name, src, &st); err != nil {
		return err
	}
	m.gone = append(m.gone, w.path)
	return nil
}

// deleteSources removes the sources whose copies are verified, once those are durable under their names.
func (m *Import) deleteSources() {
	if len(m.gone) == 0 || m.fatal != nil {
		return
	}
	if err := m.SyncOf(); err != nil {
		m.check(m.gone[0], inVault(err))
		return
	}
	for _, path := range m.gone {
		if err := os.Remove(path); err != nil {
			m.fail(path, err)
		}
	}
}

// segments is a buffer of plaintext as WriteFrames takes it.
type segments struct {
	geo *container.Geometry
	buf []byte
	at  int64 // plain offset, a multiple of the segment size
	n   int   // bytes that count; zeros follow
}

func newSegments(g *container.Geometry, size int) *segments {
	return &segments{geo: g, buf: make([]byte, max(size, g.SegmentSize))}
}

// read fills the buffer with n bytes of a source, and with zeros up to the end of the segment.
func (s *segments) read(src io.ReaderAt, at int64, n int, count *counters) error {
	start := time.Now()
	k, err := src.ReadAt(s.buf[:n], at)
	count.reading.Add(int64(time.Since(start)))
	if k < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = errChanged
		}
		return err
	}
	clear(s.buf[n:min(len(s.buf), (n+s.geo.SegmentSize-1)/s.geo.SegmentSize*s.geo.SegmentSize)])
	s.at, s.n = at, n
	return nil
}

// writes cuts the first n bytes, which lie at a plain offset, into segment writes. With holes frames of zeros are left out.
func (s *segments) writes(at int64, n int, holes bool) (ws []container.SegmentWrite) {
	S, F := s.geo.SegmentSize, s.geo.FrameSize
	for from := 0; from < n; from += S {
		w := container.SegmentWrite{Segment: uint64((at + int64(from)) / int64(S)), Frames: make([][]byte, s.geo.Frames)}
		for i := range s.geo.Frames {
			frame := s.buf[from+i*F : from+(i+1)*F]
			if from+i*F < n && !(holes && zeros(frame)) {
				w.Frames[i] = frame
				w.Dirty |= 1 << i
			}
		}
		if w.Dirty != 0 {
			ws = append(ws, w)
		}
	}
	return ws
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

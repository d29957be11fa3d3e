package bulk

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
)

// fillUnit is how many bytes are sealed at a time: enough that all cores have frames to work on, and few enough that they are in the processor's cache
// still when they are written. With 4 MiB copying takes up to three times the processor time where others work, too.
const fillUnit = 512 << 10

// fill copies the bytes of src from an offset on. Reading goes on while sealing and writing.
func (m *Import) fill(ctx context.Context, c *container.File, src *os.File, st *unix.Stat_t, from int64, stem string, large bool) error {
	sparse := st.Blocks*512 < st.Size
	if st.Size <= m.sizes.small {
		return m.fillSmall(c, src, st, sparse)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	free, full := make(chan *segments, 2), make(chan *segments, 2)
	for range 2 {
		free <- newSegments(c.Geometry(), int(min(fillUnit, m.sizes.step)))
	}
	failed := make(chan error, 1)
	go func() {
		defer close(full)
		failed <- m.readSource(ctx, src, st.Size, from, sparse, free, full)
	}()
	var points *checkpoints
	if large {
		points = m.checkpoints(c, st, stem)
	}
	var err error
	for s := range full {
		if err != nil {
			continue
		}
		if s.at%m.sizes.step == 0 {
			err = inVault(points.at(s.at))
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
		points.wrote(s.n)
		m.counters.bytes.Add(int64(s.n))
		m.counters.done.Add(int64(s.n))
		free <- s
	}
	if rerr := <-failed; err == nil {
		err = rerr
	}
	if perr := inVault(points.wait()); err == nil {
		err = perr
	}
	if err == nil && c.Size() < st.Size {
		err = inVault(c.SetSize(st.Size))
	}
	return err
}

// fillSmall is fill of a file that is read at once, into a buffer that another one may have had before.
func (m *Import) fillSmall(c *container.File, src *os.File, st *unix.Stat_t, sparse bool) error {
	if st.Size > 0 {
		var buf *segments
		select {
		case buf = <-m.bufs:
		default:
			buf = newSegments(c.Geometry(), int(m.sizes.small)+c.Geometry().SegmentSize)
		}
		defer func() { m.bufs <- buf }()
		if err := buf.read(src, 0, int(st.Size), &m.counters); err != nil {
			return err
		}
		start := time.Now()
		err := c.WriteFrames(st.Size, buf.writes(0, int(st.Size), sparse))
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

// checkpoints are those of one file: a record each. What is written after one lies in slots that nothing on the host refers
// to yet and, but for the edge, in blocks of its own.
func (m *Import) checkpoints(c *container.File, st *unix.Stat_t, stem string) *checkpoints {
	var edge []byte
	return &checkpoints{
		every: m.sizes.checkpoint, syncing: &m.counters.syncing, last: time.Now(),
		ready: func(off int64) error {
			if c.Size() < off { // a hole came last
				if err := c.SetSize(off); err != nil {
					return err
				}
			}
			err := c.Flush()
			if err == nil {
				edge, err = c.Edge()
			}
			return err
		},
		save: func(off int64) error { // off is a multiple of the step
			if err := c.Host().Datasync(); err != nil {
				return err
			}
			return m.partials.write(stem, record{id: c.ID(), source: identityOf(st), geometry: c.Geometry().ID, durable: uint64(off), edge: edge})
		},
	}
}

// readSource sends the source step by step, and leaves out the steps of a sparse one that are holes.
func (m *Import) readSource(ctx context.Context, src *os.File, size, from int64, sparse bool, free chan *segments, full chan<- *segments) error {
	for at := from; at < size; {
		if sparse {
			data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
			if errors.Is(err, unix.ENXIO) {
				return nil
			}
			if err == nil && data-at >= m.sizes.step {
				at += (data - at) / m.sizes.step * m.sizes.step
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

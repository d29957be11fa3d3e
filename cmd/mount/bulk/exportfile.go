package bulk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/plain"
)

// file copies one file, unless it is there.
func (e *Export) file(ctx context.Context, d *destDir, n plain.Node, st plain.Stat, name string) error {
	have, ok, err := d.stat(name)
	if err != nil {
		return err
	}
	if ok && have.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errExists
	}
	src, err := n.Open()
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // it was only read
	e.current.Store(filepath.Join(d.path, name))
	attrs, err := attributesOf(n, st)
	if err != nil && !(e.Salvage && e.Damage(err)) {
		return err
	}
	if ok && have.Mode&unix.S_IFMT == unix.S_IFREG && have.Size == src.Size() {
		done, err := e.finished(ctx, d, name, &have, src, &attrs)
		if err != nil && !e.Damage(err) {
			return err
		}
		if done {
			e.counters.skipped.Add(1)
			e.counters.done.Add(src.Size())
			if src.Size() > e.large {
				_ = unix.Unlinkat(d.fd, tempName(name)+partSuffix, 0) // another run's, where there is any
			}
			return nil
		}
	}
	if src.Size() != st.Size {
		return errChanged
	}
	c := &copier{ctx: ctx, stats: &e.counters, salvage: func(err error) bool { return e.Salvage && e.Damage(err) }}
	end := func(t *tempFile) error {
		if err := unchangedNode(n, &st); err != nil {
			return err
		}
		attrs.now = len(c.lost) > 0 // what was salvaged is never taken for finished
		return e.end(t, name, &attrs)
	}
	if src.Size() > e.large && !e.Salvage {
		err = e.copyLarge(c, d, src, st, name, end)
	} else {
		err = e.copySmall(c, d, src, name, end)
	}
	if err != nil {
		return err
	}
	e.counters.files.Add(1)
	for _, s := range c.lost {
		e.counters.lost.Add(s.to - s.from)
		e.Lost(filepath.Join(d.path, name), s.from, s.to)
	}
	if len(c.lost) > 0 {
		e.counters.damaged.Add(1)
	}
	return nil
}

// copySmall copies to a file that is gone when it does not come to its end.
func (e *Export) copySmall(c *copier, d *destDir, src plain.File, name string, end func(t *tempFile) error) error {
	t, err := d.create(name)
	if err != nil {
		return err
	}
	defer t.discard()
	if err := t.Truncate(src.Size()); err != nil {
		return err
	}
	if err := c.copy(t.File, src, 0, nil); err != nil {
		return err
	}
	return end(t)
}

// copyLarge goes on with what an earlier run left, and leaves behind what a later one can go on with.
func (e *Export) copyLarge(c *copier, d *destDir, src plain.File, st plain.Stat, name string, end func(t *tempFile) error) (err error) {
	p, from, err := d.part(name, st)
	if err != nil {
		return err
	}
	defer func() { p.close(err != nil && !errors.Is(err, errChanged) && !e.Damage(err)) }()
	e.counters.done.Add(from)
	e.counters.reused.Add(from)
	if x, ok := src.(interface{ Geometry() *container.Geometry }); ok {
		e.counters.frames.Add(from / int64(x.Geometry().FrameSize))
	}
	points := &checkpoints{every: e.large, ready: func(int64) error { return nil }, save: p.save, syncing: &e.counters.syncing, last: time.Now()}
	if err := c.copy(p.File, src, from, points); err != nil {
		return err
	}
	if err := p.whole(); err != nil {
		return err
	}
	return end(p.tempFile)
}

// end gives a file that has all of its bytes its attributes, and its name when it is durable.
func (e *Export) end(t *tempFile, name string, attrs *attributes) error {
	if err := attrs.apply(int(t.Fd()), filepath.Join(t.dir.path, name)); err != nil {
		return err
	}
	start := time.Now()
	err := t.Sync()
	e.counters.syncing.Add(int64(time.Since(start)))
	if err != nil {
		return err
	}
	return t.publish(name)
}

// unchangedNode reports errChanged where a file is not what it was. The ctime tells nothing: that of a file in a mount changes when it is handed to the host.
func unchangedNode(n plain.Node, st *plain.Stat) error {
	now, err := n.Stat()
	if err == nil && (now.Object != st.Object || now.Size != st.Size || now.Mtime != st.Mtime) {
		err = errChanged
	}
	return err
}

// finished reports whether a file of the right size at the destination is the copy already: by its mtime, or with Checksum by its bytes; its attributes are
// set again then.
func (e *Export) finished(ctx context.Context, d *destDir, name string, have *unix.Stat_t, src plain.File, attrs *attributes) (bool, error) {
	if !e.Checksum {
		return have.Mtim == attrs.stat.Mtime, nil
	}
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, pathError("open", filepath.Join(d.path, name), err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.path, name))
	defer f.Close()
	ok, err := same(ctx, f, src)
	if err != nil || !ok {
		return false, err
	}
	return true, attrs.apply(fd, f.Name())
}

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
	c := &copier{ctx: ctx, stats: &e.counters, src: src, salvage: func(err error) bool { return e.Salvage && e.Damage(err) }}
	end := func(t *tempFile) error {
		if err := unchangedNode(n, &st); err != nil {
			return err
		}
		attrs.now = len(c.lost) > 0 // what was salvaged is never taken for finished
		return attrs.apply(int(t.Fd()), filepath.Join(d.path, name))
	}
	switch {
	case src.Size() > e.large && !e.Salvage:
		err = e.copyLarge(c, d, st, name, end)
	case src.Size() <= smallFile && st.Nlink <= 1 && !e.Salvage && e.landing.most > 0:
		return e.copyTogether(c, d, name, end)
	default:
		err = e.copySmall(c, d, name, end)
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

// copyTogether copies a small file that becomes durable with others; it counts, and what fails is told, when that is done.
func (e *Export) copyTogether(c *copier, d *destDir, name string, end func(t *tempFile) error) error {
	t, err := e.fill(c, d, name, end)
	if err == nil {
		e.land(landed{t, name, c.src.Size()})
	}
	return err
}

// copySmall copies to a temporary file, which is gone where the copy fails.
func (e *Export) copySmall(c *copier, d *destDir, name string, end func(t *tempFile) error) error {
	t, err := e.fill(c, d, name, end)
	if err != nil {
		return err
	}
	defer t.discard()
	return e.publish(t, name)
}

// fill makes a file with all of its bytes and attributes, but not durable.
func (e *Export) fill(c *copier, d *destDir, name string, end func(t *tempFile) error) (*tempFile, error) {
	t, err := d.create(name)
	if err != nil {
		return nil, err
	}
	c.dst = t.File
	if err = t.Truncate(c.src.Size()); err == nil {
		err = c.copy(0)
	}
	if err == nil {
		err = end(t)
	}
	if err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

// publish makes a file durable and gives it its name.
func (e *Export) publish(t *tempFile, name string) error {
	if err := e.sync(t); err != nil {
		return err
	}
	return t.publish(name)
}

// copyLarge goes on with what an earlier run left, and leaves behind what a later one can go on with.
func (e *Export) copyLarge(c *copier, d *destDir, st plain.Stat, name string, end func(t *tempFile) error) (err error) {
	p, from, err := d.part(name, st)
	if err != nil {
		return err
	}
	defer func() {
		keep := err != nil && !errors.Is(err, errChanged) && !e.Damage(err)
		if keep {
			e.leave(p.Name())
		}
		p.close(keep)
	}()
	e.counters.done.Add(from)
	e.counters.reused.Add(from)
	if x, ok := c.src.(interface{ Geometry() *container.Geometry }); ok {
		e.counters.frames.Add(from / int64(x.Geometry().FrameSize))
	}
	c.dst = p.File
	c.points = &checkpoints{every: e.large, ready: func(int64) error { return nil }, save: p.save, syncing: &e.counters.syncing, last: time.Now()}
	if err := c.copy(from); err != nil {
		return err
	}
	if err := p.whole(); err != nil {
		return err
	}
	if err := end(p.tempFile); err != nil {
		return err
	}
	return e.publish(p.tempFile, name)
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

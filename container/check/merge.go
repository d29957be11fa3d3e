package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// merge makes one directory of two under one id, as tools leave them that bring back what was renamed: what is in the second one, where a mount reaches
// nothing, goes to the first, or to lost+found where its name is taken; what is there as well, byte for byte, is removed.
func (r *repairer) merge(ctx context.Context, second, first *object) (Action, error) {
	m := merger{repairer: r, at: second.inside(), to: first.inside(), names: map[string]bool{}}
	if err := m.run(ctx); err != nil {
		return Action{}, err
	}
	if m.moved > 0 {
		r.moved, r.merged = true, true
	}
	a := Action{Result: Removed, Path: second.plainPath(), Host: second.hostPath(), To: first.plainPath()}
	a.What = fmt.Sprintf("a second directory of one id: %d objects of it went to the first or to %s, %d were there", m.moved, LostFound, m.same)
	if m.left > 0 {
		a.Result, a.What = Kept, fmt.Sprintf("%s; %d were left: look at them, and remove the directory on the host", a.What, m.left)
	}
	if r.Tree == nil || m.left > 0 {
		return a, nil
	}
	d, err := r.hostDir(second.at)
	if err != nil {
		return Action{}, err
	}
	defer d.Close()
	to, err := r.hostDir(first.at)
	if err != nil {
		return Action{}, err
	}
	defer to.Close()
	if err := xattrs.Add(to.Xattrs(first.host), d.Xattrs(second.host), xattrs.Object{ID: first.link.ID}); err != nil {
		return Action{}, err
	}
	return a, errors.Join(dropHost(d, second, d.Rmdir), d.Sync())
}

// inside is the place that a directory is.
func (o *object) inside() *place {
	return &place{id: o.link.ID, up: o.at, name: o.link.Name, host: o.host}
}

// dropHost removes a host object and its sidecar.
func dropHost(d disk.Dir, o *object, remove func(name string) error) error {
	err := remove(o.host)
	if err == nil && o.link.IsLong() {
		if err = d.Unlink(names.SidecarName(o.host)); errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	return err
}

// merger brings what is in one directory to another of the same id.
type merger struct {
	*repairer
	at, to *place
	names  map[string]bool // plain, in to
	fd     disk.Dir        // at

	moved, same, left int
}

func (m *merger) run(ctx context.Context) (err error) {
	there, err := m.hostDir(m.to)
	if err != nil {
		return err
	}
	defer there.Close()
	if m.fd, err = m.hostDir(m.at); err != nil {
		return err
	}
	defer m.fd.Close()
	quiet := &checker{Config: m.Config, walked: new(walked)}
	for _, o := range quiet.names(there, m.to) {
		m.names[o.link.Name] = true
	}
	all := quiet.names(m.fd, m.at)
	for _, o := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		done, err := m.one(ctx, o)
		if err != nil {
			m.tell(Action{Result: Kept, Path: o.plainPath(), Host: o.hostPath(), What: fmt.Sprintf("it could not be merged: %v", err)})
		}
		if !done {
			m.left++
		}
	}
	return m.count(all)
}

// count adds what shows under no name.
func (m *merger) count(all []*object) error {
	known := map[string]bool{}
	for _, o := range all {
		known[o.host], known[names.SidecarName(o.host)] = true, true
	}
	return m.fd.List(func(host string, _ uint64, _ uint8) error {
		if !known[host] {
			m.left++
		}
		return nil
	})
}

// one brings an object over; false: it stays.
func (m *merger) one(ctx context.Context, o *object) (bool, error) {
	first, live := m.ids[o.link.ID]
	switch {
	case live && first.ino == o.st.Ino && first.dev == o.st.Dev, !live && !m.partial:
		return m.take(ctx, o)
	case !live || first.object == nil || first.object.link.Type != o.link.Type:
		return false, nil
	case o.link.Type == names.Dir:
		a, err := m.merge(ctx, o, first.object)
		if err == nil {
			m.tell(a)
		}
		return a.Result == Removed, err
	}
	same, err := m.equal(o, first.object)
	switch {
	case err != nil:
		return false, err
	case same:
		m.same++
	case o.link.Type != names.File:
		return false, nil
	default:
		a, err := m.copy(ctx, o, o.link.ID, o.link.Geometry, fmt.Sprintf("another state of %q", first.object.plainPath()))
		if err != nil {
			return false, err
		}
		whole := a.Result == Copied && len(a.Lost) == 0
		if whole {
			a.Result = Moved
			m.moved++
		}
		a.Path, a.Host = o.plainPath(), o.hostPath()
		m.tell(a)
		if !whole {
			return false, nil
		}
	}
	if m.Tree == nil {
		return true, nil
	}
	if same { // what stands for it is durable before it goes
		if err := m.sync(first.object); err != nil {
			return false, err
		}
	}
	return true, dropHost(m.fd, o, m.fd.Unlink)
}

// sync makes a host object and its name durable.
func (m *merger) sync(o *object) error {
	d, err := m.hostDir(o.at)
	if err != nil {
		return err
	}
	defer d.Close()
	if o.link.IsContainer() {
		f, err := d.Open(o.host, disk.ReadOnly)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return d.Sync()
}

// take gives an object that shows nowhere, or elsewhere too, its name in the first directory, or one in lost+found.
func (m *merger) take(ctx context.Context, o *object) (bool, error) {
	a := Action{Result: Moved, To: below(m.to.plainPath(), o.link.Name), What: "a second directory of one id hid it"}
	taken := m.names[o.link.Name]
	m.names[o.link.Name] = true
	var err error
	switch {
	case taken:
		a, err = m.move(ctx, o, o.link, "its name is taken in the other directory of its id")
	case m.Tree != nil:
		err = m.adopt(o)
	}
	if err != nil {
		return false, err
	}
	if a.Result == Moved {
		m.moved++
		if m.Tree != nil && o.link.IsLong() {
			err = m.fd.Unlink(names.SidecarName(o.host))
		}
	}
	if !taken {
		m.ids[o.link.ID] = seen{at: m.to, name: o.link.Name, dev: o.st.Dev, ino: o.st.Ino}
	}
	a.Path, a.Host = o.plainPath(), o.hostPath()
	m.tell(a)
	return a.Result == Moved, err
}

// adopt moves an object to the first directory.
func (m *merger) adopt(o *object) error {
	d, err := m.dir(m.to)
	if err != nil {
		return err
	}
	defer d.Release()
	e := dirs.Entry{Type: o.link.Type, ID: o.link.ID, Geometry: o.link.Geometry, Flags: o.link.Flags}
	if _, err := d.Adopt(o.link.Name, e, m.fd, o.host, false); err != nil {
		return err
	}
	return errors.Join(d.Sync(), m.fd.Sync())
}

// equal reports whether two host objects hold the same bytes.
func (m *merger) equal(a, b *object) (bool, error) {
	d, err := m.hostDir(b.at)
	if err != nil {
		return false, err
	}
	defer d.Close()
	switch {
	case a.link.IsContainer() && a.st.Size != b.st.Size:
		return false, nil
	case a.link.IsContainer():
	case a.link.Type == names.Symlink:
		x, err := m.fd.Readlink(a.host)
		if err != nil {
			return false, err
		}
		y, err := d.Readlink(b.host)
		return x == y, err
	default:
		return a.st.Mode == b.st.Mode && a.st.Rdev == b.st.Rdev, nil
	}
	f, err := m.fd.Open(a.host, disk.ReadOnly)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := d.Open(b.host, disk.ReadOnly)
	if err != nil {
		return false, err
	}
	defer g.Close()
	return sameBytes(f, g, a.st.Size)
}

func sameBytes(a, b io.ReaderAt, n int64) (bool, error) {
	x, y := make([]byte, 1<<18), make([]byte, 1<<18)
	for at := int64(0); at < n; at += int64(len(x)) {
		k := int(min(int64(len(x)), n-at))
		if got, err := a.ReadAt(x[:k], at); got < k {
			return false, err // cut short since: nothing is removed for that
		}
		if got, err := b.ReadAt(y[:k], at); got < k {
			return false, err
		}
		if !bytes.Equal(x[:k], y[:k]) {
			return false, nil
		}
	}
	return true, nil
}

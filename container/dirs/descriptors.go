package dirs

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"golang.org/x/sys/unix"
)

// descriptors keeps the directory descriptors: the most recently used open, no more than max of them unless more are in use.
// A pinned one is in use. The root's and those of removed directories are pinned for good and not counted.
type descriptors struct {
	mu   sync.Mutex // guards everything here and fd, pins, node of every Dir
	max  int
	n    int
	ring lruNode // ring.next is the most recently used
}

// lruNode is a place in the ring.
type lruNode struct {
	prev, next *lruNode
	dir        *Dir
}

func (r *descriptors) unlink(n *lruNode) {
	n.prev.next, n.next.prev = n.next, n.prev
	r.n--
}

func (r *descriptors) front(n *lruNode) {
	if r.ring.next == nil {
		r.ring.next, r.ring.prev = &r.ring, &r.ring
	}
	n.prev, n.next = &r.ring, r.ring.next
	n.prev.next, n.next.prev = n, n
	r.n++
}

// pin answers the descriptor of d if it is open, and keeps it open until unpin.
func (r *descriptors) pin(d *Dir) disk.Dir {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.fd == nil {
		return nil
	}
	d.pins++
	if d.node != nil {
		r.unlink(d.node)
		r.front(d.node)
	}
	return d.fd
}

func (r *descriptors) unpin(d *Dir) {
	r.mu.Lock()
	d.pins--
	close := r.excess()
	r.mu.Unlock()
	closeAll(close)
}

// adopt gives d its new descriptor, pinned; where another call was faster, its one stays.
func (r *descriptors) adopt(d *Dir, fd disk.Dir) disk.Dir {
	r.mu.Lock()
	close := []disk.Dir{fd}
	if d.fd == nil {
		d.fd = fd
		d.node = &lruNode{dir: d}
		r.front(d.node)
		close = close[:0]
	}
	d.pins++
	fd = d.fd
	close = append(close, r.excess()...)
	r.mu.Unlock()
	closeAll(close)
	return fd
}

// excess takes descriptors that nobody uses out of the ring, oldest first, until no more than max are left.
func (r *descriptors) excess() (close []disk.Dir) {
	for n := r.ring.prev; r.n > r.max && n != &r.ring; {
		d, older := n.dir, n
		n = n.prev
		if d.pins == 0 {
			r.unlink(older)
			close = append(close, d.fd)
			d.fd, d.node = nil, nil
		}
	}
	return close
}

// keep pins d's open descriptor until drop: its directory is gone from the host and cannot be opened again.
func (r *descriptors) keep(d *Dir) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.pins++
	if d.node != nil {
		r.unlink(d.node)
		d.node = nil
	}
}

// drop closes d's descriptor, pinned or not. The root's is not ours.
func (r *descriptors) drop(d *Dir) error {
	if d == d.t.root {
		return nil
	}
	r.mu.Lock()
	fd := d.fd
	if d.node != nil {
		r.unlink(d.node)
	}
	d.fd, d.node = nil, nil
	r.mu.Unlock()
	if fd == nil {
		return nil
	}
	return fd.Close()
}

// closeAll ignores errors: nothing was written through a directory's descriptor.
func closeAll(fds []disk.Dir) {
	for _, fd := range fds {
		fd.Close()
	}
}

// open pins the descriptor of d; unpin follows. A closed one is opened relative to the nearest ancestor that has one.
func (d *Dir) open() (disk.Dir, error) {
	t := d.t
	if fd := t.fds.pin(d); fd != nil {
		return fd, nil
	}
	t.place.RLock()
	defer t.place.RUnlock()
	var below []*Dir
	at, fd := d, t.fds.pin(d)
	for fd == nil {
		below = append(below, at)
		if at = at.parent; at == nil {
			return nil, unix.ENOENT // removed, and its descriptor was dropped with the last reference
		}
		fd = t.fds.pin(at)
	}
	for i := len(below) - 1; i >= 0; i-- {
		next := below[i]
		nfd, err := fd.OpenDir(next.host)
		t.fds.unpin(at)
		if err != nil {
			return nil, at.hostError(err, next.host)
		}
		at, fd = next, t.fds.adopt(next, nfd)
	}
	return fd, nil
}

func (d *Dir) unpin() { d.t.fds.unpin(d) }

// hostError puts the directory to a host's error. That the host object of a link is gone or is something else is no answer to
// the user's question but damage: the errno goes no further.
func (d *Dir) hostError(err error, host string) error {
	if err == nil {
		return nil
	}
	for _, e := range []error{unix.ENOENT, unix.ELOOP, unix.ENOTDIR, disk.ErrNotRegular} {
		if errors.Is(err, e) {
			return d.damage(host, fmt.Errorf("%w: %v", ErrName, err))
		}
	}
	return fmt.Errorf("dirs: directory %s: %w", d.id, err)
}

// damage reports a finding about host in d and answers it as an error.
func (d *Dir) damage(host string, err error) error {
	err = fmt.Errorf("dirs: directory %s: %w", d.id, err)
	d.t.cfg.Events.Emit(event.Event{Kind: event.Damage, Object: host, Offset: -1, Err: err})
	return err
}

package disk

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// served is a host filesystem that another process or machine serves. The kernel does not pass syncfs(2) on to it, so SyncAll syncs each object that was changed
// since its last sync: what is open by its descriptor, then; what is closed earlier, at its close; what was changed by its name alone, at once.
type served struct {
	one     sync.Mutex           // one SyncAll at a time, or the second would not wait for what the first is at; before mu
	mu      sync.Mutex           // guards what follows
	changed map[*handle]struct{} // descriptors with changes that may not be synced, those that are being closed included
	closed  sync.Cond            // one of those that are being closed is gone
	// err is that of the first sync that failed: from then on every SyncAll answers it. What failed at a close can be synced by nobody any more, and what the
	// host kept of it nobody knows, so no later SyncAll may say that all is durable.
	err error
}

// servedBy answers nil for a filesystem that syncfs makes durable.
func servedBy(fd int) *served {
	var st unix.Statfs_t
	if retry(func() error { return unix.Fstatfs(fd, &st) }) != nil {
		return nil
	}
	switch uint32(st.Type) { // which has another type on each architecture
	case unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.SMB_SUPER_MAGIC:
		s := &served{changed: map[*handle]struct{}{}}
		s.closed.L = &s.mu
		return s
	}
	return nil
}

// change notes that what a descriptor is of was changed. It comes after the change, and before done.
func (h *handle) change() {
	if h.on == nil {
		return
	}
	h.changes.Add(1)
	h.on.mu.Lock()
	h.on.changed[h] = struct{}{}
	h.on.mu.Unlock()
}

// changed is change where err, that of the change, is nil. It answers err.
func (h *handle) changed(err error) error {
	if err == nil {
		h.change()
	}
	return err
}

// changedAt notes that attributes of an object were changed by its name in the directory of h, and answers err, that of the change.
func (h *handle) changedAt(fd int, name string, err error) error {
	if err == nil && h.on != nil {
		h.on.failed(syncAt(fd, name))
	}
	return err
}

// fsync is fsync(2).
func (h *handle) fsync(fd int) error {
	n := h.changes.Load()
	err := unix.Fsync(fd)
	if err == nil && h.on != nil {
		h.synced.Store(n) // where another has stored more meanwhile one sync too many is made
	}
	return err
}

// syncClosing syncs what is not yet, before the descriptor is closed. That includes objects that seem to have no name left, of which
// nothing needs to last: on such a host the kernel may count no links of a file that has one.
func (h *handle) syncClosing() {
	if h.on == nil || h.changes.Load() == 0 {
		return
	}
	if h.synced.Load() != h.changes.Load() {
		h.on.failed(syncServed(h.fd))
	}
	h.on.mu.Lock()
	delete(h.on.changed, h)
	h.on.closed.Broadcast()
	h.on.mu.Unlock()
}

// failed keeps the first error.
func (s *served) failed(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
}

// sync returns when all is synced that was changed before.
func (s *served) sync() error {
	s.one.Lock()
	defer s.one.Unlock()
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.changed))
	s.mu.Unlock()
	var closing []*handle
	for _, h := range all {
		fd, err := h.use()
		if err != nil {
			closing = append(closing, h)
			continue
		}
		if n := h.changes.Load(); n != h.synced.Load() {
			if err = syncServed(fd); err == nil {
				h.synced.Store(n)
			}
			s.failed(err)
		}
		s.mu.Lock()
		if h.changes.Load() == h.synced.Load() {
			delete(s.changed, h)
		}
		s.mu.Unlock()
		h.done()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range closing {
		for _, waits := s.changed[h]; waits; _, waits = s.changed[h] {
			s.closed.Wait()
		}
	}
	return s.err
}

// syncServed is fsync(2) of any descriptor. An object that cannot be opened, such as a symlink, has nothing but its name.
func syncServed(fd int) error {
	err := retry(func() error { return unix.Fsync(fd) })
	switch err {
	case unix.EBADF: // O_PATH
		return syncAt(unix.AT_FDCWD, procLink(fd))
	case unix.EINVAL:
		return nil // as in Dir.Sync
	}
	return err
}

// syncAt is fsync(2) of what has this name in a directory, or is behind a link of /proc where dir is AT_FDCWD. What cannot be opened to be synced (a symlink, a
// device without a driver, what this process may not open, what is gone) has nothing but its name: nil.
func syncAt(dir int, name string) error {
	flags := openFlags | unix.O_RDONLY
	if dir == unix.AT_FDCWD {
		flags &^= unix.O_NOFOLLOW
	}
	fd, err := openat(dir, name, flags, 0)
	switch err {
	case nil:
	case unix.ELOOP, unix.ENXIO, unix.ENODEV, unix.EACCES, unix.ENOENT:
		return nil
	default:
		return err
	}
	defer unix.Close(fd)
	if err = retry(func() error { return unix.Fsync(fd) }); err == unix.EINVAL {
		err = nil
	}
	return err
}

// SyncTree is SyncAll, below root also of what other processes changed, which may have been killed before they synced it.
func SyncTree(root Dir) error {
	if d, ok := root.(*osDir); ok && d.h.on != nil {
		if err := Walk(root, struct{}{}, syncEntries); err != nil {
			return err
		}
	}
	return root.SyncAll()
}

// syncEntries syncs a directory and the files in it, for Walk. It passes over what is gone by now, and what this process may not open and so has not changed.
func syncEntries(d Dir, _ struct{}, err error) (below []Below[struct{}], _ error) {
	if err != nil {
		return nil, unlessForeign(err)
	}
	err = d.List(func(name string, _ uint64, typ uint8) error {
		if typ == unix.DT_UNKNOWN {
			var st unix.Stat_t
			if err := d.Stat(name, &st); err != nil {
				return unlessForeign(err)
			}
			typ = uint8(st.Mode >> 12 & 15) // DT_ values are S_IFMT's bits
		}
		switch typ {
		case unix.DT_DIR:
			below = append(below, Below[struct{}]{Name: name})
		case unix.DT_REG:
			f, err := d.Open(name, ReadOnly)
			if err != nil {
				return unlessForeign(err)
			}
			return errors.Join(f.Sync(), f.Close())
		}
		return nil
	})
	if err == nil {
		err = d.Sync()
	}
	return below, err
}

func unlessForeign(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

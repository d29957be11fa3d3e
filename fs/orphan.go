package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// What becomes of inodes that the kernel forgets, and of files without a name: these stay on the host until their last handle is closed and the kernel forgets
// them, and their room comes back no sooner.

// discard closes everything that n has open. Data of a file without any name is dropped, other data is flushed first.
func (fs *FS) discard(n *inode) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	if n.orphan {
		defer fs.orphans.Add(-1)
		n.orphan = false
	}
	if f := n.file; f != nil {
		if orphaned(f.Container().Host()) {
			// Nobody can read it again: sealing what is dirty would be for nothing, and whether the close succeeds matters to nobody.
			n.untrack()
			_ = f.Abandon()()
		} else {
			fs.noteCtime(n, f.Container().Host())
			errs = append(errs, f.Close())
		}
		n.file = nil
	}
	if n.pinned != nil {
		errs = append(errs, n.pinned.Close())
		n.pinned = nil
	}
	if h := fs.takeEarly(n); h != nil {
		errs = append(errs, h.Close())
	}
	if d := n.dir.Swap(nil); d != nil {
		d.Release()
	}
	return errors.Join(errs...)
}

// discardLeft is discard of an inode that nobody can reach any more. The directory that it was removed from does not go meanwhile.
func (fs *FS) discardLeft(n *inode) error {
	if len(n.left) == 1 { // with several, which two may hold in different orders, it does without
		n.left[0].freeing.RLock()
		defer n.left[0].freeing.RUnlock()
	}
	return fs.discard(n)
}

// awaitFreeing returns when the host has freed what was removed from a directory and is being forgotten. It is called before the directory goes
// itself: the kernel spins in an rmdir while a file that was in there is still being freed, and slows that down.
func (n *inode) awaitFreeing() {
	if n.typ == typeDir {
		n.freeing.Lock()
		defer n.freeing.Unlock()
	}
}

// nameless is called when a name of n was removed. A file without any more is counted until it is gone from the host. One of which data lingers goes when the
// kernel forgets it, most often at once: not before, as somebody may be about to open what another file has just replaced. A large one goes now, and
// so does any on a host that is nearly full, which must not keep what was deleted to make room.
func (fs *FS) nameless(n *inode) {
	n.loc.RLock()
	last := len(n.links) == 0
	n.loc.RUnlock()
	if !last {
		return
	}
	fs.ctimes.forget(n.id)
	n.mu.Lock()
	if (n.file != nil || n.pinned != nil) && n.typ == typeFile && !n.orphan {
		n.orphan = true
		fs.orphans.Add(1)
	}
	freed := n.lingers && n.opens == 0 && n.users == 0 && orphaned(n.file.Container().Host())
	if freed {
		fs.unlinger(n)
		if !fs.mayStay(n.file.Container().Size()) {
			n.untrack()
			_ = n.file.Abandon()()
			n.file = nil
			n.closes++
		}
	}
	n.mu.Unlock()
	if freed {
		fs.release(n)
	}
}

const (
	smallFile   = 1 << 20  // may stay until the kernel forgets it
	roomyHost   = 64 << 20 // bytes that the host has left where that can wait
	mostOrphans = 512
)

// mayStay reports whether a file without a name, of so many bytes, may stay for a moment, beside others of which the kernel is as slow to tell.
func (fs *FS) mayStay(size int64) bool {
	orphans := fs.orphans.Load()
	var st unix.Statfs_t
	return size <= smallFile && orphans <= mostOrphans && fs.cfg.Tree.Root().Statfs(&st) == nil && st.Bavail*uint64(st.Bsize) >= roomyHost+smallFile*uint64(orphans)
}

// orphaned reports whether a host file has no name left.
func orphaned(h disk.File) bool {
	var st unix.Stat_t
	return disk.StatTimeless(h, &st) == nil && st.Nlink == 0
}

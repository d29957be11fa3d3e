package fs

import (
	"time"

	"github.com/cofferfs/coffer/container/dirs"
)

// The kernel keeps names and attributes for Config.Timeout. But when a directory is listed again it asks for all of it again, and we cannot know what it forgot.
// So a listing answers a file by its name alone where the kernel was told all of it not long ago, by its one name, and nothing of it changed since. That saves
// the host's stat, and the sealed name that this takes.
//
// Where the kernel had forgotten the name it sends a LOOKUP. From then on nothing that it was told before counts, and the next listing tells all.

// now is the time on the clock of inode.told, never 0.
func (fs *FS) now() int64 { return int64(time.Since(fs.started)) + 1 }

// tell notes that the kernel is being given name and attributes of n, as they were when closes was n.closes. A file that is open changes without further notice.
func (fs *FS) tell(n *inode, closes uint64) {
	n.mu.Lock()
	if n.file == nil && n.closes == closes {
		n.told.Store(fs.now())
	}
	n.mu.Unlock()
}

// lookedUp is called for a LOOKUP that found n. One that the kernel should not need shows that it forgets.
func (fs *FS) lookedUp(n *inode) {
	if now := fs.now(); fs.isTold(n, now) {
		fs.forgot.Store(now)
	}
}

func (fs *FS) isTold(n *inode, now int64) bool {
	told := n.told.Load()
	return told != 0 && told >= fs.forgot.Load() && now-told < int64(fs.cfg.Timeout)/2
}

// toldOf returns the inode of a listed name where the kernel has all of it, nil else. Of directories it has not: they change with what is in them.
func (fs *FS) toldOf(parent *inode, e *dirs.Entry, now int64) *inode {
	fs.mu.RLock()
	n := fs.objects[e.ID]
	known := n != nil && n.lookups > 0
	fs.mu.RUnlock()
	if !known || n.typ == typeDir || !fs.isTold(n, now) {
		return nil
	}
	n.loc.RLock()
	defer n.loc.RUnlock()
	if len(n.links) != 1 || n.links[0] != (link{parent, *e}) {
		return nil
	}
	return n
}

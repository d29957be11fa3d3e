package fs

import (
	"maps"
	"slices"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
)

// What makes names durable (FORMAT.md section 12, C7). A file is durable when its data is, and when those directories are in which its links changed, and
// theirs in turn.
//
// FS.unsynced has what changed in directories since their last sync, by the number of the change. An inode knows whether its own links changed. So an fsync
// of a file whose name is old costs one fdatasync. That of one of many new files syncs their directory as well, where something was added since.
//
// An inode that has more names than the one that it was met by may have got them before the kernel forgot it. Its first fsync syncs all directories.
//
// A new small file costs no sync of the host, nor does a directory of such files: see made.go.

// dirChanges is what changed in a directory and is not durable on the host.
type dirChanges struct {
	other uint64                   // the last change that only a sync of the host makes durable, 0 where there is none
	under int                      // changes of that kind that are under way
	files map[keys.ObjectID]uint64 // files that were made there and that the journal does not hold
}

// changesOf returns the changes of a directory. The caller holds syncMu.
func (fs *FS) changesOf(dir *inode) *dirChanges {
	c := fs.unsynced[dir.id]
	if c == nil {
		c = &dirChanges{files: map[keys.ObjectID]uint64{}}
		fs.unsynced[dir.id] = c
	}
	return c
}

// namesChanged notes that names in a directory were added or removed.
func (fs *FS) namesChanged(dir *inode) {
	fs.syncMu.Lock()
	fs.changes++
	fs.changesOf(dir).other = fs.changes
	fs.syncMu.Unlock()
}

// namesChanging notes that names in directories are about to be removed or moved. done ends that; host says whether something came of it that only a sync of the
// host makes durable.
func (fs *FS) namesChanging(dirs ...*inode) (done func(host bool)) {
	fs.syncMu.Lock()
	for _, d := range dirs {
		fs.changesOf(d).under++
	}
	fs.syncMu.Unlock()
	return func(host bool) {
		fs.syncMu.Lock()
		defer fs.syncMu.Unlock()
		fs.changes++
		for _, d := range dirs {
			c := fs.changesOf(d)
			c.under--
			if host {
				c.other = fs.changes
			}
			fs.dropSynced(d.id, c)
		}
	}
}

// nameLost is called when a directory lost the name e: that it went counts now, not that the file came. A directory that is gone needs no sync any more.
func (fs *FS) nameLost(dir *inode, e dirs.Entry) {
	fs.syncMu.Lock()
	defer fs.syncMu.Unlock()
	if c := fs.unsynced[dir.id]; c != nil {
		delete(c.files, e.ID)
	}
	if c := fs.unsynced[e.ID]; c != nil && c.under == 0 {
		delete(fs.unsynced, e.ID)
	}
}

// dropSynced forgets the changes of a directory where none are left. The caller holds syncMu.
func (fs *FS) dropSynced(dir keys.ObjectID, c *dirChanges) {
	if c.other == 0 && c.under == 0 && len(c.files) == 0 {
		delete(fs.unsynced, dir)
	}
}

// metaChanged notes that mode, owner or extended attributes of n change: they come with the next full fsync of a file, and with any of a directory.
func (fs *FS) metaChanged(n *inode) {
	fs.attrChanges.Add(1)
	n.asMade.Store(false)
	n.metaDirty.Store(true)
	fs.attrsChange(n)
	if n.typ == typeDir {
		fs.namesChanged(n)
	}
}

// syncDir makes the names in a directory durable. What the journal holds of them needs no sync of the host.
func (fs *FS) syncDir(dir *inode) error {
	fs.syncMu.Lock()
	c, seen := fs.unsynced[dir.id], fs.changes
	dirty := c != nil && (c.other != 0 || len(c.files) > 0)
	fs.syncMu.Unlock()
	if !dirty {
		return fs.cfg.Engine.SyncNames()
	}
	d, err := dir.directory()
	if err == nil {
		err = d.Sync()
	}
	if err == nil {
		err = fs.cfg.Engine.SyncNames()
	}
	if err != nil {
		return err
	}
	fs.syncMu.Lock()
	defer fs.syncMu.Unlock()
	if c = fs.unsynced[dir.id]; c != nil {
		c.synced(seen)
		fs.dropSynced(dir.id, c)
	}
	return nil
}

// synced forgets the changes up to seen. The caller holds syncMu.
func (c *dirChanges) synced(seen uint64) {
	if c.other <= seen {
		c.other = 0
	}
	maps.DeleteFunc(c.files, func(_ keys.ObjectID, change uint64) bool { return change <= seen })
}

// syncNames makes all names durable.
func (fs *FS) syncNames() error {
	fs.syncMu.Lock()
	seen, dirty := fs.changes, len(fs.unsynced) > 0
	fs.syncMu.Unlock()
	if dirty {
		if err := fs.cfg.Tree.SyncAll(); err != nil {
			return err
		}
	}
	if err := fs.cfg.Engine.SyncNames(); err != nil {
		return err
	}
	fs.syncMu.Lock()
	defer fs.syncMu.Unlock()
	for id, c := range fs.unsynced {
		c.synced(seen)
		fs.dropSynced(id, c)
	}
	return nil
}

// syncLinks makes the links of n durable, and those of the directories above it.
func (fs *FS) syncLinks(n *inode) error {
	if n == fs.root {
		return nil
	}
	n.loc.RLock()
	var parents []*inode
	for _, l := range n.links {
		if k := len(parents); k == 0 || parents[k-1] != l.parent { // of many links most are in few directories
			parents = append(parents, l.parent)
		}
	}
	left := slices.Clone(n.left)
	parents = append(parents, left...)
	for _, p := range parents {
		fs.hold(p)
	}
	n.loc.RUnlock()
	defer fs.releaseAll(parents...)

	if err := fs.syncParents(n, parents, left); err != nil {
		return err
	}
	for _, p := range parents {
		if err := fs.syncLinks(p); err != nil {
			return err
		}
	}
	return nil
}

// syncParents makes the links of n, which are in these directories, durable unless they are. Of several callers one does it, and the others wait for that.
func (fs *FS) syncParents(n *inode, parents, left []*inode) error {
	n.linkSync.Lock()
	defer n.linkSync.Unlock()
	if n.linksSynced.Swap(true) {
		return nil
	}
	var err error
	if n.linked {
		err = fs.syncNames()
	}
	for _, p := range parents {
		if err == nil {
			err = fs.syncDir(p)
		}
	}
	if err != nil {
		n.linksSynced.Store(false)
		return err
	}
	if len(left) > 0 {
		fs.forgetLeft(n, left)
	}
	return nil
}

// syncNewName begins syncLinks of a file whose one name is the one it was made with, so that name and data get durable at the same time: either alone promises
// nothing, and takes nothing away. wait returns when it is done. For other files nothing is begun: a name that took another file's place must not be durable
// before the data.
func (fs *FS) syncNewName(n *inode) (wait func() error) {
	n.loc.RLock()
	first := n.hasFirstName()
	n.loc.RUnlock()
	if !first || n.linksSynced.Load() {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- fs.syncLinks(n) }()
	return func() error { return <-done }
}

// hasFirstName reports whether n has one name, the one it was made with. The caller holds loc.
func (n *inode) hasFirstName() bool {
	return len(n.links) == 1 && len(n.left) == 0 && n.links[0].entry.Seq == n.found.Seq && n.found.Flags&noHeader != 0
}

// forgetLeft gives up directories whose lost links are synced.
func (fs *FS) forgetLeft(n *inode, synced []*inode) {
	n.loc.Lock()
	var rest, gone []*inode
	for _, p := range n.left {
		if slices.Contains(synced, p) && n.linksSynced.Load() {
			gone = append(gone, p)
		} else {
			rest = append(rest, p)
		}
	}
	n.left = rest
	n.loc.Unlock()
	fs.releaseAll(gone...)
}

// hasHeader reports whether a new link of n may promise that the file has a durable header. The caller holds loc.
func (fs *FS) hasHeader(n *inode) bool {
	if n.typ != typeFile || n.found.Flags&noHeader == 0 || n.headerSynced.Load() {
		return true
	}
	// What never had a name has no sequence, and is of this session.
	return n.found.Seq != 0 && !fs.cfg.InSession(n.found.Seq) && !fs.cfg.UncleanSeq(n.found.Seq)
}

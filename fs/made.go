package fs

import (
	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// The first fsync of a new small file has the journal hold all of it, and nothing on the host is synced (FORMAT.md section 12, C8). A replay makes the file
// where the host lost it: name, content, mode and owner. That is so for a file with
//
//	the one name that it was made with     a replay makes it under that one; a second name ends it (link, an exchange)
//	the attributes that it was made with   what else it has stands on the host alone
//	a durable directory                    in which no name was removed or moved since the host's last sync, but names of such files
//
// Why the last: a name that had to go before this one could be made may come back on the host. This one would hide it, and have it removed.
//
// Until a checkpoint has synced the host such a file counts as made. When it loses its name the journal says so, and that makes the removal durable as well.
// So an fsync of a directory costs no sync of the host either, where nothing but such files came and went.

// born notes a new file in a directory.
func (fs *FS) born(dir *inode, id keys.ObjectID) {
	fs.syncMu.Lock()
	fs.changes++
	fs.changesOf(dir).files[id] = fs.changes
	fs.syncMu.Unlock()
}

// syncMade makes a file durable by the journal alone, but for the names of its directory. Where that cannot be it answers false, and has promised nothing. The
// file was handed over.
func (fs *FS) syncMade(n *inode, f *cache.File) (made bool, err error) {
	return fs.logMade(n, f, f.Container().SyncNew)
}

// logMade has the journal hold all of a new file, by SyncNew of its container, or MakeAhead: from then on whoever promises that its name is there syncs the journal.
func (fs *FS) logMade(n *inode, f *cache.File, log func(redo.Made) (made bool, err error)) (made bool, err error) {
	if n.headerSynced.Load() || !n.asMade.Load() || held(n.held.Load()) != heldKnown {
		return false, nil
	}
	n.linkSync.Lock()
	defer n.linkSync.Unlock()
	n.loc.RLock()
	defer n.loc.RUnlock()
	if !n.hasFirstName() || (names.Link{Name: n.links[0].entry.Name}).IsLong() {
		return false, nil
	}
	parent := n.links[0].parent
	if !fs.calm(parent) {
		return false, nil
	}
	dirty := n.metaDirty.Swap(false) // the mtime is in the journal
	var st unix.Stat_t
	err = disk.StatTimeless(f.Container().Host(), &st)
	if err == nil && n.asMade.Load() {
		made, err = log(redo.Made{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid})
	}
	if !made || err != nil {
		if dirty {
			n.metaDirty.Store(true)
		}
		return false, err
	}
	n.linksSynced.Store(true)
	fs.syncMu.Lock()
	c := fs.changesOf(parent)
	delete(c.files, n.id)
	fs.dropSynced(parent.id, c)
	fs.syncMu.Unlock()
	return true, nil
}

// calm reports whether every name that a directory lost is durably gone.
func (fs *FS) calm(dir *inode) bool {
	fs.syncMu.Lock()
	defer fs.syncMu.Unlock()
	c := fs.unsynced[dir.id]
	return c == nil || c.other == 0 && c.under == 0
}

// endMake makes the name in d of a file durable on the host that counts as made, and ends that.
func (fs *FS) endMake(d *dirs.Dir, id keys.ObjectID) error {
	if !fs.cfg.Engine.Made(id) {
		return nil
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return fs.cfg.Engine.NoteDurable(id)
}

// endMakeByName is endMake of a file by the one name that it has.
func (fs *FS) endMakeByName(n *inode) error {
	if !fs.cfg.Engine.Made(n.id) {
		return nil
	}
	n.loc.RLock()
	defer n.loc.RUnlock()
	return n.byName(func(d *dirs.Dir, _ string) error { return fs.endMake(d, n.id) })
}

// syncAttributes makes mode, owner and extended attributes of an open file durable.
func (fs *FS) syncAttributes(f *cache.File) error {
	ended, err := f.Container().EndMake()
	if err != nil || ended {
		return err
	}
	return f.Container().Host().Sync()
}

// removing is called before the name e in d is removed; n is its inode, or nil. The caller holds loc, and calls removed when the name is gone. Where the file
// counts as made, or was durable since it was new, removed has the journal say so: the next file under that name need not wait for the host then. logged says that
// it did; else only a sync of the host makes the removal durable.
func (fs *FS) removing(n *inode, d *dirs.Dir, e dirs.Entry) (removed func() (logged bool, err error)) {
	alone := n != nil && n.asMade.Load() && n.headerSynced.Load() && n.hasFirstName()
	if e.Type != typeFile || !alone && !fs.cfg.Engine.Made(e.ID) {
		return func() (bool, error) { return false, nil }
	}
	path := d.HostPath(e)
	return func() (bool, error) {
		err := fs.cfg.Engine.NoteRemoved(e.ID, path)
		return err == nil, err
	}
}

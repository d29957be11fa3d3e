package fs

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/internal/disk"
)

// blockSize is the st_blksize of everything: the kernel's page, so that its write-back sends whole frames.
const blockSize = 4096

// GetAttr answers stat.
func (fs *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := fs.anyNode(in.NodeId)
	if err == nil {
		err = fs.attr(n, &out.Attr)
	}
	out.SetTimeout(fs.cfg.Timeout)
	return fs.status("getattr", err)
}

// SetAttr does truncate, chown, chmod and utimes, in this order: a chown on the host takes suid bits away, which a mode in the same
// request sets again, and all of them change times.
func (fs *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := fs.node(in.NodeId)
	stand := false
	if err == nil && in.Valid == timesOnly {
		stand, err = fs.timesStand(n, in, &out.Attr)
	}
	if err == nil && !stand {
		if err = fs.setAttr(n, in); err == nil {
			err = fs.changedAttr(n, in, &out.Attr)
		}
	}
	out.SetTimeout(fs.cfg.Timeout)
	return fs.status("setattr", err)
}

func (fs *FS) setAttr(n *inode, in *fuse.SetAttrIn) error {
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if err := fs.truncate(n, in.Size); err != nil {
			return err
		}
	}
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		if err := fs.chown(n, in); err != nil {
			return err
		}
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		if err := fs.killPriv(n); err != nil {
			return err
		}
	}
	if in.Valid&fuse.FATTR_MODE != 0 {
		if err := fs.chmod(n, in.Mode); err != nil {
			return err
		}
	}
	if n.typ == typeDir {
		fs.namesChanged(n) // its own attributes come with the next fsync of the directory
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 {
		return fs.setTimes(n, in)
	}
	return nil
}

func (fs *FS) chown(n *inode, in *fuse.SetAttrIn) error {
	uid, gid := -1, -1
	if in.Valid&fuse.FATTR_UID != 0 {
		uid = int(in.Uid)
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		gid = int(in.Gid)
	}
	if err := fs.killCaps(n); err != nil {
		return err
	}
	mode, err := fs.sealedMode(n)
	if err != nil {
		return err
	}
	if n.asMade.Load() && n.ownedBy(uid, gid) {
		fs.attrsChange(n) // sqlite3 does it, as root, to all that it makes
	} else {
		fs.metaChanged(n)
	}
	// The host takes set-id bits from its own mode only. Those that are sealed go first, so that nothing that fails in between leaves them to the new owner.
	sealed := n.typ != typeDir && killed(mode) != mode
	if sealed {
		if err := fs.chmod(n, killed(mode)); err != nil {
			return err
		}
	}
	err = n.host(func(a attrs) error { return a.Chown(uid, gid) })
	n.owner.Store(nil)
	if err != nil && sealed {
		err = errors.Join(err, fs.chmod(n, mode))
	}
	return err
}

// ownedBy reports whether a chown to this owner and group changes neither; -1 leaves one as it is.
func (n *inode) ownedBy(uid, gid int) bool {
	var st unix.Stat_t
	err := n.host(func(a attrs) error {
		if f, ok := a.(openFile); ok {
			return disk.StatTimeless(f.File, &st)
		}
		return a.Stat(&st)
	})
	return err == nil && (uid == -1 || uint32(uid) == st.Uid) && (gid == -1 || uint32(gid) == st.Gid) && st.Mode&(suid|sgid) == 0
}

// truncate sets the size of a file, whether it has handles or not.
func (fs *FS) truncate(n *inode, size uint64) error {
	if err := fs.killCaps(n); err != nil {
		return err
	}
	return fs.using(n, size == 0, func(f *cache.File) error {
		if size > uint64(f.Container().Geometry().MaxSize()) {
			return container.ErrTooLarge
		}
		if !fs.cfg.WriteBack { // else the kernel sends the mtime with the size, if it changes
			fs.changedNow(n)
		}
		return fs.resize(f, int64(size))
	})
}

// sureSize is the size that every host file can have.
const sureSize = 1<<31 - 1<<20

// resize sets the size of an open file. Whether the host takes a much larger one is found out at once, and else undone: a file that can never be
// handed over would hold up everything behind it.
func (fs *FS) resize(f *cache.File, size int64) error {
	old := f.Size()
	change := f.Truncate
	if size > old {
		change = f.Grow // pages that are written back meanwhile may make the file longer still
	}
	err := change(size)
	if err != nil || size <= max(old, sureSize) {
		return err
	}
	if err = f.Flush(); err != nil {
		return errors.Join(err, f.Truncate(old))
	}
	return nil
}

// setTimes sets atime and mtime. The mtime of a file with data still to be flushed is only noted: each flush sets it anyway.
func (fs *FS) setTimes(n *inode, in *fuse.SetAttrIn) error {
	fs.attrsChange(n)
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if in.Valid&fuse.FATTR_ATIME != 0 {
		ts[0] = unix.Timespec{Sec: int64(in.Atime), Nsec: int64(in.Atimensec)}
		if in.Valid&fuse.FATTR_ATIME_NOW != 0 {
			ts[0] = now()
		}
	}
	if in.Valid&fuse.FATTR_MTIME == 0 {
		return n.host(func(a attrs) error { return a.Utimes(&ts) })
	}
	ts[1] = unix.Timespec{Sec: int64(in.Mtime), Nsec: int64(in.Mtimensec)}
	if in.Valid&fuse.FATTR_MTIME_NOW != 0 {
		ts[1] = now()
	}
	n.mu.Lock()
	if f := n.file; f != nil {
		defer n.mu.Unlock()
		n.touch(ts[1]) // before Dirty is asked: a flush that ends in between has put it on the host, and a later one will
		if in.Valid&fuse.FATTR_ATIME == 0 {
			switch c := f.Container(); {
			case f.Dirty(): // what hands over next takes it along
				return nil
			case n.habit.underWay() && c.Waits(): // the applier puts it on the host; the journal has another
				fs.oweTimes(n, c)
				return nil
			case c.Waits(): // the applier puts it on the host
				return n.noted(c.NoteTime(ts[1]))
			}
		}
		if err := n.setOnHost(f.Container().Host(), &ts); err != nil {
			return err
		}
		return n.noted(f.Container().NoteTime(ts[1]))
	}
	n.mu.Unlock()
	if err := n.host(func(a attrs) error { return a.Utimes(&ts) }); err != nil || n.typ != typeFile {
		return err
	}
	return n.noted(fs.cfg.Engine.NoteTime(n.id, n.hostPath, ts[1]))
}

// timesOnly is the SETATTR by which the kernel's write-back tells mtime and ctime of a file: when the mtime has changed, but also after each
// rename, link and unlink, which change the ctime alone.
const timesOnly = fuse.FATTR_MTIME | fuse.FATTR_CTIME

// ctimeSlack is how much later than the host the kernel may have set the ctime of the same change.
const ctimeSlack = 20 * time.Millisecond

// timesStand answers the attributes of a file whose host file has the mtime that the kernel tells, and a ctime of the change that it tells it
// for: nothing is to be set. An open file keeps its own times.
func (fs *FS) timesStand(n *inode, in *fuse.SetAttrIn, out *fuse.Attr) (bool, error) {
	n.mu.Lock()
	open, closes := n.file != nil, n.closes
	n.mu.Unlock()
	if open || n.typ != typeFile {
		return false, nil
	}
	var st unix.Stat_t
	if err := n.stat(&st); err != nil {
		if errors.Is(err, dirs.ErrStale) && n.gone() {
			return true, nil // its last name went, and nobody has it open: the kernel tells the ctime of that on its own, and looks at no answer
		}
		return false, err
	}
	changed := time.Unix(int64(in.Ctime), int64(in.Ctimensec))
	if st.Mtim.Sec != int64(in.Mtime) || st.Mtim.Nsec != int64(in.Mtimensec) || changed.Sub(time.Unix(st.Ctim.Sec, st.Ctim.Nsec)) > ctimeSlack {
		return false, nil
	}
	n.toldCtime(ctimeOf(in))
	fs.standFor(n, &st)
	return true, fs.fill(n, &st, closes, out)
}

// noted has the next full fsync of n sync a time on the host that the journal does not hold.
func (n *inode) noted(logged bool, err error) error {
	if !logged {
		n.metaDirty.Store(true)
	}
	return err
}

// attr fills the attributes of n from the host.
func (fs *FS) attr(n *inode, out *fuse.Attr) error {
	n.mu.Lock()
	closes := n.closes
	n.mu.Unlock()
	var st unix.Stat_t
	if err := n.statTimeless(&st); err != nil {
		return err
	}
	return fs.fill(n, &st, closes, out)
}

// fill turns the host's attributes into plain ones. closes is n.closes before the host was asked, or 0.
func (fs *FS) fill(n *inode, st *unix.Stat_t, closes uint64, out *fuse.Attr) error {
	if st.Mode&unix.S_IFMT != n.typ.Mode() {
		return dirs.ErrName
	}
	if n.geometry != 0 { // a container: a file, or a symlink with a long target
		if err := fs.measure(n, st, closes); err != nil {
			return err
		}
	}
	if err := fs.showMode(n, st); err != nil {
		return err
	}
	*out = fuse.Attr{
		Ino: st.Ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks),
		Atime: uint64(st.Atim.Sec), Atimensec: uint32(st.Atim.Nsec),
		Mtime: uint64(st.Mtim.Sec), Mtimensec: uint32(st.Mtim.Nsec),
		Ctime: uint64(st.Ctim.Sec), Ctimensec: uint32(st.Ctim.Nsec),
		Mode: st.Mode, Nlink: uint32(st.Nlink), Rdev: uint32(st.Rdev), Blksize: blockSize,
	}
	out.Uid, out.Gid = st.Uid, st.Gid
	return nil
}

// measure replaces the host's size and mtime of a container by the plain ones. The open file knows them; without one the host does, if it was asked after the
// last close: before that it may not have had everything.
func (fs *FS) measure(n *inode, st *unix.Stat_t, closes uint64) error {
	for {
		n.mu.Lock()
		if n.file != nil {
			st.Size = n.file.Size()
			fs.ctimes.show(n.id, st)
			n.show(st)
			n.mu.Unlock()
			// The header of a new file is on its way: the kernel keeps what CREATE answers, so count its block already.
			st.Blocks = max(st.Blocks, container.BlockSize/512)
			return nil
		}
		again := n.closes != closes
		closes = n.closes
		n.mu.Unlock()
		if !again {
			break
		}
		if err := n.stat(st); err != nil {
			return err
		}
	}
	fs.cfg.Engine.Show(n.id, st)
	size, err := fs.storedSize(n, st)
	st.Size = size
	fs.ctimes.show(n.id, st)
	return err
}

// storedSize is the size of a file that is not open: as the host length tells, or, where an unclean session may have left a length that
// tells nothing, as sealed in the header.
func (fs *FS) storedSize(n *inode, st *unix.Stat_t) (size int64, err error) {
	if fs.cfg.UncleanTime(st.Ctim) {
		size, err = fs.sealedSize(n)
	} else {
		var geo *container.Geometry
		if geo, err = container.GeometryByID(n.geometry); err == nil {
			size, err = geo.PlainSize(st.Size)
		}
	}
	if err != nil && damage(err) {
		// A damaged file can still be listed and removed. Its size must not be 0: the kernel would answer reads itself, with an
		// end of file in place of the error that the first READ gets here.
		fs.damaged(n.id, err, "the size of a file is unknown")
		return max(st.Size, 1), nil
	}
	return size, err
}

// sealedSize reads the size from the header of a file that is not open.
func (fs *FS) sealedSize(n *inode) (size int64, err error) {
	n.loc.RLock()
	defer n.loc.RUnlock()
	read := func(h disk.File) error {
		size, err = fs.cfg.Engine.ReadSize(h, n.id, fs.mayLackHeader(n.found))
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pinned != nil {
		return size, read(n.pinned)
	}
	err = n.byName(func(d *dirs.Dir, name string) error {
		h, err := d.Open(name, n.id, disk.ReadOnly)
		if err != nil {
			return err
		}
		return errors.Join(read(h), h.Close())
	})
	return size, err
}

// answer fills the reply of a request that gives the kernel an inode, which enter has counted. closes is as for fill.
func (fs *FS) answer(n *inode, st *unix.Stat_t, closes uint64, out *fuse.EntryOut) error {
	if err := fs.fill(n, st, closes, &out.Attr); err != nil {
		fs.drop(n, 1, 0)
		return err
	}
	if fs.cfg.WriteBack && n.typ == typeFile {
		n.keepCtime(unix.Timespec{Sec: int64(out.Ctime), Nsec: int64(out.Ctimensec)})
	}
	out.NodeId = n.node
	out.Generation = 1 // node ids are never given twice
	if n.refused {     // not when the kernel asks again, perhaps
		return nil
	}
	out.SetEntryTimeout(fs.cfg.Timeout)
	out.SetAttrTimeout(fs.cfg.Timeout)
	fs.tell(n, closes)
	return nil
}

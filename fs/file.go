package fs

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/internal/disk"
)

// The open file of an inode. It is opened by the first call that needs its bytes, shared by all handles, and closed when the last handle
// and the last call are done with it.

// opened counts one more handle, which closed gives back.
func (fs *FS) opened(n *inode, write bool) {
	fs.hold(n)
	n.mu.Lock()
	n.opens++
	n.mu.Unlock()
	if write {
		n.writers.Add(1)
	}
}

// closed gives back a handle. An error means that data could not be handed over; it stays in memory and is tried again.
func (fs *FS) closed(n *inode, write bool) error {
	if write {
		n.writers.Add(-1)
	}
	n.mu.Lock()
	n.opens--
	freed, err := fs.closeIdle(n)
	n.mu.Unlock()
	fs.release(n)
	if freed {
		fs.release(n)
	}
	return err
}

// use returns the open file of n, opening it where needed. Each success is followed by one unuse. emptied: the caller truncates the file to
// nothing, so that a damaged one opens too.
func (fs *FS) use(n *inode, emptied bool) (*cache.File, error) {
	n.mu.Lock()
	if f := n.file; f != nil {
		n.users++
		n.mu.Unlock()
		return f, nil
	}
	n.mu.Unlock()
	if n.typ != typeFile {
		return nil, unix.EINVAL
	}
	n.loc.RLock()
	defer n.loc.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		if err := fs.openHost(n, emptied); err != nil {
			return nil, err
		}
	}
	n.users++
	return n.file, nil
}

// unuse ends what use began. An error is that of the flush when nobody else has the file open.
func (fs *FS) unuse(n *inode) error {
	n.mu.Lock()
	n.users--
	freed, err := fs.closeIdle(n)
	n.mu.Unlock()
	if freed {
		fs.release(n)
	}
	return err
}

// with runs fn on the open file of n.
func (fs *FS) with(n *inode, fn func(f *cache.File) error) error {
	return fs.using(n, false, fn)
}

// using is with; emptied says that fn truncates the file to nothing.
func (fs *FS) using(n *inode, emptied bool, fn func(f *cache.File) error) error {
	f, err := fs.use(n, emptied)
	if err != nil {
		return err
	}
	n.worked.Store(true)
	err = fn(f)
	return errors.Join(err, fs.unuse(n))
}

// openHost opens the container of n, for use. The caller holds loc and mu.
func (fs *FS) openHost(n *inode, emptied bool) error {
	h, kept := n.pinned, n.pinned != nil
	if !kept {
		h = fs.takeEarly(n)
	}
	if h == nil {
		err := n.byName(func(d *dirs.Dir, name string) (err error) {
			h, err = d.Open(name, n.id, disk.Access(fs.cfg.ReadOnly))
			return err
		})
		if err != nil {
			return err
		}
	}
	n.pinned = nil // it becomes the container's, which keeps or closes it
	var st unix.Stat_t
	if err := h.Stat(&st); err != nil {
		return errors.Join(err, h.Close())
	}
	opt := container.OpenOptions{
		ReadOnly: fs.cfg.ReadOnly, MayLackHeader: fs.mayLackHeader(n.found), TrustLength: !fs.cfg.UncleanTime(st.Ctim), Length: st.Size,
		Young:   n.found.Flags&noHeader != 0 && fs.cfg.InSession(n.found.Seq),
		Emptied: emptied && n.geometry == fs.cfg.Engine.Geometry().ID, // a new container has the vault's geometry
	}
	c, err := fs.cfg.Engine.Open(h, n.id, opt)
	if err != nil {
		return err
	}
	n.keep = kept
	fs.cfg.Engine.Show(n.id, &st)
	if len(n.links) > 0 {
		n.placeLocked(c, n.links[0])
	}
	n.worked.Store(opt.MayLackHeader || !opt.TrustLength) // it may have been repaired
	fs.attach(n, c, st.Mtim)
	return nil
}

func (fs *FS) mayLackHeader(e dirs.Entry) bool {
	return e.Flags.MayLackHeader(e.Seq, fs.cfg.UncleanSeq)
}

// attach gives n its open file, whose mtime is the host's so far. The caller holds mu.
func (fs *FS) attach(n *inode, c *container.File, mtime unix.Timespec) {
	if !fs.cfg.WriteBack {
		n.toldCtime(unix.Timespec{}) // until it changes
	}
	n.told.Store(0)
	n.track(c.Host(), mtime)
	c.SetHooks(container.Hooks{
		Mtime: n.current, Applying: func() { fs.beforeApply(n, c.Host()) }, Applied: func() { fs.applied(n, c) }, Idle: func() { fs.idle(n) },
	})
	n.file = fs.cfg.Cache.Open(c, cache.Hooks{Flushed: func() {
		if c.HostChanged() && !c.Waits() { // what is in the journal brings its mtime along
			fs.restoreTimes(n, c.Host())
		}
		fs.idle(n) // where nothing of it went to the journal, which would say so
	}})
}

// placeLocked tells a container by which host names a replay of the journal finds it. The caller holds loc.
func (n *inode) placeLocked(c *container.File, l link) {
	if d, err := l.parent.directory(); err == nil {
		c.SetName(d.HostPaths(l.entry), d.Sync)
	}
}

// renamed tells the open container of n of a new name. The caller holds loc.
func (n *inode) renamed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil && len(n.links) > 0 {
		n.placeLocked(n.file.Container(), n.links[0])
	}
}

// hostPath answers the host names by which n is found, nil where none is known.
func (n *inode) hostPath() []string {
	n.loc.RLock()
	defer n.loc.RUnlock()
	if len(n.links) == 0 {
		return nil
	}
	d, err := n.links[0].parent.directory()
	if err != nil {
		return nil
	}
	return d.HostPath(n.links[0].entry)
}

// applied is called when the journal's content of n was written to the host: the mtime is put back.
func (fs *FS) applied(n *inode, c *container.File) {
	fs.restoreTimes(n, c.Host())
	fs.afterApply(n, c.Host())
}

// idle is called when something of n was handed over, and when nothing of it waits in the journal any more: a file that was only open for that is closed.
func (fs *FS) idle(n *inode) {
	if !n.lingering.Load() {
		return
	}
	fs.closing.begin(func() { // not here: idle must not wait
		n.mu.Lock()
		if n.file == nil || n.file.Dirty() { // what is left is handed over in time, and comes here again
			n.mu.Unlock()
			return
		}
		freed, err := fs.closeIdle(n)
		n.mu.Unlock()
		fs.failed(n, err, "closing a file failed")
		if freed {
			fs.release(n)
		}
	})
}

// closeIdle closes the file of n when nobody needs it. Where its data cannot be handed over, or waits in the journal for its place on the host, it lingers
// with a hold on n; freed says that such a hold came free. The caller holds mu.
func (fs *FS) closeIdle(n *inode) (freed bool, err error) {
	if n.early != nil && n.opens == 0 && n.users == 0 {
		_ = fs.takeEarly(n).Close() // of which nothing was read
	}
	if n.file == nil || n.opens > 0 || n.users > 0 {
		return false, nil
	}
	if n.keep { // it goes with the inode, which a linger from before would hold for good
		if freed = n.lingers && (!n.file.Dirty() || orphaned(n.file.Container().Host())); freed {
			fs.unlinger(n)
		}
		return freed, nil
	}
	flushErr := n.file.Flush()
	if flushErr != nil && n.file.Dirty() {
		fs.linger(n)
		if n.file.Dirty() { // else nobody may call again
			return false, flushErr
		}
	}
	fs.keepTimes(n, n.file.Container())
	if n.file.Container().Pending() {
		fs.linger(n)
		if n.file.Container().Pending() { // else nobody may call again
			return false, flushErr
		}
	}
	untouched := n.untouched()
	n.untrack() // before the close: a hand-over in the background may still be about to put the mtime back
	if !untouched {
		fs.noteCtime(n, n.file.Container().Host())
	}
	err = errors.Join(flushErr, n.file.Close())
	n.file = nil
	n.closes++
	freed = n.lingers
	fs.unlinger(n)
	return freed, err
}

// linger keeps the file of n open beyond its last handle. The caller holds mu.
func (fs *FS) linger(n *inode) {
	if !n.lingers {
		n.lingers = true
		n.lingering.Store(true)
		fs.lingering.Add(1)
		fs.hold(n)
	}
}

// unlinger ends that; the hold is the caller's to release.
func (fs *FS) unlinger(n *inode) {
	if n.lingers {
		n.lingers = false
		n.lingering.Store(false)
		fs.lingering.Add(-1)
	}
}

// closeLingering brings what files linger for to its place, and waits a little until they are closed. It answers whether there were any: a request that found no
// free descriptor then may find one. Nothing may be locked.
func (fs *FS) closeLingering() bool {
	const tries, pause = 50, 10 * time.Millisecond
	if fs.lingering.Load() == 0 || fs.cfg.Engine.Checkpoint() != nil {
		return false
	}
	for range tries {
		if fs.lingering.Load() == 0 {
			break
		}
		time.Sleep(pause)
	}
	return true
}

// handOver flushes a file. RELEASE and FORGET of a file that was just deleted to make room may still be on their way, and its blocks
// with them: on a full host they are waited for, a little.
func (fs *FS) handOver(f *cache.File) error {
	const tries, pause = 10, 10 * time.Millisecond
	err := f.Flush()
	for range tries {
		if fs.orphans.Load() == 0 || !disk.IsFull(err) {
			break
		}
		time.Sleep(pause)
		err = f.Flush()
	}
	return err
}

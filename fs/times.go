package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/internal/disk"
)

// The mtime of a file that is open. Host writes happen when we flush, not when the application wrote, so the host's mtime is wrong after each of
// them. The inode keeps the right one and puts it back after each hand-over that wrote to the host file (cache.Hooks.Flushed). One that goes to the journal
// alone has the mtime in its transaction; on the host it is put when the applier has written there. The reason is not the call that this saves: a host whose
// ctime was looked at stamps its next change finely, and moves the clock of the whole kernel with it, so that under write-back each fsync would find a new mtime
// and send a SETATTR. For the same reason the host is not asked for times that do not count (statTimeless).
//
// Under write-back the right one is the kernel's: what it was told first, until it sends another by SETATTR, which it does only when it has
// changed, and no later than before FLUSH and FSYNC. A WRITE that arrives says no more than that a SETATTR may follow: its arrival is put on the
// host meanwhile, so that a file that is left behind by a crash does not look unchanged, and is taken back when FLUSH comes without one. (Taking
// the arrival for good made files younger or older than stat had said.)
type times struct {
	timeMu  sync.Mutex // guards what follows; held over utimensat, so that the last one set is the last one on the host
	tracked disk.File  // the file is open as this one, and mtime counts, not the host's; nil where it is not
	mtime   unix.Timespec
	pending bool          // arrived counts on the host, until the kernel says more
	arrived unix.Timespec // of the last change that the kernel has not put a time to
	onHost  unix.Timespec // as put back last
	owed    bool          // the journal may have arrived in place of mtime

	ctime unix.Timespec // as the kernel said last, or of the last change of an open file; zero: the host's counts, or what it stands for

	changesOpened uint64 // changes when the file was opened
	ctimeOpened   unix.Timespec

	changes     atomic.Uint64 // of attributes; a ctime of the host that comes meanwhile counts
	changesSeen uint64        // what follows is of before the journal's content came to the host
	ctimeSeen   unix.Timespec
	modeSeen    uint32 // of the host file
}

// beforeApply and afterApply enclose what the journal does to a host file.
func (fs *FS) beforeApply(n *inode, h disk.File) {
	var st unix.Stat_t
	if h.Stat(&st) != nil {
		return
	}
	n.timeMu.Lock()
	defer n.timeMu.Unlock()
	n.changesSeen, n.modeSeen = n.changes.Load(), st.Mode
	fs.ctimes.show(n.id, &st)
	n.ctimeSeen = st.Ctim
	if later(n.arrived, n.ctimeSeen) {
		n.ctimeSeen = n.arrived
	}
}

func (fs *FS) afterApply(n *inode, h disk.File) {
	var st unix.Stat_t
	err := h.Stat(&st)
	n.timeMu.Lock()
	defer n.timeMu.Unlock()
	if n.changes.Load() != n.changesSeen {
		return
	}
	if lost := st.Mode ^ n.modeSeen; err == nil && lost != 0 && lost&^(suid|sgid) == 0 {
		// The host takes set-id bits away when a process writes that is not root's. The application set them after it had written.
		if err = h.Chmod(n.modeSeen & 0o7777); err == nil {
			err = h.Stat(&st)
		}
	}
	switch {
	case err != nil || n.changes.Load() != n.changesSeen:
	case n.ctime != (unix.Timespec{}):
		fs.ctimes.note(n.id, st.Ctim, n.ctime)
	default:
		fs.ctimes.note(n.id, st.Ctim, n.ctimeSeen)
	}
}

// track begins to keep the mtime of a file, which is the host's so far.
func (t *times) track(h disk.File, ts unix.Timespec) {
	t.timeMu.Lock()
	defer t.timeMu.Unlock()
	t.tracked, t.mtime, t.onHost, t.pending = h, ts, ts, false
	t.changesOpened, t.ctimeOpened = t.changes.Load(), t.ctime
}

// untouched reports whether an open file is as it was when it was opened, its attributes included: it was only read.
func (n *inode) untouched() bool {
	n.timeMu.Lock()
	defer n.timeMu.Unlock()
	return !n.worked.Load() && n.changes.Load() == n.changesOpened && n.ctime == n.ctimeOpened
}

// untrack hands the mtime back to the host, which has it by now.
func (t *times) untrack() {
	t.timeMu.Lock()
	t.tracked = nil
	t.timeMu.Unlock()
}

// touch sets the mtime.
func (t *times) touch(ts unix.Timespec) {
	t.timeMu.Lock()
	t.mtime, t.pending = ts, false
	t.timeMu.Unlock()
}

// changedNow notes that the content of n changes with this request.
func (fs *FS) changedNow(n *inode) {
	ts := now()
	n.timeMu.Lock()
	defer n.timeMu.Unlock()
	if fs.cfg.WriteBack {
		n.arrived, n.pending = ts, true
		return
	}
	fine := n.changedLocked()
	// Within one tick the host may have stamped the file finer than the coarse clock counts: no write makes it older.
	if !later(n.mtime, ts) || later(n.mtime, fine) {
		n.mtime = ts
	}
}

// attrsChange notes that attributes or names of n change with this request.
func (fs *FS) attrsChange(n *inode) {
	n.changes.Add(1)
	n.told.Store(0)
	if fs.cfg.WriteBack { // the kernel sends the ctime
		return
	}
	n.timeMu.Lock()
	if n.tracked != nil {
		n.changedLocked()
	}
	n.timeMu.Unlock()
}

// changedLocked sets the ctime of an open file, without write-back: its data comes to the host later, which moves the host's ctime, and is no change. It is
// taken from the fine clock, no earlier than what the host stamped before. The caller holds timeMu.
func (t *times) changedLocked() unix.Timespec {
	t.ctime = unix.NsecToTimespec(time.Now().UnixNano())
	t.arrived = t.ctime
	return t.ctime
}

// setOnHost sets times of the open host file, the mtime among them.
func (t *times) setOnHost(h disk.File, ts *[2]unix.Timespec) error {
	t.timeMu.Lock()
	defer t.timeMu.Unlock()
	err := h.Utimes(ts)
	if err == nil {
		t.onHost = ts[1]
	}
	return err
}

// ownTimes reports whether neither mtime nor ctime of the open file h are the host's.
func (t *times) ownTimes(h disk.File) bool {
	t.timeMu.Lock()
	defer t.timeMu.Unlock()
	return t.tracked == h && t.ctime != unix.Timespec{}
}

// show puts in the times of an open file. What was changed and is not handed over changes the host's ctime later; under write-back the kernel
// has its own.
func (t *times) show(st *unix.Stat_t) {
	t.timeMu.Lock()
	defer t.timeMu.Unlock()
	st.Mtim = t.mtime
	switch {
	case t.ctime != (unix.Timespec{}):
		st.Ctim = t.ctime
	case later(t.arrived, st.Ctim):
		st.Ctim = t.arrived
	}
}

// current is the mtime that is to stand on the host now.
func (t *times) current() unix.Timespec {
	t.timeMu.Lock()
	defer t.timeMu.Unlock()
	return t.currentLocked()
}

func (t *times) currentLocked() unix.Timespec {
	if t.pending {
		return t.arrived
	}
	return t.mtime
}

// restoreTimes puts the mtime of a host file right after a flush or the journal wrote to it.
func (fs *FS) restoreTimes(n *inode, h disk.File) {
	n.timeMu.Lock()
	defer n.timeMu.Unlock()
	if n.tracked == h { // else it was closed meanwhile, and may be open again
		fs.putTime(n, h, n.currentLocked())
	}
}

// timesSent notes that the kernel has sent all it knows, before the flush that follows: that puts on the host what stays there. late says that arrived counted.
func (t *times) timesSent() (late bool) {
	t.timeMu.Lock()
	defer t.timeMu.Unlock()
	late, t.pending = t.pending, false
	return late
}

// timesLate takes timesSent back: the flush failed.
func (t *times) timesLate() {
	t.timeMu.Lock()
	t.pending = true
	t.timeMu.Unlock()
}

// keepTimes is called when the kernel has sent all it knows, after the flush that followed: no SETATTR came, so the mtime is what it was. It sees to it that
// the host, or the journal, has that.
func (fs *FS) keepTimes(n *inode, c *container.File) {
	n.timeMu.Lock()
	n.pending = false
	ts, waits, owed := n.mtime, c.Waits(), n.owed
	n.owed = false
	late := n.tracked == c.Host() && n.onHost != n.mtime
	if late && !waits { // else the applier puts it there: Hooks.Applied waits for timeMu
		fs.putTime(n, c.Host(), ts)
	}
	n.timeMu.Unlock()
	if late || waits || owed {
		_, err := c.NoteTime(ts)
		fs.failed(n, err, "mtime could not be logged")
	}
}

// oweTimes leaves that to the next hand-over that logs times, or calls keepTimes: what was flushed has the time at which it arrived, and what is to be answered,
// an fdatasync or a SETATTR, promises no other.
func (fs *FS) oweTimes(n *inode, _ *container.File) {
	n.timeMu.Lock()
	n.owed = true
	n.timeMu.Unlock()
}

func (fs *FS) putTime(n *inode, h disk.File, ts unix.Timespec) {
	if err := h.Utimes(&[2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}); err != nil {
		fs.failed(n, err, "mtime could not be put back")
		return
	}
	n.onHost = ts
}

func later(a, b unix.Timespec) bool {
	return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec
}

// now is the host's file time: the coarse clock, so that a file changed here never looks newer than one that the host stamps later.
func now() unix.Timespec {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts) != nil {
		_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
	}
	return ts
}

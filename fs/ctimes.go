package fs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
)

// mostCtimes is how many ctimes are remembered, 100 bytes of memory each. Beyond, any of them goes, and its file looks changed once.
const mostCtimes = 1 << 18

// ctimes remembers what ctimes of host files stand for. Under write-back the ctime of a file is the kernel's, which sends it when it sends the mtime, and
// what comes to the host later - a flush, the journal's content, an mtime that is put back - moves the host's, which nobody can set. So git would take
// files for changed that are not. A ctime of the host that is not the one remembered counts: something else has changed the file.
type ctimes struct {
	mu      sync.Mutex
	of      map[keys.ObjectID]vault.Ctime
	changed bool // since the vault was opened
}

// note remembers what a ctime of the host stands for.
func (c *ctimes) note(id keys.ObjectID, host, shown unix.Timespec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, known := c.of[id]; known && old.Host == host && old.Shown == shown {
		return
	} else if !known && host == shown {
		return
	}
	if len(c.of) >= mostCtimes {
		for id := range c.of {
			delete(c.of, id)
			break
		}
	}
	c.of[id], c.changed = vault.Ctime{Host: host, Shown: shown}, true
}

// forget gives up an object that is gone.
func (c *ctimes) forget(id keys.ObjectID) {
	c.mu.Lock()
	if _, known := c.of[id]; known {
		delete(c.of, id)
		c.changed = true
	}
	c.mu.Unlock()
}

// show puts in what the host's ctime stands for.
func (c *ctimes) show(id keys.ObjectID, st *unix.Stat_t) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, known := c.of[id]; known && t.Host == st.Ctim {
		st.Ctim = t.Shown
	}
}

// changedCtimes returns what a later session is to know, nil where it knows it already. Call it when everything is closed.
func (fs *FS) changedCtimes() map[keys.ObjectID]vault.Ctime {
	fs.ctimes.mu.Lock()
	defer fs.ctimes.mu.Unlock()
	if !fs.ctimes.changed {
		return nil
	}
	return fs.ctimes.of
}

// keepCtime notes the first ctime that the kernel is told of a file: it keeps that until it sends another.
func (t *times) keepCtime(ts unix.Timespec) {
	t.timeMu.Lock()
	defer t.timeMu.Unlock()
	if t.ctime == (unix.Timespec{}) {
		t.ctime = ts
	}
}

// ctimeOf is the ctime that a SETATTR tells.
func ctimeOf(in *fuse.SetAttrIn) unix.Timespec {
	return unix.Timespec{Sec: int64(in.Ctime), Nsec: int64(in.Ctimensec)}
}

// toldCtime takes over the ctime that the kernel keeps of a file.
func (t *times) toldCtime(ts unix.Timespec) {
	t.timeMu.Lock()
	t.ctime = ts
	t.timeMu.Unlock()
}

// changedAttr is attr after a SETATTR, which may have told a ctime: nobody can set the host's. While the file is open that is its ctime, and closing notes
// it; else the host has one by now that stands for it.
func (fs *FS) changedAttr(n *inode, in *fuse.SetAttrIn, out *fuse.Attr) error {
	if in.Valid&fuse.FATTR_CTIME == 0 || n.typ != typeFile {
		return fs.attr(n, out)
	}
	n.toldCtime(ctimeOf(in))
	n.mu.Lock()
	open, closes := n.file != nil, n.closes
	n.mu.Unlock()
	if open {
		return fs.attr(n, out)
	}
	var st unix.Stat_t
	if err := n.stat(&st); err != nil {
		return err
	}
	fs.standFor(n, &st)
	return fs.fill(n, &st, closes, out)
}

// standFor notes that the host's ctime stands for the one that the kernel told, if it did. What has no name left is on its way out.
func (fs *FS) standFor(n *inode, st *unix.Stat_t) {
	n.timeMu.Lock()
	defer n.timeMu.Unlock()
	fs.standForLocked(n, st)
}

func (fs *FS) standForLocked(n *inode, st *unix.Stat_t) {
	if n.ctime != (unix.Timespec{}) && st.Nlink > 0 {
		fs.ctimes.note(n.id, st.Ctim, n.ctime)
	}
}

// noteCtime is standFor when everything of an open file is on the host. The host is asked under timeMu, so that what the applier notes meanwhile is the later.
func (fs *FS) noteCtime(n *inode, h disk.File) {
	n.timeMu.Lock()
	defer n.timeMu.Unlock()
	var st unix.Stat_t
	if h.Stat(&st) == nil {
		fs.standForLocked(n, &st)
	}
}

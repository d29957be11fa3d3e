package fs

import (
	"sync"

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
	for id := range c.of {
		if len(c.of) < mostCtimes {
			break
		}
		delete(c.of, id)
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

// Ctimes returns what a later session is to know, nil where it knows it already. Call it when everything is closed.
func (fs *FS) Ctimes() map[keys.ObjectID]vault.Ctime {
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

// setCtime takes over the ctime that the kernel keeps of a file. While the file is open that is its ctime; else the host has one by now that stands for it.
func (fs *FS) setCtime(n *inode, ts unix.Timespec) error {
	n.timeMu.Lock()
	n.ctime = ts
	n.timeMu.Unlock()
	n.mu.Lock()
	open := n.file != nil
	n.mu.Unlock()
	if open {
		return nil // closing notes it
	}
	var st unix.Stat_t
	if err := n.stat(&st); err != nil {
		return err
	}
	fs.ctimes.note(n.id, st.Ctim, ts)
	return nil
}

// noteCtime is called when everything of an open file is on the host.
func (fs *FS) noteCtime(n *inode, h disk.File) {
	n.timeMu.Lock()
	defer n.timeMu.Unlock()
	var st unix.Stat_t
	if n.ctime != (unix.Timespec{}) && h.Stat(&st) == nil {
		fs.ctimes.note(n.id, st.Ctim, n.ctime)
	}
}

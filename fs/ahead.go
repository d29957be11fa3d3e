package fs

import (
	"sync"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container/keys"
)

const (
	aheadSure  = 3        // times in a row that a file was written and synced alike before the next time is foreseen
	aheadMost  = 8        // WRITEs
	aheadBytes = 64 << 10 // in them
	aheadNames = 64       // of removed files whose habits are kept
)

// habit is how WRITEs and FSYNCs of a file alternate. Most databases write little, and as often each time, and then wait for the disk with fdatasync. After
// the last of these WRITEs the disk is begun with, so that it works while the answer is on its way to the kernel and the FSYNC on its way here. Where none
// comes, what was written is durable earlier than asked for.
type habit struct {
	mu     sync.Mutex
	writes int  // since the last FSYNC
	bytes  int  // in them
	usual  int  // WRITEs before the last FSYNC
	alike  int  // FSYNCs in a row before which there were as many
	begun  bool // the disk was begun with, and the FSYNC has not come
}

// wrote counts a WRITE. It answers whether an FSYNC is foreseen as what comes next.
func (h *habit) wrote(n int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes++
	h.bytes += n
	h.begun = h.alike >= aheadSure && h.writes == h.usual && h.bytes <= aheadBytes
	return h.begun
}

// synced counts an FSYNC. It answers whether the disk was begun with for it. Only an fdatasync is foreseen: any other also waits for times, which the kernel tells
// after the WRITEs.
func (h *habit) synced(dataOnly bool) (begun bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !dataOnly || h.writes == 0 || h.writes > aheadMost:
		h.alike = 0
	case h.writes == h.usual:
		h.alike++
	default:
		h.alike = 1
	}
	begun, h.begun = h.begun, false
	h.usual, h.writes, h.bytes = h.writes, 0, 0
	return begun
}

// underWay reports whether the disk was begun with for an FSYNC that has not come.
func (h *habit) underWay() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.begun
}

// habits are those of files that were removed: a database makes its rollback journal anew for each transaction, under one name, and writes and syncs it as the last.
type habits struct {
	mu  sync.Mutex
	all map[habitKey]habitKept
}

type habitKey struct {
	dir  keys.ObjectID
	name string
}

type habitKept struct{ usual, alike int } // as in habit

// keep is called when the file of h lost its name.
func (hs *habits) keep(dir keys.ObjectID, name string, h *habit) {
	h.mu.Lock()
	k := habitKept{h.usual, h.alike}
	h.mu.Unlock()
	if k.alike == 0 {
		return
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.all == nil || len(hs.all) >= aheadNames {
		hs.all = map[habitKey]habitKept{}
	}
	hs.all[habitKey{dir, name}] = k
}

// take gives h, of a file that was just made, what was kept under its name.
func (hs *habits) take(dir keys.ObjectID, name string, h *habit) {
	key := habitKey{dir, name}
	hs.mu.Lock()
	k, kept := hs.all[key]
	delete(hs.all, key)
	hs.mu.Unlock()
	if kept {
		h.mu.Lock()
		h.usual, h.alike = k.usual, k.alike
		h.mu.Unlock()
	}
}

// flushAhead begins with the disk where an FSYNC is foreseen after a WRITE of so many bytes. An error is left to that: what could not be handed over stays dirty.
func (fs *FS) flushAhead(n *inode, f *cache.File, bytes int) {
	if n.habit.wrote(bytes) {
		f.Container().SyncAhead()
		f.FlushAhead()
		_, _ = fs.logMade(n, f, f.Container().MakeAhead)
	}
}

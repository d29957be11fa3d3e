package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// An inode stays here as long as the kernel knows it, and the kernel forgets only when it runs short of memory itself: who walks through a million
// files would have each of them in our memory for good. So beyond MaxNodes the kernel is asked to give up the ones that nobody uses
// (NOTIFY_PRUNE, Linux 6.18); it looks them up again when it needs them. Older kernels cannot be asked.

// DefaultMaxNodes inodes take about 350 MB.
const DefaultMaxNodes = 1 << 18

// pruneBatch is how many inodes one notification names.
const pruneBatch = 4096

// Nodes is how many inodes the kernel knows.
func (fs *FS) Nodes() int {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return len(fs.nodes)
}

// pruneLocked asks the kernel to forget, in the background, if there are too many inodes. The caller holds mu.
func (fs *FS) pruneLocked() {
	if len(fs.nodes) <= fs.pruneAt || fs.server.Load() == nil {
		return
	}
	// FORGETs come one by one: the kernel is asked again only when there are an eighth more.
	fs.pruneAt = len(fs.nodes) + fs.cfg.MaxNodes/8
	go fs.prune()
}

func (fs *FS) prune() {
	server := fs.server.Load()
	fs.mu.Lock()
	surplus := len(fs.nodes) - fs.cfg.MaxNodes + fs.cfg.MaxNodes/4
	batch := make([]uint64, 0, max(0, surplus))
	for id, n := range fs.nodes { // no order is kept: any will do
		if len(batch) >= surplus {
			break
		}
		if n.holds == 0 && n != fs.root {
			batch = append(batch, id)
		}
	}
	fs.mu.Unlock()
	for len(batch) > 0 {
		k := min(len(batch), pruneBatch)
		if server.PruneNotify(batch[:k]) == fuse.ENOSYS {
			return // pruneAt goes on rising with the table
		}
		batch = batch[k:]
	}
	fs.mu.Lock()
	fs.pruneAt = max(fs.cfg.MaxNodes, len(fs.nodes)+fs.cfg.MaxNodes/8)
	fs.mu.Unlock()
}

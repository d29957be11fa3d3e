package fs

import (
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/internal/disk"
)

const (
	earlyBytes = container.BlockSize + 64<<10 // of the host file: a header, and what a small file holds
	mostEarly  = 64                           // files
)

// expectRead is called when a file is opened for reading. Where the kernel has no pages of it, a READ follows in a moment: the host begins to read already, so that
// the disk works while the answer is on its way there and the READ on its way back. An error is left to that READ, which meets it again.
//
// It answers ErrStale for a file whose last name was removed between the kernel's look at it and this call, and that was given up at once: the kernel
// looks the path up again. Without that a reader would have an open file of which nothing can be read, and whose close fails.
func (fs *FS) expectRead(n *inode) error {
	n.loc.RLock()
	defer n.loc.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil || n.pinned != nil {
		return nil
	}
	if len(n.links) == 0 {
		return dirs.ErrStale
	}
	if n.early != nil || n.paged.Swap(true) {
		return nil
	}
	if fs.early.Add(1) > mostEarly {
		fs.early.Add(-1)
		return nil
	}
	err := n.byName(func(d *dirs.Dir, name string) (err error) {
		n.early, err = d.Open(name, n.id, disk.Access(fs.cfg.ReadOnly))
		return err
	})
	if err != nil {
		n.early = nil
		fs.early.Add(-1)
		return nil
	}
	fs.trails.opened(fs, n.links[len(n.links)-1], disk.Fetch(n.early, earlyBytes))
	return nil
}

// gone reports whether the last name of n was removed and nothing keeps its host file open.
func (n *inode) gone() bool {
	n.loc.RLock()
	defer n.loc.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.links) == 0 && n.file == nil && n.pinned == nil
}

// takeEarly takes what expectRead opened, nil where that is nothing. The caller holds mu.
func (fs *FS) takeEarly(n *inode) disk.File {
	h := n.early
	if h != nil {
		n.early = nil
		fs.early.Add(-1)
	}
	return h
}

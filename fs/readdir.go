package fs

import (
	"errors"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/dirs"
)

// dirHandle is an open directory. It lists what was there when offset 0 was read last, so that offsets mean the same whatever comes and
// goes meanwhile, as POSIX wants.
type dirHandle struct {
	node *inode
	dir  *dirs.Dir

	mu    sync.Mutex // guards names; held while one reply is filled
	names []dirs.Entry
	taken bool
}

// OpenDir opens a directory for listing.
func (fs *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("opendir", err)
	}
	d, err := n.directory()
	if err != nil {
		return fs.status("opendir", err)
	}
	fs.hold(n)
	fs.handleMu.Lock()
	fs.lastHandle++
	out.Fh = fs.lastHandle
	fs.handles[out.Fh] = &dirHandle{node: n, dir: d}
	fs.handleMu.Unlock()
	return fuse.OK
}

// ReleaseDir ends a directory handle.
func (fs *FS) ReleaseDir(in *fuse.ReleaseIn) {
	fs.handleMu.Lock()
	h := fs.handles[in.Fh]
	delete(fs.handles, in.Fh)
	fs.handleMu.Unlock()
	if h != nil {
		fs.release(h.node)
	}
}

func (fs *FS) dirHandle(fh uint64) (*dirHandle, error) {
	fs.handleMu.Lock()
	defer fs.handleMu.Unlock()
	if h := fs.handles[fh]; h != nil {
		return h, nil
	}
	return nil, errUnknownNode
}

// ReadDir lists names with type and inode number.
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.status("readdir", fs.readDir(in, func(h *dirHandle, e *dirs.Entry, de fuse.DirEntry) bool {
		if e != nil {
			var err error
			if de.Ino, err = fs.listedIno(h, e); errors.Is(err, dirs.ErrStale) {
				return true // gone since the snapshot
			}
		}
		return out.AddDirEntry(de)
	}))
}

// ReadDirPlus lists names with all attributes: each name that carries them is a LOOKUP that the kernel does not send. Names whose attributes
// cannot be had are listed without; the kernel asks for them and gets the error. So are those of which it has them.
func (fs *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	now := fs.now()
	return fs.status("readdirplus", fs.readDir(in, func(h *dirHandle, e *dirs.Entry, de fuse.DirEntry) bool {
		if e != nil {
			if n := fs.toldOf(h.node, e, now); n != nil {
				de.Ino = n.ino
				return out.AddDirLookupEntry(de) != nil
			}
		}
		var st unix.Stat_t
		var s sight
		var err error
		if e != nil {
			if s, err = fs.look(h.dir, *e, &st); errors.Is(err, dirs.ErrStale) {
				return true // gone since the snapshot
			}
			de.Ino = st.Ino
		}
		slot := out.AddDirLookupEntry(de)
		if slot == nil || e == nil || err != nil {
			return slot != nil
		}
		n, err := fs.enter(h.node, *e, &st)
		if err != nil {
			return true
		}
		fs.learn(n, s)
		if fs.answer(n, &st, s.closes, slot) != nil {
			*slot = fuse.EntryOut{}
		}
		return true
	}))
}

// lister adds one name to a reply; false says that the reply is full. e is nil for "." and "..", which the kernel never looks up.
type lister func(h *dirHandle, e *dirs.Entry, de fuse.DirEntry) bool

func (fs *FS) readDir(in *fuse.ReadIn, add lister) error {
	h, err := fs.dirHandle(in.Fh)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if in.Offset == 0 || !h.taken {
		if h.names, err = h.dir.Entries(); err != nil {
			return err
		}
		h.taken = true
	}
	// Offset i+1 stands behind the i-th name; "." and ".." are the first two.
	const dots = 2
	for i := in.Offset; i < uint64(len(h.names)+dots); i++ {
		de := fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: h.node.ino, Off: i + 1}
		var e *dirs.Entry
		switch {
		case i == 1:
			de.Name, de.Ino = "..", h.node.parentIno()
		case i >= dots:
			e = &h.names[i-dots]
			de.Name, de.Mode = e.Name, e.Type.Mode()
		}
		if !add(h, e, de) {
			break
		}
	}
	return nil
}

// parentIno is the inode number of "..".
func (n *inode) parentIno() uint64 {
	n.loc.RLock()
	defer n.loc.RUnlock()
	if len(n.links) > 0 {
		return n.links[0].parent.ino
	}
	return n.ino
}

// listedIno is the inode number of a listed name, 0 (which go-fuse replaces) where the host does not answer.
func (fs *FS) listedIno(h *dirHandle, e *dirs.Entry) (uint64, error) {
	fs.mu.RLock()
	n := fs.objects[e.ID]
	fs.mu.RUnlock()
	if n != nil {
		return n.ino, nil
	}
	var st unix.Stat_t
	err := h.dir.Stat(e.Name, e.ID, &st)
	return st.Ino, err
}

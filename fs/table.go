package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/internal/event"
)

// The node table. A node id is given once and never again. An inode stays while the kernel knows it (lookups) or something here needs it
// (holds: its children's links, open handles, calls under way), because RELEASE may be handled after the FORGET that
// followed it, and a child's link needs its parent's directory.

// enterRoot makes the root inode, which the kernel knows without a LOOKUP.
func (fs *FS) enterRoot(d *dirs.Dir) {
	n := &inode{node: fuse.FUSE_ROOT_ID, id: d.ID(), typ: typeDir, lookups: 1}
	n.dir.Store(d)
	var st unix.Stat_t
	if d.StatSelf(&st) == nil {
		n.ino = st.Ino
	}
	fs.root = n
	fs.lastNode = n.node
	fs.nodes[n.node] = n
	fs.objects[n.id] = n
}

// node returns the inode of a request. The kernel holds a lookup on it while the request is under way; only RELEASE and FORGET
// may come late, and those find the inode by its holds.
func (fs *FS) node(id uint64) (*inode, error) {
	n, err := fs.anyNode(id)
	if err == nil && n.refused {
		return nil, dirs.ErrDuplicate
	}
	return n, err
}

// anyNode is node, and answers refused inodes, too.
func (fs *FS) anyNode(id uint64) (*inode, error) {
	fs.mu.RLock()
	n := fs.nodes[id]
	fs.mu.RUnlock()
	if n == nil {
		return nil, errUnknownNode
	}
	return n, nil
}

// enter returns the inode of an object that was found under parent as e says, with one lookup more (which the kernel gives back
// with FORGET) and e among its links. st is the host's view of it.
func (fs *FS) enter(parent *inode, e dirs.Entry, st *unix.Stat_t) (*inode, error) {
	n, isNew, err := fs.enterNode(parent, e, st)
	if err != nil || isNew {
		return n, err
	}
	fs.addLink(n, parent, e)
	return n, nil
}

func (fs *FS) enterNode(parent *inode, e dirs.Entry, st *unix.Stat_t) (n *inode, isNew bool, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch n = fs.objects[e.ID]; {
	case n == nil:
		n = fs.newNodeLocked(e, st)
		fs.objects[n.id] = n
	case n.ino == st.Ino && n.typ == e.Type:
		n.lookups++
		return n, false, nil
	default:
		fs.cfg.Events.Emit(event.Event{Kind: event.Duplicate, Object: e.ID.String(), Offset: -1, Err: dirs.ErrDuplicate})
		if e.Type == typeDir {
			return nil, false, dirs.ErrDuplicate
		}
		n = fs.newNodeLocked(e, st)
		n.refused = true
	}
	n.links = []link{{parent, e}}
	n.metaDirty.Store(true) // an earlier life of the inode may have set them and been forgotten before an fsync
	parent.holds++
	return n, true, nil
}

// enterNameless makes the inode of a new file without a name.
func (fs *FS) enterNameless(e dirs.Entry, st *unix.Stat_t) *inode {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.newNodeLocked(e, st)
	fs.objects[n.id] = n
	return n
}

func (fs *FS) newNodeLocked(e dirs.Entry, st *unix.Stat_t) *inode {
	fs.lastNode++
	n := &inode{node: fs.lastNode, id: e.ID, typ: e.Type, ino: st.Ino, geometry: e.Geometry, linked: e.Type != typeDir && st.Nlink > 1, lookups: 1, found: e}
	fs.nodes[n.node] = n
	fs.pruneLocked()
	return n
}

// known returns the inode that a name carries if there is one, held: the caller gives it back with release. An inode of another host object under
// the same id does not count.
func (fs *FS) known(parent *inode, d *dirs.Dir, e dirs.Entry) *inode {
	fs.mu.Lock()
	n := fs.objects[e.ID]
	if n != nil {
		n.holds++
	}
	fs.mu.Unlock()
	if n == nil {
		return nil
	}
	n.loc.RLock()
	named := n.linkAt(parent, e.Name) >= 0
	n.loc.RUnlock()
	var st unix.Stat_t
	if !named && d.Stat(e.Name, e.ID, &st) == nil && st.Ino != n.ino {
		fs.release(n)
		return nil
	}
	return n
}

func (fs *FS) hold(n *inode) {
	fs.mu.Lock()
	n.holds++
	fs.mu.Unlock()
}

// release gives up one hold; the last one of an inode that the kernel has forgotten ends it.
func (fs *FS) release(n *inode) { fs.drop(n, 0, 1) }

// Forget gives back lookups. It answers nothing, so what goes wrong on the way is an event.
func (fs *FS) Forget(nodeid, nlookup uint64) {
	if nodeid == fuse.FUSE_ROOT_ID {
		return
	}
	if n, err := fs.anyNode(nodeid); err == nil {
		fs.drop(n, nlookup, 0)
	}
}

func (fs *FS) drop(n *inode, lookups uint64, holds int) {
	fs.mu.Lock()
	n.lookups -= min(lookups, n.lookups)
	n.holds -= holds
	gone := n.lookups == 0 && n.holds == 0 && fs.nodes[n.node] == n
	if gone {
		delete(fs.nodes, n.node)
		if !n.refused {
			delete(fs.objects, n.id)
		}
	}
	fs.mu.Unlock()
	if !gone {
		return
	}
	// Nobody can reach n any more: its links are read without a lock. A long chain of forgotten parents ends here one by one.
	fs.failed(n, fs.discardLeft(n), "closing a forgotten file failed")
	for _, l := range n.links {
		fs.release(l.parent)
	}
	for _, p := range n.left {
		fs.release(p)
	}
}

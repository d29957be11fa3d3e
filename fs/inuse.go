package fs

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/cofferfs/coffer/container/keys"
)

// maxDepth bounds the way from a file to the root: a rename under way may show a link twice, but no way is longer.
const maxDepth = 1 << 16

// OpenFile is a file that programs hold open. Path is plain, see Failure.
type OpenFile struct {
	Path    string
	Handles int
	Writers int
}

// OpenFiles lists the files that are open, sorted by path, and counts open directories. It locks one inode after the other and asks neither
// the host nor the kernel.
func (fs *FS) OpenFiles() (files []OpenFile, dirs int) {
	fs.mu.RLock()
	nodes := make([]*inode, 0, len(fs.nodes))
	for _, n := range fs.nodes {
		if n.typ == typeFile {
			nodes = append(nodes, n)
		}
	}
	fs.mu.RUnlock()
	for _, n := range nodes {
		n.mu.Lock()
		handles := n.opens
		n.mu.Unlock()
		if handles > 0 {
			files = append(files, OpenFile{Path: fs.path(n), Handles: handles, Writers: int(n.writers.Load())})
		}
	}
	slices.SortFunc(files, func(a, b OpenFile) int { return strings.Compare(a.Path, b.Path) })
	fs.handleMu.Lock()
	defer fs.handleMu.Unlock()
	return files, len(fs.handles)
}

// InUse reports whether a file or directory is open.
func (fs *FS) InUse() bool {
	files, dirs := fs.OpenFiles()
	return len(files)+dirs > 0
}

// PathOf returns the plain path of an object by what event.Event.Object says of it, "" where the kernel does not know it now.
func (fs *FS) PathOf(object string) string {
	var id keys.ObjectID
	b, err := hex.DecodeString(object)
	if err != nil || len(b) != len(id) {
		return "" // the host name of something that has no id
	}
	copy(id[:], b)
	fs.mu.RLock()
	n := fs.objects[id]
	fs.mu.RUnlock()
	if n == nil {
		return ""
	}
	return fs.path(n)
}

// pathBelow returns the plain path of a name in a directory, of the node itself where name is empty, "" where the node is gone.
func (fs *FS) pathBelow(node uint64, name string) string {
	n, err := fs.node(node)
	if err != nil {
		return ""
	}
	path := fs.path(n)
	switch {
	case name == "":
		return path
	case path == "/":
		return "/" + name
	}
	return path + "/" + name
}

// path returns a plain path of n from the root of the mount, by one of its names. What lost its last name is "(deleted)".
func (fs *FS) path(n *inode) string {
	var names []string
	for range maxDepth {
		if n == fs.root {
			slices.Reverse(names)
			return "/" + strings.Join(names, "/")
		}
		n.loc.RLock()
		if len(n.links) == 0 {
			n.loc.RUnlock()
			break
		}
		l := n.links[0]
		n.loc.RUnlock()
		names = append(names, l.entry.Name)
		n = l.parent
	}
	return "(deleted)"
}

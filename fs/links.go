package fs

import "slices"

// manyLinks is how many links of an object are looked through one by one; of more there is an index.
const manyLinks = 16

// linkKey names a link.
type linkKey struct {
	parent *inode
	name   string
}

// linkAt returns the index of a link, -1 if there is none. The caller holds loc.
func (n *inode) linkAt(parent *inode, name string) int {
	if n.linkIndex != nil {
		if i, ok := n.linkIndex[linkKey{parent, name}]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(n.links, func(l link) bool { return l.parent == parent && l.entry.Name == name })
}

// appendLink adds one that is not there. The caller holds loc exclusively.
func (n *inode) appendLink(l link) {
	n.links = append(n.links, l)
	switch {
	case n.linkIndex != nil:
		n.linkIndex[linkKey{l.parent, l.entry.Name}] = len(n.links) - 1
	case len(n.links) > manyLinks:
		n.linkIndex = make(map[linkKey]int, 2*manyLinks)
		for i, l := range n.links {
			n.linkIndex[linkKey{l.parent, l.entry.Name}] = i
		}
	}
}

// deleteLink takes the i-th out. Where there are many the last one takes its place. The caller holds loc exclusively.
func (n *inode) deleteLink(i int) {
	if n.linkIndex == nil {
		n.links = slices.Delete(n.links, i, i+1)
		return
	}
	last := len(n.links) - 1
	delete(n.linkIndex, linkKey{n.links[i].parent, n.links[i].entry.Name})
	if i < last {
		n.links[i] = n.links[last]
		n.linkIndex[linkKey{n.links[i].parent, n.links[i].entry.Name}] = i
	}
	n.links[last] = link{}
	if n.links = n.links[:last]; last <= manyLinks/2 {
		n.linkIndex = nil
	}
}

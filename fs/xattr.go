package fs

import (
	"errors"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// Extended attributes are sealed by container/xattrs and kept on the host object. The kernel has checked who may do what: permissions for user
// attributes, capabilities for trusted and security ones.

// spaces are the name spaces that are kept.
func spaces() []string { return []string{"user.", "trusted.", "security."} }

// checkAttr refuses what is no attribute of ours.
func checkAttr(attr string) error {
	if err := xattrs.CheckName(attr); err != nil {
		return err
	}
	for _, s := range spaces() {
		if rest, ok := strings.CutPrefix(attr, s); ok {
			if rest == "" {
				return unix.EINVAL
			}
			return nil
		}
	}
	return unix.EOPNOTSUPP
}

// xattrs calls fn with the attributes of n on the host.
func (n *inode) xattrs(change bool, fn func(x disk.Xattrs) error) error {
	return n.host(func(a attrs) error { return a.Xattrs(change, fn) })
}

// fit copies a value or list into a reply; without one the caller wants its length.
func fit(dest, value []byte) (uint32, error) {
	if len(dest) > 0 && len(value) > len(dest) {
		return 0, unix.ERANGE
	}
	copy(dest, value)
	return uint32(len(value)), nil
}

// GetXAttr answers a value, or its length where dest is empty.
func (fs *FS) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	value, err := fs.getAttr(in.NodeId, attr)
	var n uint32
	if err == nil {
		n, err = fit(dest, value)
	}
	return n, fs.status("getxattr", err)
}

func (fs *FS) getAttr(node uint64, attr string) (value []byte, err error) {
	n, err := fs.node(node)
	if err != nil {
		return nil, err
	}
	if is, ok := isACL(attr); ok {
		return fs.getACL(n, attr, is)
	}
	if err := checkAttr(attr); err != nil {
		return nil, err
	}
	h, err := fs.heldBy(n)
	switch {
	case err != nil:
		return nil, err
	case fs.noAttrs:
		return nil, unix.EOPNOTSUPP
	case h&heldSealed == 0, attr == capability && h&heldCaps == 0:
		return nil, lacks(attr)
	}
	err = n.xattrs(false, func(x disk.Xattrs) error {
		value, err = fs.cfg.Attrs.Get(x, n.object(), attr)
		return err
	})
	if errors.Is(err, unix.ENODATA) {
		err = lacks(attr)
	}
	return value, err
}

// lacks is what an object answers that has no such attribute. Of labels it says that there are none here, which is nearly always so: ls -l then asks for that of
// one file of a mount, and else of each. A label that is set is answered all the same.
func lacks(attr string) error {
	if attr == label {
		return unix.EOPNOTSUPP
	}
	return unix.ENODATA
}

// SetXAttr sets a value; in.Flags are XATTR_CREATE and XATTR_REPLACE.
func (fs *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, value []byte) fuse.Status {
	return fs.status("setxattr", fs.setAttrValue(in, attr, value))
}

func (fs *FS) setAttrValue(in *fuse.SetXAttrIn, attr string, value []byte) error {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return err
	}
	if _, ok := isACL(attr); ok {
		return fs.setACL(n, attr, value, in)
	}
	if err := checkAttr(attr); err != nil {
		return err
	}
	n.xattrMu.Lock()
	defer n.xattrMu.Unlock()
	fs.metaChanged(n)
	err = n.xattrs(true, func(x disk.Xattrs) error {
		return fs.cfg.Attrs.Set(x, n.object(), attr, value, int(in.Flags))
	})
	if err != nil {
		return err
	}
	set := heldSealed
	if attr == capability {
		set |= heldCaps
	}
	n.changeHeld(set, 0)
	return nil
}

// RemoveXAttr removes an attribute.
func (fs *FS) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string) fuse.Status {
	return fs.status("removexattr", fs.removeXAttr(in.NodeId, attr))
}

func (fs *FS) removeXAttr(node uint64, attr string) error {
	n, err := fs.node(node)
	if err != nil {
		return err
	}
	if _, ok := isACL(attr); ok {
		return fs.setACL(n, attr, nil, nil)
	}
	if err := checkAttr(attr); err != nil {
		return err
	}
	return fs.removeAttr(n, attr)
}

func (fs *FS) removeAttr(n *inode, attr string) error {
	n.xattrMu.Lock()
	defer n.xattrMu.Unlock()
	fs.metaChanged(n)
	err := n.xattrs(true, func(x disk.Xattrs) error { return fs.cfg.Attrs.Remove(x, n.object(), attr) })
	if attr == capability && (err == nil || errors.Is(err, unix.ENODATA)) {
		n.changeHeld(0, heldCaps)
	}
	return err
}

// ListXAttr answers the names, each ended by NUL, or their length where dest is empty.
func (fs *FS) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	list, err := fs.listAttrs(in)
	var n uint32
	if err == nil {
		n, err = fit(dest, list)
	}
	return n, fs.status("listxattr", err)
}

// listAttrs lists all that opens; the rest is reported. Trusted attributes are for root to see, as on other file systems.
func (fs *FS) listAttrs(in *fuse.InHeader) (list []byte, err error) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return nil, err
	}
	h, err := fs.heldBy(n)
	if err != nil || h&(heldSealed|heldACL|heldDefaultACL) == 0 {
		return nil, err
	}
	err = n.xattrs(false, func(x disk.Xattrs) error {
		list = nil
		hosts, err := xattrs.HostList(x, n.object())
		if err != nil {
			return err
		}
		for _, host := range hosts {
			name, err := fs.listed(x, n, host)
			if err != nil {
				return err
			}
			if name != "" && (in.Uid == 0 || !strings.HasPrefix(name, "trusted.")) {
				list = append(append(list, name...), 0)
			}
		}
		return nil
	})
	return list, err
}

// listed returns the plain name of a host attribute, "" where it has none.
func (fs *FS) listed(x disk.Xattrs, n *inode, host string) (string, error) {
	if _, ok := isACL(host); ok && fs.checkACL(n) == nil {
		return host, nil
	}
	if !xattrs.IsSealed(n.object(), host) {
		return "", nil
	}
	name, err := fs.cfg.Attrs.Plain(x, n.object(), host)
	switch {
	case errors.Is(err, unix.ENODATA): // removed since
		return "", nil
	case err != nil && damage(err):
		fs.damaged(n.id, err, "an extended attribute is not listed")
		return "", nil
	}
	return name, err
}

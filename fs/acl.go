package fs

import (
	"encoding/binary"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// With Config.ACL the host's own POSIX ACLs are shown and set. The kernel obeys them (FUSE_POSIX_ACL, which go-fuse calls EnableAcl). Defaults are handed
// down by the host when an object is made, so it must get the mode as the application gave it: the kernel leaves the umask to us (FUSE_DONT_MASK),
// and it counts only where the directory has no default ACL.

// isACL reports whether attr is one of the two ACLs, and which of held says that there is one.
func isACL(attr string) (held, bool) {
	switch attr {
	case aclAccess:
		return heldACL, true
	case aclDefault:
		return heldDefaultACL, true
	}
	return 0, false
}

// masked applies the umask to the mode of a new object, unless the kernel has or a default ACL takes its place.
func (fs *FS) masked(parent *inode, mode, umask uint32) (uint32, error) {
	if !fs.cfg.ACL {
		return mode, nil
	}
	h, err := fs.heldBy(parent)
	if err == nil && h&heldDefaultACL == 0 {
		mode &^= umask & 0o777
	}
	return mode, err
}

// checkACL answers EOPNOTSUPP where n can have no ACL.
func (fs *FS) checkACL(n *inode) error {
	if !fs.cfg.ACL || fs.noAttrs || n.typ == typeSymlink {
		return unix.EOPNOTSUPP
	}
	return nil
}

func (fs *FS) getACL(n *inode, attr string, is held) ([]byte, error) {
	if err := fs.checkACL(n); err != nil {
		return nil, err
	}
	h, err := fs.heldBy(n)
	if err != nil {
		return nil, err
	}
	if h&is == 0 {
		return nil, unix.ENODATA
	}
	acl := make([]byte, maxACL)
	err = n.xattrs(false, func(x disk.Xattrs) error {
		size, err := x.Getxattr(attr, acl)
		acl = acl[:size]
		return err
	})
	if err != nil || is != heldACL {
		return acl, err
	}
	mode, err := fs.sealedMode(n)
	if p := ownerOf(acl); err == nil && p != nil && h&heldMode != 0 {
		binary.LittleEndian.PutUint16(p, uint16(mode>>6&7))
	}
	return acl, err
}

// setACL sets an ACL, or removes it where acl is nil. An access ACL brings the permission bits with it.
func (fs *FS) setACL(n *inode, attr string, acl []byte, in *fuse.SetXAttrIn) error {
	if err := fs.checkACL(n); err != nil {
		return err
	}
	n.xattrMu.Lock()
	defer n.xattrMu.Unlock()
	h, err := fs.heldLocked(n)
	if err != nil {
		return err
	}
	fs.metaChanged(n)
	if acl == nil {
		err = n.xattrs(true, func(x disk.Xattrs) error { return x.Removexattr(attr) })
		n.held.Store(0)
		return err
	}
	sealed, err := fs.sealedMode(n)
	if err != nil {
		return err
	}
	acl, owner := append([]byte(nil), acl...), uint32(0)
	seals := attr == aclAccess && (!fs.asRoot || h&(heldMode|heldBadMode) != 0)
	if p := ownerOf(acl); seals && p != nil {
		owner = uint32(binary.LittleEndian.Uint16(p))
		binary.LittleEndian.PutUint16(p, uint16(owner|n.needed()>>6))
	}
	err = n.xattrs(true, func(x disk.Xattrs) error { return x.Setxattr(attr, acl, int(in.Flags)) })
	n.held.Store(0) // an ACL that says no more than the mode is not kept
	n.privFree.Store(false)
	n.owner.Store(nil)
	if err != nil || attr != aclAccess {
		return err
	}
	var st unix.Stat_t
	if err := n.stat(&st); err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	if seals {
		mode = mode&^0o700 | owner<<6&0o700 | sealed&(suid|sgid)
	}
	if in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
		mode &^= sgid
	}
	if mode != st.Mode&0o7777 || h&(heldMode|heldBadMode) != 0 { // what is sealed is of before, and could count with the new host mode
		return fs.chmodLocked(n, mode)
	}
	return nil
}

// An ACL as the kernel passes it, little-endian: u32 version, then entries of u16 tag, u16 permissions, u32 id.
const (
	aclHead  = 4
	aclEntry = 8
	aclOwner = 1       // tag of the owner
	maxACL   = 1 << 16 // of any attribute
)

// ownerOf returns where the owner's permissions are in an ACL, nil where there are none.
func ownerOf(acl []byte) []byte {
	for i := aclHead; i+aclEntry <= len(acl); i += aclEntry {
		if binary.LittleEndian.Uint16(acl[i:]) == aclOwner {
			return acl[i+2 : i+4]
		}
	}
	return nil
}

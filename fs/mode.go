package fs

import (
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/internal/disk"
)

// A daemon that is not root must be able to read and write what its user made read-only: flushes, listings and cleaning up go on. Where the plain
// mode would not let it, the host's mode has the owner's bits added and the plain one is sealed in an attribute (FORMAT.md 8.7); and so it is with set-id
// bits, which the host would take away at the next flush. Root needs that for nothing, but keeps it up where it finds it, so that the vault stays
// usable for its user.

// needed are the owner's bits that a daemon which is not root cannot do without.
func (n *inode) needed() uint32 { return dirs.NeededMode(n.typ) }

// showMode puts the plain permission bits in place of the host's. A sealed mode whose host bits are others than it was sealed with does not
// count: somebody changed them since. One that does not open lets nobody in.
func (fs *FS) showMode(n *inode, st *unix.Stat_t) error {
	if n.needed() == 0 {
		return nil
	}
	h, err := fs.heldBy(n)
	if err != nil {
		return err
	}
	plain := uint32(h >> modeAt)
	switch {
	case h&heldBadMode != 0:
		st.Mode &^= 0o7777
	case h&heldMode != 0 && st.Mode&0o7777 == dirs.HostMode(n.typ, plain):
		st.Mode = st.Mode&^0o7777 | plain
	}
	return nil
}

// sealedMode returns the plain mode of n where that is sealed, else 0.
func (fs *FS) sealedMode(n *inode) (mode uint32, err error) {
	h, err := fs.heldBy(n)
	if err != nil || h&heldMode == 0 {
		return 0, err
	}
	var st unix.Stat_t
	if err := n.stat(&st); err != nil {
		return 0, err
	}
	err = fs.showMode(n, &st)
	return st.Mode, err
}

// chmod sets the plain permission bits of n. A host without attributes keeps the owner's bits that we need.
func (fs *FS) chmod(n *inode, mode uint32) error {
	n.xattrMu.Lock()
	defer n.xattrMu.Unlock()
	return fs.chmodLocked(n, mode)
}

// chmodLocked is chmod under xattrMu.
func (fs *FS) chmodLocked(n *inode, mode uint32) error {
	mode &= 0o7777
	h, err := fs.heldLocked(n)
	if err != nil {
		return err
	}
	host := mode
	switch {
	case h&(heldMode|heldBadMode) != 0, !fs.asRoot && !fs.noAttrs:
		host = dirs.HostMode(n.typ, mode)
	case !fs.asRoot:
		host |= n.needed()
	}
	fs.metaChanged(n)
	err = n.host(func(a attrs) error {
		if err := fs.sealMode(n, a, h, mode, host); err != nil {
			return err
		}
		return a.Chmod(host)
	})
	n.owner.Store(nil)
	n.privFree.Store(false)
	switch {
	case err != nil:
		n.held.Store(0) // ask the host what came of it
	case host != mode && !fs.noAttrs:
		n.changeHeld(heldMode|held(mode)<<modeAt, heldBadMode|held(0o7777)<<modeAt)
	default:
		n.changeHeld(0, heldMode|heldBadMode|held(0o7777)<<modeAt)
	}
	return err
}

// sealMode makes the attribute what the host's mode will need. It goes first: while the host's bits are still others, it does not count.
func (fs *FS) sealMode(n *inode, a attrs, h held, mode, host uint32) error {
	if fs.noAttrs || host == mode && h&(heldMode|heldBadMode) == 0 {
		return nil
	}
	return a.Xattrs(true, func(x disk.Xattrs) error {
		if host == mode {
			return fs.cfg.Attrs.DropMode(x, n.object())
		}
		return fs.cfg.Attrs.SetMode(x, n.object(), mode)
	})
}

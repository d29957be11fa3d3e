package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// With HANDLE_KILLPRIV_V2 the kernel leaves it to us to clear suid and sgid: on WRITE with WRITE_KILL_SUIDGID, on OPEN and CREATE with
// OPEN_KILL_SUIDGID, on SETATTR with FATTR_KILL_SUIDGID (truncate, and chown by anyone of what is no directory). A daemon that is root
// keeps CAP_FSETID, so the host would not do it for us. File capabilities go with every write, truncate and chown, root's included.

const (
	suid     = unix.S_ISUID
	sgid     = unix.S_ISGID
	groupRun = unix.S_IXGRP
)

// killed returns mode without what a write takes away: suid always, sgid where the group may execute (else it is no privilege).
func killed(mode uint32) uint32 {
	mode &^= suid
	if mode&groupRun != 0 {
		mode &^= sgid
	}
	return mode
}

// killPriv clears the suid and sgid bits of n on the host. It asks the host once and remembers that there is nothing to clear.
func (fs *FS) killPriv(n *inode) error {
	if n.privFree.Load() || n.typ == typeDir {
		return nil
	}
	var st unix.Stat_t
	if err := n.stat(&st); err != nil {
		return err
	}
	if err := fs.showMode(n, &st); err != nil {
		return err
	}
	mode := killed(st.Mode)
	if mode != st.Mode {
		if err := fs.chmod(n, mode); err != nil {
			return err
		}
		// The kernel goes on with the mode that it knows, also where it runs the file: it is to ask again. This takes no lock there.
		if s := fs.server.Load(); s != nil {
			s.InodeNotify(n.node, -1, 0)
		}
	}
	n.privFree.Store(mode&(suid|sgid) == 0)
	return nil
}

// killCaps takes the file capabilities from n, whoever the caller is. The kernel does that itself where it may ask for attributes and the
// request is one that it makes of several; all others are left to us.
func (fs *FS) killCaps(n *inode) error {
	if n.typ == typeDir {
		return nil
	}
	h, err := fs.heldBy(n)
	if err != nil || h&heldCaps == 0 {
		return err
	}
	if err = fs.removeAttr(n, capability); errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// dirOwner is what new objects take from their directory.
type dirOwner struct{ mode, gid uint32 }

// ownership returns owner and mode of a new object. A setgid directory gives its group, and the bit to directories in it. A
// daemon that is not root cannot give files away: -1 leaves the host's choice, which follows the same rule.
func (fs *FS) ownership(parent *inode, c *fuse.Caller, mode, umask uint32) (uid, gid int, _ uint32, err error) {
	if mode, err = fs.masked(parent, mode, umask); err != nil {
		return 0, 0, 0, err
	}
	if !fs.asRoot {
		return -1, -1, mode, nil
	}
	o := parent.owner.Load()
	if o == nil {
		var st unix.Stat_t
		if err := parent.stat(&st); err != nil {
			return 0, 0, 0, err
		}
		o = &dirOwner{st.Mode, st.Gid}
		parent.owner.Store(o)
	}
	if o.mode&sgid == 0 {
		return int(c.Uid), int(c.Gid), mode, nil
	}
	if mode&unix.S_IFMT == unix.S_IFDIR {
		mode |= sgid
	}
	return int(c.Uid), int(o.gid), mode, nil
}

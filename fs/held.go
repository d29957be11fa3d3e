package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// held is what an inode remembers of the extended attributes that its object has on the host. A vault has one writer, so it stays so until we
// change it. The kernel probes security.capability of every file that is written, ls and cp probe more, and nearly always the answer is
// that there is none: one list of the host's attributes answers all of that, and whether the mode is sealed.
type held uint32

const (
	heldKnown      held = 1 << iota // the host was asked
	heldSealed                      // sealed attributes
	heldCaps                        // file capabilities among them
	heldACL                         // an access ACL
	heldDefaultACL                  // a default ACL
	heldMode                        // a sealed mode, in the bits from modeAt on
	heldBadMode                     // a sealed mode that does not open

	modeAt = 16
)

const (
	capability = "security.capability"
	label      = "security.selinux"
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// has reports whether n is known to hold one of what.
func (n *inode) has(what held) bool { return held(n.held.Load())&what != 0 }

// object is n as its attributes are sealed.
func (n *inode) object() xattrs.Object {
	return objectOf(dirs.Entry{ID: n.id, Type: n.typ, Geometry: n.geometry})
}

func objectOf(e dirs.Entry) xattrs.Object {
	return xattrs.Object{ID: e.ID, Trusted: e.Type != typeDir && e.Geometry == 0}
}

// heldBy returns what n holds, asking the host the first time.
func (fs *FS) heldBy(n *inode) (held, error) {
	if h := held(n.held.Load()); h&heldKnown != 0 || fs.noAttrs {
		return h, nil
	}
	n.xattrMu.Lock()
	defer n.xattrMu.Unlock()
	return fs.heldLocked(n)
}

// heldLocked is heldBy under xattrMu.
func (fs *FS) heldLocked(n *inode) (h held, err error) {
	if h = held(n.held.Load()); h&heldKnown != 0 || fs.noAttrs {
		return h, nil
	}
	err = n.host(func(a attrs) error {
		return a.Xattrs(false, func(x disk.Xattrs) error {
			h, err = fs.readHeld(x, n.object())
			return err
		})
	})
	if err == nil {
		n.held.Store(uint32(h))
	}
	return h, err
}

func (fs *FS) readHeld(x disk.Xattrs, o xattrs.Object) (held, error) {
	names, err := xattrs.HostList(x, o)
	if err != nil {
		return 0, err
	}
	h, caps := heldKnown, ""
	for _, host := range names {
		switch {
		case host == aclAccess:
			h |= heldACL
		case host == aclDefault:
			h |= heldDefaultACL
		case host == o.ModeName():
			m, err := fs.readMode(x, o)
			if err != nil {
				return 0, err
			}
			h |= m
		case xattrs.IsSealed(o, host):
			if caps == "" {
				caps = fs.cfg.Attrs.HostName(o, capability)
			}
			if h |= heldSealed; host == caps {
				h |= heldCaps
			}
		}
	}
	return h, nil
}

// readMode reads a sealed mode. One that does not open is damage that must not keep anyone from listing or removing the object.
func (fs *FS) readMode(x disk.Xattrs, o xattrs.Object) (held, error) {
	mode, set, err := fs.cfg.Attrs.Mode(x, o)
	switch {
	case err != nil && damage(err):
		fs.damaged(o.ID, err, "the mode is unknown")
		return heldBadMode, nil
	case err != nil || !set:
		return 0, err
	}
	return heldMode | held(mode)<<modeAt, nil
}

// sight is what look found an object to hold, 0 where it did not ask, and when that was.
type sight struct {
	held   held
	seen   uint64 // FS.attrChanges before
	closes uint64 // inode.closes before, 0 where it was not known
}

// look fills st with what the host says of an object, as dirs.Dir.Stat does. Of one that is not known yet it learns along with that what it holds.
func (fs *FS) look(d *dirs.Dir, e dirs.Entry, st *unix.Stat_t) (s sight, err error) {
	fs.mu.RLock()
	n := fs.objects[e.ID]
	fs.mu.RUnlock()
	if n != nil {
		n.mu.Lock()
		s.closes = n.closes
		n.mu.Unlock()
	}
	if fs.noAttrs || n != nil && n.has(heldKnown) || dirs.NeededMode(e.Type) == 0 {
		return s, d.Stat(e.Name, e.ID, st)
	}
	s.seen = fs.attrChanges.Load()
	err = d.Look(e.Name, e.ID, st, func(x disk.Xattrs) {
		if h, err := fs.readHeld(x, objectOf(e)); err == nil { // an error comes again when it matters
			s.held = h
		}
	})
	return s, err
}

// learn notes what look found n to hold, unless attributes were changed since.
func (fs *FS) learn(n *inode, s sight) {
	if s.held == 0 || n.has(heldKnown) {
		return
	}
	n.xattrMu.Lock()
	defer n.xattrMu.Unlock()
	if fs.attrChanges.Load() == s.seen {
		n.held.CompareAndSwap(0, uint32(s.held))
	}
}

// changeHeld sets and clears bits after the host was changed. The caller holds xattrMu.
func (n *inode) changeHeld(set, clear held) {
	if h := held(n.held.Load()); h&heldKnown != 0 {
		n.held.Store(uint32(h&^clear | set))
	}
}

// fresh is what an object holds that was just made in parent with a mode, 0 where only the host can tell.
func (fs *FS) fresh(parent *inode, typ names.Type, mode uint32) held {
	mode &= 0o7777
	switch {
	case fs.cfg.ACL && !parent.has(heldKnown), parent.has(heldDefaultACL): // it may have inherited
		return 0
	case fs.asRoot || dirs.HostMode(typ, mode) == mode:
		return heldKnown
	case fs.noAttrs:
		return 0
	}
	return heldKnown | heldMode | held(mode)<<modeAt
}

// hasAttrs reports whether the host of a vault has extended attributes. An error other than that it has none comes again when it matters.
func hasAttrs(root *dirs.Dir) bool {
	err := root.XattrsSelf(false, func(x disk.Xattrs) error {
		_, err := x.Getxattr(xattrs.Object{}.ModeName(), nil)
		return err
	})
	return !errors.Is(err, unix.EOPNOTSUPP)
}

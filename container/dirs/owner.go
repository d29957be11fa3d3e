package dirs

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// want is what a new host object is to be.
type want struct {
	id       keys.ObjectID
	typ      names.Type
	mode     uint32
	uid, gid int
}

// attributes is what setAttributes needs of a new host object: a disk.File has it, and so has a name.
type attributes interface {
	Stat(st *unix.Stat_t) error
	Chmod(mode uint32) error
	Chown(uid, gid int) error
	disk.Xattrs
}

type named struct {
	fd   disk.Dir
	host string
	disk.Xattrs
}

func (n named) Stat(st *unix.Stat_t) error { return n.fd.Stat(n.host, st) }
func (n named) Chmod(mode uint32) error    { return n.fd.Chmod(n.host, mode) }
func (n named) Chown(uid, gid int) error   { return n.fd.Chown(n.host, uid, gid) }

// hostMode is the mode that the host object has to have for a plain one.
func (d *Dir) hostMode(w want, mode uint32) uint32 {
	if d.t.cfg.Seal == nil {
		return mode
	}
	return HostMode(w.typ, mode)
}

// HostMode is the mode of a host object whose plain one may be sealed (FORMAT.md 8.7): with the bits that the owner needs, and without the set-id bits of a
// file, which the host takes away when a process writes that is not root's.
func HostMode(typ names.Type, plain uint32) uint32 {
	if typ == names.File {
		plain &^= unix.S_ISUID | unix.S_ISGID
	}
	return plain | NeededMode(typ)
}

// NeededMode are the owner's bits without which a process that is not root cannot work with a host object.
func NeededMode(typ names.Type) uint32 {
	switch typ {
	case names.File:
		return 0o600
	case names.Dir:
		return 0o700
	}
	return 0
}

// firstMode is the mode that an object is made with. Where a default ACL may cut it, what it needs besides is added afterwards.
func (d *Dir) firstMode(w want) uint32 {
	if d.t.cfg.ACL {
		return w.mode & 0o7777
	}
	return d.hostMode(w, w.mode&0o7777)
}

// setAttributes gives a new host object mode and owner where the host made something else of them, by the umask, a default ACL that does not count,
// or a setgid directory, and seals a mode that the host object cannot have.
func (d *Dir) setAttributes(a attributes, w want) error {
	var st unix.Stat_t
	if err := setOwner(a, &st, w.uid, w.gid); err != nil {
		return err
	}
	plain := w.mode & 0o7777
	if d.t.cfg.ACL && w.typ != names.Symlink {
		plain = plain&^0o777 | st.Mode&0o777
	}
	host := d.hostMode(w, plain)
	if st.Mode&0o7777 != host { // before what follows: a user attribute needs the owner's w
		if err := a.Chmod(host); err != nil {
			return madeError{err}
		}
	}
	if host == plain {
		return nil
	}
	err := d.t.cfg.Seal.SetMode(a, xattrs.Object{ID: w.id}, plain)
	if errors.Is(err, unix.EOPNOTSUPP) { // a host without attributes shows the bits that were added
		err = nil
		if host = plain | NeededMode(w.typ); st.Mode&0o7777 != host {
			err = a.Chmod(host)
		}
	}
	return undoOn(err)
}

// setOwner makes sure of the owner, and fills st, times excepted.
func setOwner(a attributes, st *unix.Stat_t, uid, gid int) error {
	if err := disk.StatTimeless(a, st); err != nil {
		return madeError{err}
	}
	if (uid == -1 || uint32(uid) == st.Uid) && (gid == -1 || uint32(gid) == st.Gid) {
		return nil
	}
	if err := a.Chown(uid, gid); err != nil {
		return madeError{err}
	}
	return undoOn(disk.StatTimeless(a, st)) // chown(2) clears set-id bits, of some objects
}

func (d *Dir) createFile(fd disk.Dir, host string, w want) (f disk.File, err error) {
	err = disk.As(w.uid, w.gid, func() error {
		f, err = fd.Create(host, d.firstMode(w))
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := d.setAttributes(f, w); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

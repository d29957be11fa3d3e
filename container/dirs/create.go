package dirs

import (
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"golang.org/x/sys/unix"
)

// Creations draw an object id and a link sequence, make the host object under its owner's identity and with its final mode, and only then enter the
// name; one that fails half-way leaves nothing behind. uid and gid of -1 leave what the host gave. All answer EEXIST, ENAMETOOLONG,
// EROFS, and ENOENT in a removed directory. The caller syncs the directory.

// CreateFile creates a file and answers its host file, which is empty and the caller's. The name has flag NoHeader.
func (d *Dir) CreateFile(name string, mode uint32, uid, gid int) (f disk.File, e Entry, err error) {
	return d.CreateContainer(name, names.File, d.t.cfg.Geometry, mode, uid, gid)
}

// Mkdir creates a directory.
func (d *Dir) Mkdir(name string, mode uint32, uid, gid int) (Entry, error) {
	return d.create(name, link{typ: names.Dir}, func(fd disk.Dir, host string, id keys.ObjectID) error {
		w := want{id, names.Dir, mode, uid, gid}
		if err := disk.As(uid, gid, func() error { return fd.Mkdir(host, d.firstMode(w)) }); err != nil {
			return err
		}
		return d.setAttributes(named{fd, host, fd.Xattrs(host)}, w)
	})
}

// Mknod creates a FIFO, socket or device; mode has the type's S_IFMT bits. EINVAL for other types: files have containers.
func (d *Dir) Mknod(name string, mode uint32, dev uint64, uid, gid int) (Entry, error) {
	typ := names.TypeOfMode(mode)
	switch typ {
	case names.FIFO, names.Socket, names.CharDev, names.BlockDev:
	default:
		return Entry{}, unix.EINVAL
	}
	return d.create(name, link{typ: typ}, func(fd disk.Dir, host string, id keys.ObjectID) error {
		if err := disk.As(uid, gid, func() error { return fd.Mknod(host, mode, dev) }); err != nil {
			return err
		}
		return d.setAttributes(named{fd, host, fd.Xattrs(host)}, want{id, typ, mode, uid, gid})
	})
}

// Symlink creates a symlink to the plain target. Beyond names.MaxTarget bytes it answers ErrTargetTooLong, and
// SymlinkContainer is to be used.
func (d *Dir) Symlink(name, target string, uid, gid int) (Entry, error) {
	if len(target) > names.MaxTarget {
		return Entry{}, ErrTargetTooLong
	}
	return d.create(name, link{typ: names.Symlink}, func(fd disk.Dir, host string, id keys.ObjectID) error {
		sealed := d.t.cfg.Codec.SealTarget(id, target)
		if err := disk.As(uid, gid, func() error { return fd.Symlink(sealed, host) }); err != nil {
			return err
		}
		return setOwner(named{fd, host, fd.Xattrs(host)}, new(unix.Stat_t), uid, gid)
	})
}

// SymlinkContainer creates a symlink whose target is the content of a container. fill writes the container before the name
// shows, and closes f in any case. An error of fill is wrapped and answered, and the symlink not made.
func (d *Dir) SymlinkContainer(name string, uid, gid int, fill func(f disk.File, id keys.ObjectID) error) (Entry, error) {
	n := link{typ: names.Symlink, geometry: d.t.cfg.Geometry, flags: names.NoHeader | names.ContainerSymlink}
	return d.create(name, n, func(fd disk.Dir, host string, id keys.ObjectID) error {
		f, err := d.createFile(fd, host, want{id, names.Symlink, 0o600, uid, gid})
		if err != nil {
			return err
		}
		return undoOn(fill(f, id))
	})
}

// madeError wraps an error that came when the host object existed already, so that it is to be removed again.
type madeError struct{ error }

func undoOn(err error) error {
	if err == nil {
		return nil
	}
	return madeError{err}
}

// create makes a new object called name by host and enters it.
func (d *Dir) create(name string, n link, host func(fd disk.Dir, host string, id keys.ObjectID) error) (Entry, error) {
	n.id = keys.RandomObjectID()
	if err := d.lockFor(name); err != nil {
		return Entry{}, err
	}
	defer d.mu.Unlock()
	err := d.vacant(name)
	if err != nil {
		return Entry{}, err
	}
	fd, err := d.open()
	if err != nil {
		return Entry{}, err
	}
	defer d.unpin()
	err = d.introduce(fd, name, &n, func(hostName string) error { return host(fd, hostName, n.id) })
	if err != nil {
		return Entry{}, err
	}
	d.enter(name, n)
	return n.entry(name), nil
}

// Link makes name in d another name of the object id that srcName carries in src; ErrStale where it does not. hasHeader: the
// container's header is durable, so the new name says nothing else. EPERM for a directory.
func (d *Dir) Link(name string, src *Dir, srcName string, id keys.ObjectID, hasHeader bool) (Entry, error) {
	if err := d.admit(name); err != nil {
		return Entry{}, err
	}
	unlock, err := lockAll(d, src)
	if err != nil {
		return Entry{}, err
	}
	defer unlock()
	n, ok := src.links[srcName]
	if !ok || n.id != id {
		return Entry{}, ErrStale
	}
	if err := d.vacant(name); err != nil {
		return Entry{}, err
	}
	if n.typ == names.Dir { // after EEXIST, as Linux has it
		return Entry{}, unix.EPERM
	}
	from, err := src.open()
	if err != nil {
		return Entry{}, err
	}
	defer src.unpin()
	fd, err := d.open()
	if err != nil {
		return Entry{}, err
	}
	defer d.unpin()
	srcHost := src.hostName(srcName, n)
	if hasHeader {
		n.flags &^= names.NoHeader
	}
	err = d.introduce(fd, name, &n, func(host string) error {
		err := from.Link(srcHost, fd, host)
		if errors.Is(err, unix.ENOENT) {
			return src.hostError(err, srcHost)
		}
		return err
	})
	if err != nil {
		return Entry{}, err
	}
	d.enter(name, n)
	return n.entry(name), nil
}

// admit checks what needs no lock.
func (d *Dir) admit(name string) error {
	if d.t.cfg.ReadOnly {
		return unix.EROFS
	}
	return checkName(name)
}

// lockFor admits a change of name and takes mu for it.
func (d *Dir) lockFor(name string) error {
	if err := d.admit(name); err != nil {
		return err
	}
	return d.lock()
}

// vacant checks that name may be made in d, whose mu is held.
func (d *Dir) vacant(name string) error {
	if d.gone.Load() {
		return unix.ENOENT
	}
	if _, taken := d.links[name]; taken {
		return unix.EEXIST
	}
	return nil
}

// introduce draws n's sequence, puts the sidecar in place and has make create the host name. Nothing is left of it on an error.
func (d *Dir) introduce(fd disk.Dir, name string, n *link, make func(host string) error) error {
	host, sidecar, err := d.draw(name, n)
	if err != nil {
		return err
	}
	if err := d.putSidecar(fd, host, sidecar); err != nil {
		return err
	}
	if err = make(host); err == nil {
		return nil
	}
	var made madeError
	if errors.As(err, &made) {
		err = made.error
		d.discard(fd, host, n.typ)
	}
	d.dropSidecar(fd, host, sidecar != nil)
	return d.refused(err)
}

// draw gives n a new sequence and seals it.
func (d *Dir) draw(name string, n *link) (host string, sidecar []byte, err error) {
	if n.flags&names.NoHeader != 0 && n.seq != 0 && d.t.cfg.CleanSeq != nil && d.t.cfg.CleanSeq(n.seq) {
		n.flags &^= names.NoHeader // by its new sequence the file would count as made in this session
	}
	if n.seq, err = d.t.cfg.NextSeq(); err != nil {
		return "", nil, err
	}
	host, sidecar = d.seal(name, *n)
	if host == "" { // a geometry that does not exist, say
		return "", nil, fmt.Errorf("dirs: directory %s: %w", d.id, names.ErrBadName)
	}
	return host, sidecar, nil
}

// refused puts the directory to the host's refusal of a new name. Unlike hostError it lets the errno through: a host that answers
// ENOENT here has removed the directory, which hostError's caller may not see.
func (d *Dir) refused(err error) error {
	if errors.Is(err, ErrName) {
		return err
	}
	if errors.Is(err, unix.EEXIST) { // a name with this sequence was never issued
		return fmt.Errorf("dirs: directory %s: %w: %v", d.id, ErrName, err)
	}
	return fmt.Errorf("dirs: directory %s: %w", d.id, err)
}

// enter puts name into the map, whose mu is held for writing.
func (d *Dir) enter(name string, n link) {
	d.links[name] = n
	d.t.links.Add(1)
	d.t.trim(d)
}

// leave takes name out of the map.
func (d *Dir) leave(name string) {
	delete(d.links, name)
	d.t.links.Add(-1)
}

// putSidecar makes the sidecar durable, file and name, so that no crash leaves a long name without.
func (d *Dir) putSidecar(fd disk.Dir, host string, content []byte) error {
	if content == nil {
		return nil
	}
	name := names.SidecarName(host)
	f, err := fd.Create(name, 0o600)
	if err != nil {
		return d.refused(err)
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fd.Sync()
	}
	if err != nil {
		d.dropSidecar(fd, host, true)
		return d.refused(err)
	}
	return nil
}

// dropSidecar removes the sidecar of a long name. An orphan does no harm, so a failure is only reported.
func (d *Dir) dropSidecar(fd disk.Dir, host string, long bool) {
	if !long {
		return
	}
	name := names.SidecarName(host)
	if err := fd.Unlink(name); err != nil && !errors.Is(err, unix.ENOENT) {
		d.failed(name, err, "remove a sidecar")
	}
}

// discard removes a host object that nobody has seen.
func (d *Dir) discard(fd disk.Dir, host string, typ names.Type) {
	remove := fd.Unlink
	if typ == names.Dir {
		remove = fd.Rmdir
	}
	if err := remove(host); err != nil {
		d.stays(host, typ, err)
	}
}

// Undo removes a file that CreateFile made and that could not be used. What goes wrong is an event.
func (d *Dir) Undo(e Entry) {
	if err := d.lock(); err != nil {
		d.stays("", e.Type, err)
		return
	}
	defer d.mu.Unlock()
	n, ok := d.links[e.Name]
	if !ok || n.id != e.ID {
		return // somebody else has changed the name meanwhile
	}
	fd, err := d.open()
	if err != nil {
		d.stays(d.hostName(e.Name, n), n.typ, err)
		return
	}
	defer d.unpin()
	if err := d.unlinkHost(fd, e.Name, n); err != nil {
		d.stays(d.hostName(e.Name, n), n.typ, err)
		return
	}
	d.leave(e.Name)
}

// stays reports that something half made could not be removed, which Tree.Close answers where it may lack a header.
func (d *Dir) stays(host string, typ names.Type, err error) {
	d.failed(host, err, "remove what was half made")
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	if d.t.left == nil && (typ == names.File || typ == names.Symlink) {
		d.t.left = fmt.Errorf("dirs: directory %s: remove what was half made: %w", d.id, err)
	}
}

// failed reports a host call that failed without changing the answer to the caller.
func (d *Dir) failed(host string, err error, note string) {
	err = fmt.Errorf("dirs: directory %s: %w", d.id, err)
	d.t.cfg.Events.Emit(event.Event{Kind: event.Failed, Object: host, Offset: -1, Err: err, Note: note})
}

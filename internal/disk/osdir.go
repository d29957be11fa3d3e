package disk

import (
	"encoding/binary"
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// osDir is a Dir of the host kernel.
type osDir struct {
	h     handle
	flags int // added where a file or directory is opened
}

func newOSDir(fd int, on *served) *osDir { return &osDir{h: handle{fd: fd, on: on}} }

// at runs f with the descriptor; name is checked and becomes the Path of the error.
func (d *osDir) at(op, name string, f func(fd int) error) error {
	if err := component(name); err != nil {
		return wrap(op, name, err)
	}
	return d.self(op, name, f)
}

func (d *osDir) self(op, name string, f func(fd int) error) error {
	fd, err := d.h.use()
	if err == nil {
		err = retry(func() error { return f(fd) })
		d.h.done()
	}
	return wrap(op, name, err)
}

// change is at with what changes names in the directory.
func (d *osDir) change(op, name string, f func(fd int) error) error {
	return d.at(op, name, func(fd int) error { return d.h.changed(f(fd)) })
}

// changeSelf is self with what changes the directory's own attributes.
func (d *osDir) changeSelf(op string, f func(fd int) error) error {
	return d.self(op, "", func(fd int) error { return d.h.changed(f(fd)) })
}

// between runs f, which changes names, with this descriptor and that of dst. A Dir of another implementation is another filesystem.
func (d *osDir) between(op, name string, dst Dir, dstName string, f func(from, to int) error) error {
	to, ok := dst.(*osDir)
	if !ok {
		return wrap(op, name, syscall.EXDEV)
	}
	if err := component(dstName); err != nil {
		return wrap(op, dstName, err)
	}
	tofd, err := to.h.use()
	if err != nil {
		return wrap(op, dstName, err)
	}
	defer to.h.done()
	return d.change(op, name, func(fd int) error { return to.h.changed(f(fd, tofd)) })
}

func (d *osDir) Open(name string, a Access) (File, error) {
	flags := unix.O_RDWR
	if a == ReadOnly {
		flags = unix.O_RDONLY
	}
	f, err := d.openRegular(name, flags)
	if err != nil {
		return nil, err // not a nil *osFile
	}
	return f, nil
}

// OpenDirect works only on filesystems of diskType, which do what both flags together ask for.
func (d *osDir) OpenDirect(name string) (Direct, error) {
	f, err := d.openRegular(name, unix.O_WRONLY|unix.O_DIRECT|unix.O_DSYNC)
	if err != nil {
		return nil, err
	}
	magic, err := diskType(f.h.fd)
	if err == nil {
		return &osDirect{osFile: f, magic: magic}, nil
	}
	_ = f.h.close()
	return nil, wrap("open", name, err)
}

func (d *osDir) openRegular(name string, flags int) (*osFile, error) {
	f, err := d.open(name, flags|openFlags|d.flags, 0)
	switch err {
	case nil:
	case unix.EISDIR, unix.ENXIO, unix.ENODEV: // a directory; a socket or a FIFO nobody reads; a device without a driver
		return nil, wrap("open", name, ErrNotRegular)
	default:
		return nil, wrap("open", name, err)
	}
	var st unix.Stat_t
	if err = retry(func() error { return unix.Fstat(f.h.fd, &st) }); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err != nil {
		_ = f.h.close()
		return nil, wrap("open", name, err)
	}
	return f, nil
}

func (d *osDir) Create(name string, mode uint32) (File, error) {
	f, err := d.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|openFlags|d.flags, mode)
	if err != nil {
		return nil, wrap("create", name, err)
	}
	return f, nil
}

func (d *osDir) Tmpfile(mode uint32) (File, error) {
	var nfd int
	err := d.self("create", "", func(fd int) (err error) {
		nfd, err = openat(fd, ".", unix.O_RDWR|unix.O_TMPFILE|openFlags|d.flags, mode)
		if err == unix.EISDIR { // kernels before 3.11 take the flag for O_DIRECTORY
			err = unix.EOPNOTSUPP
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &osFile{h: handle{fd: nfd, on: d.h.on}}, nil
}

func (d *osDir) LinkFile(f File, name string) error {
	of, ok := f.(*osFile)
	if !ok {
		return wrap("link", name, syscall.EXDEV)
	}
	from, err := of.h.use()
	if err != nil {
		return wrap("link", name, err)
	}
	defer of.h.done()
	return d.change("link", name, func(fd int) error {
		err := unix.Linkat(from, "", fd, name, unix.AT_EMPTY_PATH)
		if err == unix.ENOENT { // kernels before 6.10 want CAP_DAC_READ_SEARCH for that; the way through /proc is free to all
			err = unix.Linkat(unix.AT_FDCWD, procLink(from), fd, name, unix.AT_SYMLINK_FOLLOW)
		}
		return err
	})
}

func (d *osDir) OpenPath(name string) (File, error) {
	f, err := d.open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("open", name, err)
	}
	f.pathOnly = true
	return f, nil
}

func (d *osDir) OpenDir(name string) (Dir, error) {
	f, err := d.open(name, dirFlags|d.flags, 0)
	if err != nil {
		return nil, wrap("open", name, err)
	}
	sub := newOSDir(f.h.fd, d.h.on)
	sub.flags = d.flags
	return sub, nil
}

// open answers bare errors.
func (d *osDir) open(name string, flags int, mode uint32) (*osFile, error) {
	if err := component(name); err != nil {
		return nil, err
	}
	fd, err := d.h.use()
	if err != nil {
		return nil, err
	}
	defer d.h.done()
	nfd, err := openat(fd, name, flags, mode)
	if err != nil {
		return nil, err
	}
	f := &osFile{h: handle{fd: nfd, on: d.h.on}}
	if flags&unix.O_CREAT != 0 {
		d.h.change()
		f.h.change()
	}
	return f, nil
}

func (d *osDir) Stat(name string, st *unix.Stat_t) error {
	return d.at("stat", name, func(fd int) error { return unix.Fstatat(fd, name, st, unix.AT_SYMLINK_NOFOLLOW) })
}

func (d *osDir) BirthTime(name string) (ns int64, err error) {
	err = d.at("statx", name, func(fd int) (err error) { ns, err = birthTimeAt(fd, name); return err })
	return ns, err
}

func (d *osDir) Mkdir(name string, mode uint32) error {
	return d.change("mkdir", name, func(fd int) error { return unix.Mkdirat(fd, name, mode) })
}

func (d *osDir) Mknod(name string, mode uint32, dev uint64) error {
	return d.change("mknod", name, func(fd int) error { return unix.Mknodat(fd, name, mode, int(dev)) })
}

func (d *osDir) Symlink(target, name string) error {
	return d.change("symlink", name, func(fd int) error { return unix.Symlinkat(target, fd, name) })
}

func (d *osDir) Readlink(name string) (string, error) {
	var buf [unix.PathMax]byte
	var n int
	err := d.at("readlink", name, func(fd int) (err error) {
		n, err = unix.Readlinkat(fd, name, buf[:])
		if err == nil && n == len(buf) { // cut: the host stores longer targets than Linux lets one make
			err = syscall.ENAMETOOLONG
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (d *osDir) Link(name string, dst Dir, dstName string) error {
	return d.between("link", name, dst, dstName, func(from, to int) error {
		return unix.Linkat(from, name, to, dstName, 0)
	})
}

func (d *osDir) Rename(name string, dst Dir, dstName string, flags uint) error {
	return d.between("rename", name, dst, dstName, func(from, to int) error {
		return unix.Renameat2(from, name, to, dstName, flags)
	})
}

func (d *osDir) Unlink(name string) error {
	return d.change("unlink", name, func(fd int) error { return unix.Unlinkat(fd, name, 0) })
}

func (d *osDir) Rmdir(name string) error {
	return d.change("rmdir", name, func(fd int) error { return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) })
}

func (d *osDir) Chmod(name string, mode uint32) error {
	return d.at("chmod", name, func(fd int) error { return d.h.changedAt(fd, name, chmodAt(fd, name, mode)) })
}

func (d *osDir) Chown(name string, uid, gid int) error {
	return d.at("chown", name, func(fd int) error { return d.h.changedAt(fd, name, chownAt(fd, name, uid, gid)) })
}

func (d *osDir) Utimes(name string, ts *[2]unix.Timespec) error {
	return d.at("utimes", name, func(fd int) error { return d.h.changedAt(fd, name, utimesAt(fd, name, ts)) })
}

func (d *osDir) StatSelf(st *unix.Stat_t) error {
	return d.self("stat", "", func(fd int) error { return unix.Fstat(fd, st) })
}

func (d *osDir) BirthTimeSelf() (ns int64, err error) {
	err = d.self("statx", "", func(fd int) (err error) { ns, err = birthTimeAt(fd, ""); return err })
	return ns, err
}

func (d *osDir) ChmodSelf(mode uint32) error {
	return d.changeSelf("chmod", func(fd int) error { return unix.Fchmod(fd, mode) })
}

func (d *osDir) ChownSelf(uid, gid int) error {
	return d.changeSelf("chown", func(fd int) error { return unix.Fchown(fd, uid, gid) })
}

func (d *osDir) UtimesSelf(ts *[2]unix.Timespec) error {
	return d.changeSelf("utimes", func(fd int) error { return utimesAt(fd, "", ts) })
}

func (d *osDir) Statfs(st *unix.Statfs_t) error {
	return d.self("statfs", "", func(fd int) error { return unix.Fstatfs(fd, st) })
}

func (d *osDir) Sync() error {
	err := d.self("fsync", "", d.h.fsync)
	if errors.Is(err, unix.EINVAL) {
		return nil // CIFS and some FUSE hosts cannot sync a directory: their names are as durable as they get
	}
	return err
}

func (d *osDir) SyncAll() error {
	if d.h.on != nil {
		if err := d.h.on.sync(); err != nil {
			return wrap("fsync", "", err)
		}
	}
	return d.self("syncfs", "", unix.Syncfs)
}

func (d *osDir) Close() error { return wrap("close", "", d.h.close()) }

// dirBuffers holds List's buffers. 64 KiB take about 500 sealed names per call.
var dirBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// List reads on a descriptor of its own, because a directory's offset belongs to the open descriptor: two Lists on one would
// each see half of the names. fn may call any method of d.
func (d *osDir) List(fn func(name string, ino uint64, typ uint8) error) error {
	fd, err := d.h.use()
	if err != nil {
		return wrap("list", "", err)
	}
	dup, err := openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|d.flags, 0)
	d.h.done()
	if err != nil {
		return wrap("list", "", err)
	}
	defer unix.Close(dup)
	buf := dirBuffers.Get().(*[64 << 10]byte)
	defer dirBuffers.Put(buf)
	for {
		n, err := unix.Getdents(dup, buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOENT || err == nil && n == 0: // ENOENT: the directory was removed; it is empty
			return nil
		case err != nil:
			return wrap("list", "", err)
		}
		if err := eachDirent(buf[:n], fn); err != nil {
			return err
		}
	}
}

// eachDirent walks what getdents64(2) wrote:
//
//	 0  8  inode number
//	 8  8  offset of the next one in the directory
//	16  2  length of this structure
//	18  1  type
//	19  …  name, NUL, padding
func eachDirent(b []byte, fn func(name string, ino uint64, typ uint8) error) error {
	const header = 19
	for len(b) > 0 {
		if len(b) < header {
			return wrap("list", "", syscall.EIO)
		}
		n := int(binary.NativeEndian.Uint16(b[16:]))
		if n < header || n > len(b) {
			return wrap("list", "", syscall.EIO)
		}
		name := b[header:n]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if s := string(name); s != "." && s != ".." {
			if err := fn(s, binary.NativeEndian.Uint64(b), b[18]); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return nil
}

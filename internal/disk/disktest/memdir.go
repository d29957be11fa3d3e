package disktest

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

type memDir struct{ *node }

// find makes a call about what a name is.
func (d *memDir) find(op, name string, fn func(i *inode) error) error {
	return d.do(op, name, func() error {
		i, err := d.m.s.find(d.ino, name)
		if err != nil {
			return err
		}
		return fn(i)
	})
}

// try makes a change that may be refused. What is refused changes nothing and is no operation.
func (d *memDir) try(fn func(s *state, now int64) error) error {
	now := d.m.clock()
	err := fn(d.m.s, now)
	if err == nil {
		d.m.note(func(s *state) { _ = fn(s, now) })
	}
	return err
}

func (d *memDir) open(op, name string, check func(i *inode) error) (*node, error) {
	var n *node
	err := d.find(op, name, func(i *inode) error {
		if err := check(i); err != nil {
			return err
		}
		n = d.m.handle(i.ino, name)
		return nil
	})
	return n, err
}

func (d *memDir) Open(name string, a disk.Access) (disk.File, error) {
	n, err := d.openRegular(name)
	if err != nil {
		return nil, err
	}
	n.readOnly = bool(a)
	return &memFile{n}, nil
}

func (d *memDir) OpenDirect(name string) (disk.Direct, error) {
	n, err := d.openRegular(name)
	if err != nil {
		return nil, err
	}
	return &memDirect{memFile: memFile{n}}, nil
}

func (d *memDir) openRegular(name string) (*node, error) {
	return d.open("open", name, func(i *inode) error {
		switch {
		case i.is(unix.S_IFLNK):
			return syscall.ELOOP
		case i.data == nil:
			return disk.ErrNotRegular
		}
		return nil
	})
}

func (d *memDir) OpenDir(name string) (disk.Dir, error) {
	n, err := d.open("open", name, func(i *inode) error {
		if i.names == nil {
			return syscall.ENOTDIR
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &memDir{n}, nil
}

func (d *memDir) OpenPath(name string) (disk.File, error) {
	n, err := d.open("open", name, func(*inode) error { return nil })
	if err != nil {
		return nil, err
	}
	n.pathOnly = true
	return &memFile{n}, nil
}

func (d *memDir) make(op, name string, mode uint32, rdev uint64, target string) (n *node, err error) {
	err = d.do(op, name, func() error {
		uid, gid := caller()
		err := d.try(func(s *state, now int64) error { return s.create(d.ino, name, mode, rdev, target, uid, gid, now) })
		if err == nil {
			n = d.m.handle(d.inode().names[name], name)
		}
		return err
	})
	return n, err
}

// made is make for objects that nobody opens.
func (d *memDir) made(op, name string, mode uint32, rdev uint64, target string) error {
	n, err := d.make(op, name, mode, rdev, target)
	if err != nil {
		return err
	}
	return n.Close()
}

func (d *memDir) Create(name string, mode uint32) (disk.File, error) {
	n, err := d.make("create", name, unix.S_IFREG|mode&0o7777, 0, "")
	if err != nil {
		return nil, err
	}
	return &memFile{n}, nil
}

func (d *memDir) Mkdir(name string, mode uint32) error {
	return d.made("mkdir", name, unix.S_IFDIR|mode&0o7777, 0, "")
}

func (d *memDir) Mknod(name string, mode uint32, dev uint64) error {
	switch mode & unix.S_IFMT {
	case 0:
		mode |= unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
	default:
		return wrap("mknod", name, syscall.EINVAL)
	}
	return d.made("mknod", name, mode, dev, "")
}

func (d *memDir) Symlink(target, name string) error {
	return d.made("symlink", name, unix.S_IFLNK|0o777, 0, target)
}

func (d *memDir) Readlink(name string) (target string, err error) {
	err = d.find("readlink", name, func(i *inode) error {
		if !i.is(unix.S_IFLNK) {
			return syscall.EINVAL
		}
		target = i.target
		return nil
	})
	return target, err
}

// between makes a call about two directories of this disk.
func (d *memDir) between(op, name string, dst disk.Dir, dstName string, fn func(to *memDir) error) error {
	to, ok := dst.(*memDir)
	if !ok || to.m != d.m {
		return wrap(op, name, syscall.EXDEV)
	}
	if err := component(dstName); err != nil {
		return wrap(op, dstName, err)
	}
	return d.do(op, name, func() error {
		if to.closed {
			return syscall.EBADF
		}
		return fn(to)
	})
}

func (d *memDir) Link(name string, dst disk.Dir, dstName string) error {
	return d.between("link", name, dst, dstName, func(to *memDir) error {
		return d.try(func(s *state, now int64) error { return s.link(d.ino, name, to.ino, dstName, now) })
	})
}

func (d *memDir) Rename(name string, dst disk.Dir, dstName string, flags uint) error {
	return d.between("rename", name, dst, dstName, func(to *memDir) error {
		replaced := to.inode().names[dstName]
		err := d.try(func(s *state, now int64) error { return s.rename(d.ino, name, to.ino, dstName, flags, now) })
		if err == nil && replaced != 0 {
			d.m.unnamed(replaced)
		}
		return err
	})
}

func (d *memDir) remove(op, name string, wantDir bool) error {
	return d.do(op, name, func() error {
		ino := d.inode().names[name]
		err := d.try(func(s *state, now int64) error { return s.remove(d.ino, name, wantDir, now) })
		if err == nil {
			d.m.unnamed(ino)
		}
		return err
	})
}

func (d *memDir) Unlink(name string) error { return d.remove("unlink", name, false) }

func (d *memDir) Rmdir(name string) error { return d.remove("rmdir", name, true) }

func (d *memDir) Stat(name string, st *unix.Stat_t) error {
	return d.find("stat", name, func(i *inode) error { i.stat(st); return nil })
}

func (d *memDir) Chmod(name string, mode uint32) error {
	return d.find("chmod", name, func(i *inode) error { return d.m.chmod(i, mode) })
}

func (d *memDir) Chown(name string, uid, gid int) error {
	return d.find("chown", name, func(i *inode) error { return d.m.chown(i, uid, gid) })
}

func (d *memDir) Utimes(name string, ts *[2]unix.Timespec) error {
	return d.find("utimes", name, func(i *inode) error { return d.m.utimes(i, ts) })
}

func (d *memDir) List(fn func(name string, ino uint64, typ uint8) error) error {
	var all []listed
	err := d.do("list", "", func() error { all = d.m.s.list(d.ino); return nil })
	if err != nil {
		return err
	}
	for _, x := range all {
		if err := fn(x.name, x.ino, x.typ); err != nil {
			return err
		}
	}
	return nil
}

func (d *memDir) StatSelf(st *unix.Stat_t) error {
	return d.do("stat", "", func() error { d.inode().stat(st); return nil })
}

func (d *memDir) ChmodSelf(mode uint32) error {
	return d.do("chmod", "", func() error { return d.m.chmod(d.inode(), mode) })
}

func (d *memDir) ChownSelf(uid, gid int) error {
	return d.do("chown", "", func() error { return d.m.chown(d.inode(), uid, gid) })
}

func (d *memDir) UtimesSelf(ts *[2]unix.Timespec) error {
	return d.do("utimes", "", func() error { return d.m.utimes(d.inode(), ts) })
}

func (d *memDir) Statfs(st *unix.Statfs_t) error {
	return d.do("statfs", "", func() error { d.m.statfs(st); return nil })
}

func (d *memDir) Sync() error {
	return d.do("fsync", "", func() error {
		d.m.apply(func(s *state) { s.syncDir(d.ino) })
		return nil
	})
}

func (d *memDir) SyncAll() error {
	return d.do("syncfs", "", func() error {
		d.m.apply((*state).syncAll)
		return nil
	})
}

func (d *memDir) BirthTime(name string) (ns int64, err error) {
	err = d.find("statx", name, func(i *inode) error { ns = i.birth; return nil })
	return ns, err
}

func (d *memDir) BirthTimeSelf() (ns int64, err error) {
	err = d.do("statx", "", func() error { ns = d.inode().birth; return nil })
	return ns, err
}

func (d *memDir) Tmpfile(mode uint32) (disk.File, error) {
	var n *node
	err := d.do("tmpfile", "", func() error {
		uid, gid := caller()
		err := d.try(func(s *state, now int64) error { return s.tmpfile(d.ino, unix.S_IFREG|mode&0o7777, uid, gid, now) })
		if err == nil {
			n = d.m.handle(d.m.s.last, "")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &memFile{n}, nil
}

func (d *memDir) LinkFile(f disk.File, name string) error {
	of, ok := f.(*memFile)
	if !ok || of.m != d.m {
		return wrap("linkat", name, syscall.EXDEV)
	}
	return d.do("linkat", name, func() error {
		return d.try(func(s *state, now int64) error { return s.linkInode(of.ino, d.ino, name, now) })
	})
}

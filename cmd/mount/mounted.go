package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// mounted is a node of a mount, which shows the plain tree as a part of the host's. It holds nothing.
type mounted struct {
	path string
	name string // "" of the root
}

func (m mounted) Name() string { return m.name }
func (m mounted) Release()     {}

func (m mounted) Stat() (plain.Stat, error) {
	var st unix.Stat_t
	if err := unix.Lstat(m.path, &st); err != nil {
		return plain.Stat{}, err
	}
	return statOf(&st), nil
}

func statOf(st *unix.Stat_t) plain.Stat {
	return plain.Stat{
		Mode: st.Mode, Size: st.Size, Blocks: st.Blocks, UID: st.Uid, GID: st.Gid, Nlink: uint64(st.Nlink), Rdev: st.Rdev, Object: fmt.Sprintf("%x.%x", st.Dev, st.Ino),
		Atime: st.Atim, Mtime: st.Mtim, Ctime: st.Ctim,
	}
}

func (m mounted) Child(name string) (plain.Node, error) {
	if name == "." {
		return m, nil
	}
	if strings.Contains(name, "/") || name == ".." {
		return nil, unix.ENOENT
	}
	c := mounted{path: filepath.Join(m.path, name), name: name}
	_, err := c.Stat()
	return c, err
}

func (m mounted) Children() ([]plain.Node, error) {
	entries, err := os.ReadDir(m.path)
	if err != nil {
		return nil, err
	}
	all := make([]plain.Node, len(entries))
	for i, e := range entries {
		all[i] = mounted{path: filepath.Join(m.path, e.Name()), name: e.Name()}
	}
	return all, nil
}

func (m mounted) Readlink() (string, error) { return os.Readlink(m.path) }

// Sync makes the object durable, with its name: the fsync of a file or directory in a mount does both; of others that of their directory does.
func (m mounted) Sync() error {
	st, err := m.Stat()
	if err != nil {
		return err
	}
	path := m.path
	if typ := st.Type(); typ != unix.S_IFREG && typ != unix.S_IFDIR {
		path = filepath.Dir(path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (m mounted) Open() (plain.File, error) {
	fd, err := unix.Open(m.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: m.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), m.path)
	st, err := f.Stat()
	switch {
	case err == nil && st.IsDir():
		err = unix.EISDIR
	case err == nil && !st.Mode().IsRegular():
		err = unix.EINVAL
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return mountedFile{f, st.Size()}, nil
}

// Xattrs reads those that the kernel lets this user see.
func (m mounted) Xattrs(prefix string) (map[string][]byte, error) {
	all := map[string][]byte{}
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(m.path, list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return all, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: m.path, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" || !strings.HasPrefix(name, prefix) {
			continue
		}
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(m.path, name, value)
		if err != nil {
			return nil, &fs.PathError{Op: "getxattr", Path: m.path, Err: err}
		}
		all[name] = value[:n]
	}
	return all, nil
}

// mountedFile is an open file of a mount.
type mountedFile struct {
	*os.File
	size int64 // when it was opened
}

func (f mountedFile) Size() int64 { return f.size }

func (f mountedFile) NextData(off int64) (int64, bool, error) {
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return off, false, nil
	}
	return at, err == nil, err
}

func (f mountedFile) NextHole(off, limit int64) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE)
	return min(at, limit), err
}

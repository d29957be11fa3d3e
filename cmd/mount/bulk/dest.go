package bulk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// destDir is an open directory at the destination. It is held by the walk and by each thing under way in it; the last one to let go finishes it.
type destDir struct {
	fd     int
	path   string // for messages, and to make hard links from
	refs   atomic.Int32
	parent *destDir
	finish func() error           // sets the attributes; nil: those of a directory that was there stay
	ended  func(d *destDir) error // makes its names durable
	failed func(path string, err error)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// openDest opens a directory that exists.
func openDest(path string, ended func(*destDir) error, failed func(string, error)) (*destDir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	d := &destDir{fd: fd, path: path, ended: ended, failed: failed}
	d.refs.Store(1)
	return d, nil
}

// sub makes a directory, or opens the one that is there.
func (d *destDir) sub(name string) (*destDir, error) {
	path := filepath.Join(d.path, name)
	// Only its owner can enter it until it is finished.
	if err := unix.Mkdirat(d.fd, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, pathError("mkdir", path, err)
	}
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err == nil && st.Mode&0o700 != 0o700 {
		_ = unix.Fchmod(fd, st.Mode&0o7777|0o700) // until it is finished; what it was for fails otherwise, and says so
	}
	s := &destDir{fd: fd, path: path, parent: d, ended: d.ended, failed: d.failed}
	s.refs.Store(1)
	d.refs.Add(1)
	return s, nil
}

// release lets go of d; the last one makes its names durable and finishes it, before its parent.
func (d *destDir) release() {
	for d != nil && d.refs.Add(-1) == 0 {
		var err error
		if d.finish != nil {
			err = d.finish()
		}
		if err == nil {
			err = d.ended(d)
		}
		if err != nil {
			d.failed(d.path, err)
		}
		_ = unix.Close(d.fd) // nothing is written through it
		d = d.parent
	}
}

// stat answers ok false where there is nothing.
func (d *destDir) stat(name string) (st unix.Stat_t, ok bool, err error) {
	err = unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return st, false, nil
	}
	return st, err == nil, pathError("stat", filepath.Join(d.path, name), err)
}

// tempName is what something is called before it has its final name: always the same, so that what a killed process left is found and replaced.
func tempName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf(".coffer-export-%x", sum[:10])
}

// place makes something under a name of its own and then gives it its final one, in place of what is there.
func (d *destDir) place(name string, make func(temp string) error) error {
	temp := tempName(name)
	err := make(temp)
	if errors.Is(err, unix.EEXIST) { // a leftover
		if err = unix.Unlinkat(d.fd, temp, 0); err == nil {
			err = make(temp)
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Renameat(d.fd, temp, d.fd, name); err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the rename's error says more
		return pathError("rename", filepath.Join(d.path, name), err)
	}
	// Where both were names of one file already, rename leaves them as they are.
	if err := unix.Unlinkat(d.fd, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return pathError("unlink", filepath.Join(d.path, temp), err)
	}
	return nil
}

// tempFile is a file on its way. On hosts that can it has no name, so that a killed process leaves none behind.
type tempFile struct {
	*os.File
	dir  *destDir
	name string // "" where it has none
}

func (d *destDir) create(final string) (*tempFile, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return &tempFile{os.NewFile(uintptr(fd), d.path), d, ""}, nil
	}
	name := tempName(final) + ".part"
	_ = unix.Unlinkat(d.fd, name, 0) // a leftover; where there is none, that is as well
	if fd, err = unix.Openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600); err != nil {
		return nil, pathError("create", filepath.Join(d.path, name), err)
	}
	return &tempFile{os.NewFile(uintptr(fd), filepath.Join(d.path, name)), d, name}, nil
}

// publish gives the file, which is durable, its final name.
func (t *tempFile) publish(name string) error {
	link := func(name string) error {
		proc := fmt.Sprintf("/proc/self/fd/%d", t.Fd())
		return pathError("link", filepath.Join(t.dir.path, name), unix.Linkat(unix.AT_FDCWD, proc, t.dir.fd, name, unix.AT_SYMLINK_FOLLOW))
	}
	if t.name == "" {
		if err := link(name); !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return t.dir.place(name, func(temp string) error {
		if t.name != "" {
			err := unix.Renameat(t.dir.fd, t.name, t.dir.fd, temp)
			if err == nil {
				t.name = ""
			}
			return pathError("rename", t.Name(), err)
		}
		return link(temp)
	})
}

// discard closes the file; without a final name it is gone.
func (t *tempFile) discard() {
	if t.name != "" {
		_ = unix.Unlinkat(t.dir.fd, t.name, 0) // nothing is lost by a leftover
	}
	_ = t.Close() // what counts was synced
}

// attributes are set on an open file or directory.
type attributes struct {
	stat   plain.Stat
	xattrs map[string][]byte
	now    bool // the times stay those of now
}

func attributesOf(n plain.Node, st plain.Stat) (a attributes, err error) {
	a.stat = st
	a.xattrs, err = n.Xattrs("user.")
	return a, err
}

// apply sets owner (where permitted), user attributes (where the host has any, and while the mode lets us), mode and times, in this order: each would change
// one before it.
func (a *attributes) apply(fd int, path string) error {
	s := &a.stat
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, int(s.UID), int(s.GID)); err != nil {
			return pathError("chown", path, err)
		}
	}
	if len(a.xattrs) > 0 {
		if err := unix.Fchmod(fd, s.Mode&0o7777|0o600); err != nil {
			return pathError("chmod", path, err)
		}
	}
	for name, value := range a.xattrs {
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return pathError("setxattr", path, err)
		}
	}
	if err := unix.Fchmod(fd, s.Mode&0o7777); err != nil {
		return pathError("chmod", path, err)
	}
	if a.now {
		return nil
	}
	proc := fmt.Sprintf("/proc/self/fd/%d", fd)
	return pathError("utimes", path, unix.UtimesNanoAt(unix.AT_FDCWD, proc, []unix.Timespec{s.Atime, s.Mtime}, 0))
}

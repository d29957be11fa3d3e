package disk

import (
	"errors"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that something else than a regular file stands where one was to be opened.
var ErrNotRegular = errors.New("not a regular file")

// IsFull reports whether err says that the host, or a quota there, has no room left.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// openFlags go with every open. O_NONBLOCK keeps a FIFO without a peer or a device from blocking the open; it has no
// effect on regular files. O_NOCTTY keeps a terminal put in a file's place from becoming ours.
const openFlags = unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | openFlags

// OpenRoot opens the directory at path on the host. Only here links are followed: the path is the user's own word.
func OpenRoot(path string) (Dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("open", path, err)
	}
	return newOSDir(fd, servedBy(fd)), nil
}

// OpenReadOnly is OpenRoot for whoever writes nothing. Root gets a private mount of the directory, read-only and without access times, so that the
// kernel refuses with EROFS whatever would change the host; it also keeps a filesystem in use that is unmounted meanwhile. Elsewhere files and
// directories are opened with O_NOATIME where they are the caller's own, and only reading a symlink may set its atime.
func OpenReadOnly(path string) (Dir, error) {
	if fd, err := privateMount(path); err == nil {
		return newOSDir(fd, nil), nil
	}
	return OpenNoAtime(path) // not root, or a kernel before 5.12: any other reason shows again
}

// OpenNoAtime is OpenRoot with O_NOATIME for all that is opened below, as far as it is the caller's own.
func OpenNoAtime(path string) (Dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if err != nil {
		return nil, wrap("open", path, err)
	}
	d := newOSDir(fd, servedBy(fd))
	d.flags = unix.O_NOATIME
	return d, nil
}

// privateMount opens a directory on a mount of its own, which nobody else sees and which goes with the last descriptor on it.
func privateMount(path string) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, err
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return -1, err
	}
	return openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// handle is a descriptor that is closed when Close was called and no call uses it any more. Without the count a call that
// runs beside Close could act on a descriptor that was meanwhile given to another file.
type handle struct {
	fd    int
	state atomic.Int64 // number of running calls; closedBit once Close was called
	// direct is one more than a second descriptor, which ReadPast and WritePast go by: 0 while there is none, noDirect where there is to be none.
	direct atomic.Int64
	on     *served // nil where syncfs is enough; what follows is for the others

	changes, synced atomic.Uint64 // how often what it is of was changed by it, and how much of that is synced
}

const closedBit = 1 << 62

// use pins the descriptor for one call; done must follow.
func (h *handle) use() (int, error) {
	for {
		s := h.state.Load()
		if s&closedBit != 0 {
			return -1, syscall.EBADF
		}
		if h.state.CompareAndSwap(s, s+1) {
			return h.fd, nil
		}
	}
}

func (h *handle) done() {
	if h.state.Add(-1) == closedBit {
		h.syncClosing()
		h.closeDirect()
		unix.Close(h.fd)
	}
}

// close answers EBADF the second time. While calls are running the last of them closes the descriptor, and its error is lost:
// no layer relies on close to report lost data, that is what Sync is for.
func (h *handle) close() error {
	for {
		s := h.state.Load()
		if s&closedBit != 0 {
			return syscall.EBADF
		}
		if !h.state.CompareAndSwap(s, s|closedBit) {
			continue
		}
		if s != 0 {
			return nil
		}
		h.syncClosing()
		h.closeDirect()
		// Linux frees the descriptor even when close is interrupted: a second close could hit another file's.
		if err := unix.Close(h.fd); err != nil && err != unix.EINTR {
			return err
		}
		return nil
	}
}

// wrap makes the error that the package promises; nil stays nil.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// component refuses what is not one path component. The host would take "a/b" and "..", and leave the directory.
func component(name string) error {
	switch {
	case name == "", name == ".", name == "..", strings.IndexByte(name, '/') >= 0, strings.IndexByte(name, 0) >= 0:
		return syscall.EINVAL
	}
	return nil
}

// retry repeats f while a signal interrupts it: Go's own preemption signals do, on slow hosts.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		switch {
		case err == unix.EPERM && flags&unix.O_NOATIME != 0: // another user's
			flags &^= unix.O_NOATIME
		case err != unix.EINTR:
			return fd, err
		}
	}
}

// Attributes by descriptor and name, shared by directories and O_PATH files. An empty name means the descriptor itself.

func chmodAt(fd int, name string, mode uint32) error {
	flag := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flag = unix.AT_EMPTY_PATH
	}
	err := retry(func() error { return unix.Fchmodat(fd, name, mode, flag) })
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return err
	}
	// Kernels before 6.6 have no fchmodat2, and then x/sys answers EOPNOTSUPP for everything; so does the kernel for
	// links. The way round is a pinned object, and its link in /proc, which leads to the object itself.
	if name != "" {
		fd, err = openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return retry(func() error { return unix.Chmod(procLink(fd), mode) })
}

func chownAt(fd int, name string, uid, gid int) error {
	flag := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flag = unix.AT_EMPTY_PATH
	}
	return retry(func() error { return unix.Fchownat(fd, name, uid, gid, flag) })
}

func utimesAt(fd int, name string, ts *[2]unix.Timespec) error {
	if name != "" {
		return retry(func() error { return unix.UtimesNanoAt(fd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW) })
	}
	err := retry(func() error { return unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH) })
	if err == unix.EINVAL || err == unix.ENOENT { // kernels before 5.8 know no AT_EMPTY_PATH here
		err = retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, procLink(fd), ts[:], 0) })
	}
	return err
}

func birthTimeAt(fd int, name string) (int64, error) {
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(fd, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st)
	})
	if err == unix.ENOSYS || err == nil && st.Mask&unix.STATX_BTIME == 0 {
		return 0, nil
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec), err
}

func procLink(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// MaxOpen is how many descriptors this process may have.
func MaxOpen() int {
	var lim unix.Rlimit
	if err := retry(func() error { return unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) }); err != nil {
		return 0
	}
	return int(min(lim.Cur, math.MaxInt32))
}

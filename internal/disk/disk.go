package disk

import (
	"golang.org/x/sys/unix"
)

// Xattrs are the extended attributes of one host object, with the errno values of xattr(7): ENODATA, EEXIST, ERANGE, E2BIG,
// ENOSPC, EDQUOT, EPERM, and EOPNOTSUPP where the host has none. Path in their errors is the object's name, as in other calls.
type Xattrs interface {
	// Getxattr reads a value into dst and answers its length; with an empty dst, the length alone.
	Getxattr(attr string, dst []byte) (int, error)
	// Setxattr sets a value at once: others see the old one or the new one. flags are 0, XATTR_CREATE or XATTR_REPLACE.
	Setxattr(attr string, value []byte, flags int) error
	// Listxattr reads all names, each ended by NUL, as Getxattr does a value.
	Listxattr(dst []byte) (int, error)
	Removexattr(attr string) error
}

// Access says what a file is opened for.
type Access bool

// The two kinds of access.
const (
	ReadWrite Access = false
	ReadOnly  Access = true
)

// Dir is an open host directory. Methods may be called concurrently.
type Dir interface {
	// Open opens a regular file. A symlink, FIFO, device, socket or directory in its place is an error at once, never a hang: ELOOP or
	// ErrNotRegular.
	Open(name string, a Access) (File, error)
	// OpenDirect opens a regular file for writing past the host's page cache. EINVAL or EOPNOTSUPP, here or from Direct.WriteAt, says that the host cannot
	// do that.
	OpenDirect(name string) (Direct, error)
	// Create makes a new regular file, opened for reading and writing; EEXIST where the name is taken.
	Create(name string, mode uint32) (File, error)
	// Tmpfile makes a new regular file without a name, opened for reading and writing. It is gone with its last descriptor unless LinkFile
	// names it before. EOPNOTSUPP where the host cannot.
	Tmpfile(mode uint32) (File, error)
	// LinkFile makes name a name of an open file: the first one of what Tmpfile made, or one more. ENOENT where it had names and all are gone.
	LinkFile(f File, name string) error
	// OpenDir opens a subdirectory.
	OpenDir(name string) (Dir, error)
	// OpenPath pins any object (O_PATH) so that its attributes stay reachable once its name is gone; data calls fail with EBADF.
	OpenPath(name string) (File, error)

	Stat(name string, st *unix.Stat_t) error
	// BirthTime returns the host's creation time in ns since 1970, 0 where it has none.
	BirthTime(name string) (int64, error)
	Mkdir(name string, mode uint32) error
	Mknod(name string, mode uint32, dev uint64) error
	Symlink(target, name string) error
	Readlink(name string) (string, error)
	Link(name string, dst Dir, dstName string) error
	// Rename moves name to dst/dstName. flags are RENAME_NOREPLACE and RENAME_EXCHANGE of renameat2(2).
	Rename(name string, dst Dir, dstName string, flags uint) error
	Unlink(name string) error
	Rmdir(name string) error
	Chmod(name string, mode uint32) error
	Chown(name string, uid, gid int) error // -1 leaves one as it is
	// Utimes sets atime and mtime with nanoseconds; UTIME_OMIT and UTIME_NOW as in utimensat(2).
	Utimes(name string, ts *[2]unix.Timespec) error
	// Xattrs answers the attributes of what name is when they are used; a symlink is not followed.
	Xattrs(name string) Xattrs

	// List calls fn for every name but "." and ".."; typ is a DT_ value, DT_UNKNOWN where the host does not say.
	List(fn func(name string, ino uint64, typ uint8) error) error
	StatSelf(st *unix.Stat_t) error
	BirthTimeSelf() (int64, error)
	ChmodSelf(mode uint32) error
	ChownSelf(uid, gid int) error
	UtimesSelf(ts *[2]unix.Timespec) error
	XattrsSelf() Xattrs
	Statfs(st *unix.Statfs_t) error
	Sync() error // fsync of the directory: its names are durable when it returns
	// SyncAll is syncfs(2): data, attributes and names of the whole host filesystem, as they were when it was called, are durable when it returns. On a
	// filesystem that is not told of that it is a sync of all that was changed by this Dir, those opened from it, and that from which it was opened.
	SyncAll() error
	Close() error
}

// Direct is an open host file that is written past the host's page cache. Offset, length and the place in memory of what is written are multiples of DirectUnit.
type Direct interface {
	// WriteAt returns when what it wrote within the stable length is durable; nothing else is.
	WriteAt(p []byte, off int64) (int, error)
	// Begin begins a WriteAt that the host goes on with by itself, also when the process dies. End, which each Begin that succeeds is followed by, waits for it and
	// answers what WriteAt would; p must not change before. One at a time. EOPNOTSUPP: only WriteAt can be had.
	Begin(p []byte, off int64) error
	End() error
	Close() error
}

// File is an open host file. Methods may be called concurrently.
type File interface {
	// ReadAt and WriteAt follow io.ReaderAt and io.WriterAt: short only with an error.
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Truncate sets the length.
	Truncate(size int64) error
	// Punch frees the host's blocks of a range, which then reads as zeros; the length stays. EOPNOTSUPP where the host cannot.
	Punch(off, n int64) error
	// Allocate reserves the host's blocks of a range, for writes to come; what is read and the length stay as they are. ENOSPC where there are
	// not that many, EOPNOTSUPP where the host cannot.
	Allocate(off, n int64) error
	// Datasync makes the data and the length durable; Sync also the attributes.
	Datasync() error
	Sync() error
	Stat(st *unix.Stat_t) error
	BirthTime() (int64, error) // as Dir's
	Chmod(mode uint32) error
	Chown(uid, gid int) error
	Utimes(ts *[2]unix.Timespec) error
	Xattrs
	Close() error
}

// KeepOpen is a file that somebody else closes: its own Close does nothing.
type KeepOpen struct{ File }

// Close does nothing.
func (KeepOpen) Close() error { return nil }

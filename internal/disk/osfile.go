package disk

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// osFile is a File of the host kernel. With pathOnly the descriptor is an O_PATH one: the kernel refuses data calls with EBADF,
// and attributes go the way of empty names.
type osFile struct {
	h        handle
	pathOnly bool
}

func (f *osFile) do(op string, fn func(fd int) error) error {
	fd, err := f.h.use()
	if err == nil {
		err = retry(func() error { return fn(fd) })
		f.h.done()
	}
	return wrap(op, "", err)
}

// change is do of what changes the file.
func (f *osFile) change(op string, fn func(fd int) error) error {
	return f.do(op, func(fd int) error { return f.h.changed(fn(fd)) })
}

// ReadAt allocates nothing unless it fails.
func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	fd, err := f.h.use()
	if err != nil {
		return 0, wrap("read", "", err)
	}
	defer f.h.done()
	done := 0
	for done < len(p) {
		n, err := unix.Pread(fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, wrap("read", "", err)
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	return done, nil
}

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	fd, err := f.h.use()
	if err != nil {
		return 0, wrap("write", "", err)
	}
	defer f.h.done()
	defer f.h.change()
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, wrap("write", "", err)
		case n == 0: // no host should, but a loop that never ends is no answer
			return done, wrap("write", "", syscall.EIO)
		default:
			done += n
		}
	}
	return done, nil
}

func (f *osFile) Truncate(size int64) error {
	return f.change("truncate", func(fd int) error { return unix.Ftruncate(fd, size) })
}

// NextData returns the first offset at or behind off where the host has data, the length of the file where none follows; hosts that know no holes answer off.
// It is no method of File: who can use it asks for it by a type assertion, and can do without.
func (f *osFile) NextData(off int64) (data int64, err error) {
	err = f.do("seek", func(fd int) (err error) {
		if data, err = unix.Seek(fd, off, unix.SEEK_DATA); err == unix.ENXIO {
			data, err = unix.Seek(fd, 0, unix.SEEK_END)
		}
		return err
	})
	return data, err
}

// Fetch has the host begin to read a range that is not in its memory, and does not wait for it. It is for whoever can do without, as NextData.
func (f *osFile) Fetch(off, n int64) {
	_ = f.do("fetch", func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_WILLNEED) }) // advice
}

// Lacks reports whether the host has nothing of a range in memory; false where it does not tell, or where another open of the file may not find there what this one had
// brought. It is for whoever can do without, as NextData.
func (f *osFile) Lacks(off, n int64) bool {
	fd, err := f.h.use()
	if err != nil {
		return false
	}
	defer f.h.done()
	var has unix.Cachestat_t
	return f.h.on == nil && unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &has, 0) == nil && has.Cache == 0
}

// Fetch has the host begin to read the first n bytes of a file, as Fetch of the file does, and answers what Lacks says of them.
func Fetch(f File, n int64) (lacked bool) {
	if h, ok := f.(interface{ Lacks(off, n int64) bool }); ok {
		lacked = h.Lacks(0, n)
	}
	if h, ok := f.(interface{ Fetch(off, n int64) }); ok {
		h.Fetch(0, n)
	}
	return lacked
}

// Start has the host begin to write what it has in memory of a range to the disk, and does not wait for that. It promises nothing; a failure is Datasync's. It is for
// whoever can do without, as NextData.
func (f *osFile) Start(off, n int64) {
	_ = f.do("start", func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
}

// Settle has the host write what it has in memory of a range to the disk, and waits until that is there. It makes nothing durable. Its error is told once, as that of
// Datasync, which does not tell it again. It is for whoever can do without, as NextData.
func (f *osFile) Settle(off, n int64) error {
	return f.do("settle", func(fd int) error {
		return settled(func(flags int) error { return unix.SyncFileRange(fd, off, n, flags) })
	})
}

// settled is Settle by sync_file_range(2), whose error may be one of the disk, by any number: EINVAL or EOPNOTSUPP too. Only a call that asks for nothing, and fails,
// says that the host cannot do it.
func settled(syncRange func(flags int) error) error {
	err := syncRange(unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER)
	if err != nil && syncRange(0) != nil {
		return nil
	}
	return err
}

func (f *osFile) Punch(off, n int64) error {
	if n == 0 {
		return nil // fallocate(2) calls this EINVAL
	}
	return f.change("punch", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

func (f *osFile) Allocate(off, n int64) error {
	if n == 0 {
		return nil
	}
	return f.change("allocate", func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n) })
}

func (f *osFile) Datasync() error { return f.do("fdatasync", unix.Fdatasync) }

func (f *osFile) Sync() error { return f.do("fsync", f.h.fsync) }

func (f *osFile) Stat(st *unix.Stat_t) error {
	return f.do("stat", func(fd int) error { return unix.Fstat(fd, st) })
}

// StatTimeless is Stat without mtime and ctime, which stay as they are in st: a kernel (since 6.13) that was asked for them stamps the next change of the
// file finely, and moves its coarse clock with that. It is for whoever can do without, as NextData; see the function StatTimeless.
func (f *osFile) StatTimeless(st *unix.Stat_t) error {
	var x unix.Statx_t
	return f.statx(st, &x, 0)
}

// StatNew is StatTimeless of a file that was just made: mtime and ctime are its time of birth.
func (f *osFile) StatNew(st *unix.Stat_t) error {
	var x unix.Statx_t
	if err := f.statx(st, &x, unix.STATX_BTIME); err != nil {
		return err
	}
	if x.Mask&unix.STATX_BTIME == 0 {
		return wrap("stat", "", syscall.EOPNOTSUPP)
	}
	st.Mtim = unix.NsecToTimespec(x.Btime.Sec*1e9 + int64(x.Btime.Nsec))
	st.Ctim = st.Mtim
	return nil
}

// statx fills st with all but mtime and ctime, and x with what else is asked for.
func (f *osFile) statx(st *unix.Stat_t, x *unix.Statx_t, more int) error {
	err := f.do("stat", func(fd int) error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS&^(unix.STATX_MTIME|unix.STATX_CTIME)|more, x)
	})
	if err != nil {
		return err
	}
	st.Dev, st.Ino, st.Mode, st.Rdev = unix.Mkdev(x.Dev_major, x.Dev_minor), x.Ino, uint32(x.Mode), unix.Mkdev(x.Rdev_major, x.Rdev_minor)
	st.Uid, st.Gid, st.Size, st.Blocks = x.Uid, x.Gid, int64(x.Size), int64(x.Blocks)
	assign(&st.Nlink, x.Nlink)
	assign(&st.Blksize, x.Blksize)
	st.Atim = unix.NsecToTimespec(x.Atime.Sec*1e9 + int64(x.Atime.Nsec))
	return nil
}

// assign sets a field that has another type on each architecture.
func assign[T int32 | int64 | uint32 | uint64](p *T, n uint32) { *p = T(n) }

func (f *osFile) BirthTime() (int64, error) {
	var ns int64
	err := f.do("statx", func(fd int) (err error) { ns, err = birthTimeAt(fd, ""); return err })
	return ns, err
}

func (f *osFile) Chmod(mode uint32) error {
	return f.change("chmod", func(fd int) error {
		if f.pathOnly {
			return chmodAt(fd, "", mode)
		}
		return unix.Fchmod(fd, mode)
	})
}

func (f *osFile) Chown(uid, gid int) error {
	return f.change("chown", func(fd int) error { return chownAt(fd, "", uid, gid) })
}

func (f *osFile) Utimes(ts *[2]unix.Timespec) error {
	return f.change("utimes", func(fd int) error { return utimesAt(fd, "", ts) })
}

func (f *osFile) Close() error { return wrap("close", "", f.h.close()) }

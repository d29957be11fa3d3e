package disktest

import (
	"bytes"
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

type memFile struct{ *node }

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	want, fail := f.transfer("read", off, len(p))
	if fail != nil && want == 0 {
		return 0, wrap("read", "", fail)
	}
	i := f.inode()
	n = int(min(int64(want), max(i.data.size-off, 0)))
	i.data.read(p[:n], off)
	switch {
	case n < want:
		return n, io.EOF
	case fail != nil:
		return n, wrap("read", "", fail)
	}
	return n, nil
}

// transfer admits a read or write of n bytes and answers how many of them are to be done, and the error that follows.
func (f *memFile) transfer(op string, off int64, n int) (int, error) {
	err := f.admit(op, "", off, n)
	var short *Short
	switch {
	case errors.As(err, &short):
		n, err = min(n, short.Keep), short.Err
	case err != nil:
		n = 0
	}
	switch {
	case f.closed:
	case f.pathOnly, op == "write" && f.readOnly:
		return 0, syscall.EBADF
	case off < 0 && n > 0:
		return 0, syscall.EINVAL
	}
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.put(p, off)
}

// put is WriteAt with the lock held.
func (f *memFile) put(p []byte, off int64) (int, error) {
	n, err := f.transfer("write", off, len(p))
	if n == 0 {
		return 0, wrap("write", "", err)
	}
	if off+int64(n) > maxFileSize {
		return 0, wrap("write", "", syscall.EFBIG)
	}
	if fits := f.m.room(f.inode(), off, int64(n)); fits < int64(n) {
		n, err = int(fits), syscall.ENOSPC
	}
	if n > 0 {
		f.m.write(f.ino, dataChange{kind: putData, off: off, n: int64(n), data: kept(p[:n])})
	}
	return n, wrap("write", "", err)
}

// blank is what most writes of nothing but zeros are kept as.
var blank = make([]byte, 1<<20)

// kept answers a copy of p, which is not to be changed.
func kept(p []byte) []byte {
	if len(p) <= len(blank) && bytes.Equal(p, blank[:len(p)]) {
		return blank[:len(p)]
	}
	return bytes.Clone(p)
}

// room answers how much of a write can be stored.
func (m *Memory) room(i *inode, off, n int64) (fits int64) {
	free := m.s.capacity - m.s.used
	if free >= n/pageSize+2 || i.data.missing(off, n) <= free {
		return n
	}
	eachPage(off, n, func(at, k int64) {
		if fits < at-off {
			return // an earlier page had none
		}
		if i.data.page(at) == nil {
			if free == 0 {
				return
			}
			free--
		}
		fits += k
	})
	return fits
}

// write changes the data of a file: at once, and stable later.
func (m *Memory) write(ino uint64, w dataChange) {
	w.at = m.clock()
	m.apply(func(s *state) {
		s.seq++
		w.seq = s.seq
		i := s.inodes[ino]
		switch w.kind {
		case putData:
			s.used += i.data.put(w.data, w.off)
			i.data.size = max(i.data.size, w.off+w.n)
		case setSize:
			s.used -= i.data.cut(w.n)
			i.data.size = w.n
		case punchHole:
			s.used -= i.data.zero(w.off, w.n)
		}
		i.live.mtime, i.live.ctime = w.at, w.at
		i.writes = append(i.writes, w)
	})
}

func (f *memFile) Truncate(size int64) error {
	return f.change("truncate", size, func() error {
		switch {
		case size < 0, f.readOnly:
			return syscall.EINVAL
		case size > maxFileSize:
			return syscall.EFBIG
		}
		f.m.write(f.ino, dataChange{kind: setSize, n: size})
		return nil
	})
}

func (f *memFile) Punch(off, n int64) error {
	if n == 0 {
		return nil
	}
	return f.change("punch", off, func() error {
		switch {
		case f.readOnly:
			return syscall.EBADF
		case off < 0, n < 0:
			return syscall.EINVAL
		}
		f.m.write(f.ino, dataChange{kind: punchHole, off: off, n: n})
		return nil
	})
}

// change makes a call about the file's bytes that is not a read or write.
func (f *memFile) change(op string, off int64, fn func() error) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.admit(op, "", off, 0)
	switch {
	case err != nil:
	case f.pathOnly:
		err = syscall.EBADF
	default:
		err = fn()
	}
	return wrap(op, "", err)
}

func (f *memFile) Datasync() error {
	return f.sync("fdatasync", (*inode).syncData)
}

func (f *memFile) Sync() error {
	return f.sync("fsync", func(i *inode) { i.syncData(); i.syncAttrs() })
}

// sync makes things stable. Where it fails the host forgets that there was something to write.
func (f *memFile) sync(op string, fn func(i *inode)) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.admit(op, "", 0, 0)
	switch {
	case f.closed:
	case f.pathOnly:
		err = syscall.EBADF
	case err != nil:
		f.m.apply(func(s *state) { s.inodes[f.ino].loseWrites() })
	default:
		f.m.apply(func(s *state) { fn(s.inodes[f.ino]) })
	}
	return wrap(op, "", err)
}

func (f *memFile) Stat(st *unix.Stat_t) error {
	return f.do("stat", "", func() error { f.inode().stat(st); return nil })
}

func (f *memFile) BirthTime() (ns int64, err error) {
	err = f.do("statx", "", func() error { ns = f.inode().birth; return nil })
	return ns, err
}

func (f *memFile) Chmod(mode uint32) error {
	return f.do("chmod", "", func() error { return f.m.chmod(f.inode(), mode) })
}

func (f *memFile) Chown(uid, gid int) error {
	return f.do("chown", "", func() error { return f.m.chown(f.inode(), uid, gid) })
}

func (f *memFile) Utimes(ts *[2]unix.Timespec) error {
	return f.do("utimes", "", func() error { return f.m.utimes(f.inode(), ts) })
}

func (f *memFile) Allocate(off, _ int64) error {
	return f.change("fallocate", off, func() error { return syscall.EOPNOTSUPP })
}

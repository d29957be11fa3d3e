package disktest

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// Memory is a disk in memory that knows what is on stable storage and what is not: for data, lengths, attributes and names apart. Cut answers
// what a loss of power leaves, CutAt the same for any earlier point, SetFault and SetSpace make calls fail. It passes TestDir. There
// are no permissions: the process may do everything.
//
// Writes are kept until they are synced, so that a file that is written and never synced takes its writes' memory twice. Safe for concurrent use.
type Memory struct {
	mu    sync.Mutex // guards everything below
	s     *state
	clock func() int64
	open  map[uint64]int // handles per inode
	gone  int            // inodes without name and handle that may still be in s

	handles, mostHandles int // now, and at the highest

	calls  int
	fault  Fault
	struck bool
	trace  func(op, name string, off int64, n int)

	recording bool
	log       []func(*state)
	snapshots []*state // before the log's operation number i·snapshotEvery
}

// NewMemory answers an empty disk: a root directory, all of it stable.
func NewMemory() *Memory {
	clock := func() int64 { return time.Now().UnixNano() }
	return &Memory{s: newState(clock()), clock: clock, open: map[uint64]int{}}
}

// Root opens the root directory.
func (m *Memory) Root() disk.Dir {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memDir{m.handle(rootIno, "")}
}

// Remade answers the inodes that have a name which another one had first, on this disk or on one that it is a cut of, and that one: where no name is
// given to two objects, it is the same object, which was lost and made again.
func (m *Memory) Remade() map[uint64]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[uint64]uint64{}
	for _, d := range m.s.inodes {
		for name, ino := range d.names {
			if first, known := m.s.born.Load(name); known && first != ino {
				all[ino], _ = first.(uint64)
			}
		}
	}
	return all
}

// SetClock has all times be what now answers, in ns since 1970. It is called with the Memory's lock held. Without it they are the host's.
func (m *Memory) SetClock(now func() int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock = now
}

// Handles answers how many objects are open, and how many ever were at once.
func (m *Memory) Handles() (now, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.handles, m.mostHandles
}

// node is an open object; memDir and memFile are made of it.
type node struct {
	m        *Memory
	ino      uint64
	name     string
	readOnly bool
	pathOnly bool
	closed   bool
}

func (m *Memory) handle(ino uint64, name string) *node {
	m.open[ino]++
	m.handles++
	m.mostHandles = max(m.mostHandles, m.handles)
	return &node{m: m, ino: ino, name: name}
}

// do makes a call on an open object: fn runs with the lock held unless the call is to fail.
func (n *node) do(op, name string, fn func() error) error {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	err := n.admit(op, name, 0, 0)
	if err == nil {
		err = fn()
	}
	return wrap(op, name, err)
}

func (n *node) admit(op, name string, off int64, size int) error {
	if n.closed {
		return syscall.EBADF
	}
	if name == "" {
		name = n.name
	}
	err := n.m.call(op, name, off, size)
	var short *Short
	if errors.As(err, &short) && op != "read" && op != "write" {
		err = short.Err
	}
	return err
}

func (n *node) inode() *inode { return n.m.s.inodes[n.ino] }

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Close is never counted as a call and never fails but the second time.
func (n *node) Close() error {
	m := n.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if n.closed {
		return wrap("close", "", syscall.EBADF)
	}
	n.closed = true
	m.handles--
	m.open[n.ino]--
	if m.open[n.ino] == 0 {
		delete(m.open, n.ino)
		m.unnamed(n.ino)
	}
	return nil
}

// unnamed frees what an inode without name and handle takes. Its record is dropped some time later, once nothing stable names it.
func (m *Memory) unnamed(ino uint64) {
	i := m.s.inodes[ino]
	if i == nil || i.links > 0 || m.open[ino] > 0 {
		return
	}
	if i.data != nil {
		m.s.used -= i.data.pages()
	}
	m.gone++
	if m.gone > 100+len(m.s.inodes)/4 {
		m.s.sweep(m.open)
		m.gone = 0
	}
}

// setAttrs changes attributes: at once, and stable later.
func (m *Memory) setAttrs(ino uint64, fn func(a *attrs)) {
	now := m.clock()
	m.apply(func(s *state) {
		i := s.inodes[ino]
		fn(&i.live)
		i.live.ctime = now
		s.seq++
		i.versions = append(i.versions, version{s.seq, i.live})
	})
}

func (m *Memory) chmod(i *inode, mode uint32) error {
	if i.is(unix.S_IFLNK) {
		return syscall.EOPNOTSUPP
	}
	m.setAttrs(i.ino, func(a *attrs) { a.mode = a.mode&unix.S_IFMT | mode&0o7777 })
	return nil
}

func (m *Memory) chown(i *inode, uid, gid int) error {
	m.setAttrs(i.ino, func(a *attrs) {
		if uid >= 0 {
			a.uid = uid
		}
		if gid >= 0 {
			a.gid = gid
		}
		if a.mode&unix.S_IFMT != unix.S_IFDIR {
			a.mode &^= unix.S_ISUID
			if a.mode&0o010 != 0 {
				a.mode &^= unix.S_ISGID
			}
		}
	})
	return nil
}

func (m *Memory) utimes(i *inode, ts *[2]unix.Timespec) error {
	now, t := m.clock(), *ts
	set := func(to *int64, ts unix.Timespec) {
		switch ts.Nsec {
		case unix.UTIME_OMIT:
		case unix.UTIME_NOW:
			*to = now
		default:
			*to = ts.Nano()
		}
	}
	m.setAttrs(i.ino, func(a *attrs) { set(&a.atime, t[0]); set(&a.mtime, t[1]) })
	return nil
}

func (m *Memory) statfs(st *unix.Statfs_t) {
	s := m.s
	free := uint64(max(s.capacity-s.used, 0))
	*st = unix.Statfs_t{Blocks: uint64(s.capacity), Bfree: free, Bavail: free, Files: 1 << 30, Ffree: 1<<30 - uint64(len(s.inodes))}
	assign(&st.Bsize, pageSize)
	assign(&st.Frsize, pageSize)
	assign(&st.Namelen, maxName)
}

// caller is who makes files: disk.As changes it.
func caller() (uid, gid int) {
	uid, _ = unix.SetfsuidRetUid(-1) // which changes nothing and answers the present one
	gid, _ = unix.SetfsgidRetGid(-1)
	return uid, gid
}

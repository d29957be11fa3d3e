package disktest

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	rootIno     = 2
	maxFileSize = 1<<44 - pageSize // ext4's with 4 KiB blocks
	maxLinks    = 65000            // ext4's
	maxName     = 255
)

// state is a filesystem: everything that a Memory holds but handles and faults. Its methods change it the same way each time they are called
// with the same arguments, so that a log of them can be replayed. Errors are bare errno values.
type state struct {
	inodes   map[uint64]*inode
	last     uint64       // inode number given last; none is given twice
	seq      uint64       // of the last change
	pending  []nameChange // of names, not stable, oldest first
	inOrder  uint64       // seq of the newest change of names that is stable
	born     *sync.Map    // name -> inode that had it first, of this state and all that come from the same one
	capacity int64        // pages
	used     int64        // pages of live contents
}

// nameChange is one atomic change of names: each slot of a directory holds another inode than before, or none (0).
type nameChange struct {
	seq     uint64
	slots   []slot
	moved   []uint64 // the inodes that got or lost a name; dirMove for a directory that changed its place
	creates bool     // the inode is new
	// emptied is a directory that is removed: everything in it has to be gone before.
	emptied uint64
}

type slot struct {
	dir  uint64
	name string
	ino  uint64
}

// dirMove stands among nameChange.moved: moves of directories depend on each other, or they would tie knots.
const dirMove = 0

func newState(now int64) *state {
	s := &state{inodes: map[uint64]*inode{}, last: rootIno, born: new(sync.Map), capacity: 1 << 40 / pageSize}
	root := s.make(rootIno, unix.S_IFDIR|0o755, now)
	root.parent, root.links = rootIno, 2
	root.live.uid, root.live.gid = caller()
	root.stable = root.live
	return s
}

func (s *state) clone() *state {
	c := *s
	c.pending = slices.Clone(s.pending)
	c.inodes = make(map[uint64]*inode, len(s.inodes))
	for ino, i := range s.inodes {
		c.inodes[ino] = i.clone()
	}
	return &c
}

func (s *state) make(ino uint64, mode uint32, now int64) *inode {
	i := &inode{ino: ino, birth: now, live: attrs{mode: mode, atime: now, mtime: now, ctime: now}}
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		i.data, i.stableData = newContent(), newContent()
	case unix.S_IFDIR:
		i.names, i.stableNames = map[string]uint64{}, map[string]uint64{}
	}
	i.stable = i.live
	s.inodes[ino] = i
	return i
}

// find answers what a name in a directory is.
func (s *state) find(dir uint64, name string) (*inode, error) {
	if err := component(name); err != nil {
		return nil, err
	}
	if ino := s.inodes[dir].names[name]; ino != 0 {
		return s.inodes[ino], nil
	}
	return nil, syscall.ENOENT
}

func component(name string) error {
	switch {
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return syscall.EINVAL
	case len(name) > maxName:
		return syscall.ENAMETOOLONG
	}
	return nil
}

// vacant answers a directory in which name can be made.
func (s *state) vacant(dir uint64, name string) (*inode, error) {
	_, err := s.find(dir, name)
	d := s.inodes[dir]
	switch {
	case err == nil:
		return nil, syscall.EEXIST
	case err != syscall.ENOENT:
		return nil, err
	case d.links == 0:
		return nil, syscall.ENOENT
	}
	return d, nil
}

// change makes a change of names: live at once, stable later.
func (s *state) change(now int64, moved []uint64, slots ...slot) {
	s.seq++
	for _, x := range slots {
		d := s.inodes[x.dir]
		if x.ino == 0 {
			delete(d.names, x.name)
		} else {
			d.names[x.name] = x.ino
			s.born.LoadOrStore(x.name, x.ino)
		}
		d.live.mtime, d.live.ctime = now, now
	}
	for _, ino := range moved {
		if ino != dirMove {
			s.inodes[ino].live.ctime = now
		}
	}
	s.pending = append(s.pending, nameChange{seq: s.seq, slots: slots, moved: moved})
}

// create makes an object under a new name. target is that of a symlink.
func (s *state) create(dir uint64, name string, mode uint32, rdev uint64, target string, uid, gid int, now int64) error {
	d, err := s.vacant(dir, name)
	if err != nil {
		return err
	}
	if mode&unix.S_IFMT == unix.S_IFLNK && len(target) >= unix.PathMax {
		return syscall.ENAMETOOLONG
	}
	isDir := mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && d.links >= maxLinks {
		return syscall.EMLINK
	}
	if d.live.mode&unix.S_ISGID != 0 {
		gid = d.live.gid
		if isDir {
			mode |= unix.S_ISGID
		}
	}
	s.last++
	i := s.make(s.last, mode, now)
	i.live.uid, i.live.gid, i.rdev, i.target, i.links = uid, gid, rdev, target, 1
	if isDir {
		i.parent, i.links = dir, 2
		d.links++
	}
	i.stable = i.live
	s.change(now, []uint64{i.ino}, slot{dir, name, i.ino})
	s.pending[len(s.pending)-1].creates = true
	return nil
}

// tmpfile makes a file without a name.
func (s *state) tmpfile(dir uint64, mode uint32, uid, gid int, now int64) error {
	d := s.inodes[dir]
	if d.links == 0 {
		return syscall.ENOENT
	}
	if d.live.mode&unix.S_ISGID != 0 {
		gid = d.live.gid
	}
	s.last++
	i := s.make(s.last, mode, now)
	i.live.uid, i.live.gid, i.nameless = uid, gid, true
	i.stable = i.live
	return nil
}

func (s *state) link(dir uint64, name string, dst uint64, dstName string, now int64) error {
	i, err := s.find(dir, name)
	if err != nil {
		return err
	}
	return s.linkInode(i.ino, dst, dstName, now)
}

func (s *state) linkInode(ino, dst uint64, dstName string, now int64) error {
	i := s.inodes[ino]
	if _, err := s.vacant(dst, dstName); err != nil {
		return err
	}
	switch {
	case i.names != nil:
		return syscall.EPERM
	case i.links >= maxLinks:
		return syscall.EMLINK
	case i.links == 0 && !i.nameless:
		return syscall.ENOENT
	}
	i.links++
	s.change(now, []uint64{i.ino}, slot{dst, dstName, i.ino})
	s.pending[len(s.pending)-1].creates = i.nameless
	i.nameless = false
	return nil
}

// remove takes a name away; dir says whether it is to be a directory's.
func (s *state) remove(dir uint64, name string, wantDir bool, now int64) error {
	i, err := s.find(dir, name)
	if err != nil {
		return err
	}
	if err := s.removable(i, wantDir); err != nil {
		return err
	}
	s.change(now, []uint64{i.ino}, slot{dir, name, 0})
	s.unnamed(i, dir)
	return nil
}

func (s *state) removable(i *inode, asDir bool) error {
	switch {
	case asDir && i.names == nil:
		return syscall.ENOTDIR
	case !asDir && i.names != nil:
		return syscall.EISDIR
	case len(i.names) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// unnamed counts that i has a name less, in parent, by the change that was just made.
func (s *state) unnamed(i *inode, parent uint64) {
	i.links--
	if i.names != nil {
		s.pending[len(s.pending)-1].emptied = i.ino
		i.links = 0
		s.inodes[parent].links--
	}
}

func (s *state) rename(dir uint64, name string, dst uint64, dstName string, flags uint, now int64) error {
	i, err := s.find(dir, name)
	if err != nil {
		return err
	}
	j, err := s.find(dst, dstName)
	exchange := flags&unix.RENAME_EXCHANGE != 0
	switch {
	case err != nil && (err != syscall.ENOENT || exchange):
		return err
	case flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0, exchange && flags&unix.RENAME_NOREPLACE != 0:
		return syscall.EINVAL
	case err == nil && flags&unix.RENAME_NOREPLACE != 0:
		return syscall.EEXIST
	case s.inodes[dst].links == 0:
		return syscall.ENOENT
	case i.names != nil && s.below(dst, i.ino), exchange && j.names != nil && s.below(dir, j.ino):
		return syscall.EINVAL
	case i == j:
		return nil
	case j != nil && j.names != nil && s.below(dir, j.ino):
		return syscall.ENOTEMPTY
	}
	if j != nil && !exchange {
		if err := s.removable(j, i.names != nil); err != nil {
			return err
		}
	}
	moved, slots := []uint64{i.ino}, []slot{{dir, name, 0}, {dst, dstName, i.ino}}
	if exchange {
		slots[0].ino = j.ino
	}
	if j != nil {
		moved = append(moved, j.ino)
	}
	if dir != dst && (i.names != nil || exchange && j.names != nil) {
		moved = append(moved, dirMove)
	}
	s.change(now, moved, slots...)
	if j != nil && !exchange {
		s.unnamed(j, dst)
	}
	s.moveDir(i, dir, dst)
	if exchange {
		s.moveDir(j, dst, dir)
	}
	return nil
}

func (s *state) moveDir(i *inode, from, to uint64) {
	if i.names != nil {
		s.inodes[from].links--
		s.inodes[to].links++
		i.parent = to
	}
}

// below reports whether dir is top or lies under it.
func (s *state) below(dir, top uint64) bool {
	for dir != top && dir != rootIno {
		dir = s.inodes[dir].parent
	}
	return dir == top
}

// listed is one name of a directory.
type listed struct {
	name string
	ino  uint64
	typ  uint8
}

func (s *state) list(dir uint64) []listed {
	var all []listed
	for name, ino := range s.inodes[dir].names {
		all = append(all, listed{name, ino, uint8(s.inodes[ino].live.mode >> 12 & 15)}) // DT_ values are S_IFMT's bits
	}
	slices.SortFunc(all, func(a, b listed) int { return cmp.Compare(a.name, b.name) })
	return all
}

package dirs

import (
	"sync"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"golang.org/x/sys/unix"
)

// faults decides which host call fails: number at (from 0), and with cut all after it, too, as if the power went.
type faults struct {
	mu     sync.Mutex
	armed  bool
	cut    bool
	at, n  int
	struck bool
	calls  []string // those that write, in their order, while armed
}

func (f *faults) arm(at int, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.cut, f.at, f.n, f.struck = true, cut, at, 0, false
}

// disarm reports whether a call failed.
func (f *faults) disarm() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = false
	return f.struck
}

func (f *faults) next() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed {
		return nil
	}
	k := f.n
	f.n++
	if k == f.at || f.cut && k > f.at {
		f.struck = true
		return unix.EIO
	}
	return nil
}

func (f *faults) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.armed {
		f.calls = append(f.calls, call)
	}
}

// do makes one host call unless it is to fail.
func (f *faults) do(call func() error) error {
	if err := f.next(); err != nil {
		return err
	}
	return call()
}

// faultDir and faultFile pass every call through faults but Close.
type faultDir struct {
	disk.Dir
	f *faults
}

type faultFile struct {
	disk.File
	f *faults
}

func (d faultDir) file(f disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	return faultFile{f, d.f}, nil
}

func (d faultDir) Open(name string, a disk.Access) (disk.File, error) {
	if err := d.f.next(); err != nil {
		return nil, err
	}
	return d.file(d.Dir.Open(name, a))
}

func (d faultDir) Create(name string, mode uint32) (disk.File, error) {
	d.f.note("create")
	if err := d.f.next(); err != nil {
		return nil, err
	}
	return d.file(d.Dir.Create(name, mode))
}

func (d faultDir) Tmpfile(mode uint32) (disk.File, error) {
	if err := d.f.next(); err != nil {
		return nil, err
	}
	return d.file(d.Dir.Tmpfile(mode))
}

func (d faultDir) LinkFile(f disk.File, name string) error {
	return d.f.do(func() error { return d.Dir.LinkFile(f.(faultFile).File, name) })
}

func (d faultDir) OpenPath(name string) (disk.File, error) {
	if err := d.f.next(); err != nil {
		return nil, err
	}
	return d.file(d.Dir.OpenPath(name))
}

func (d faultDir) OpenDir(name string) (disk.Dir, error) {
	if err := d.f.next(); err != nil {
		return nil, err
	}
	x, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return faultDir{x, d.f}, nil
}

func (d faultDir) Readlink(name string) (target string, err error) {
	err = d.f.do(func() error { target, err = d.Dir.Readlink(name); return err })
	return target, err
}

func (d faultDir) Link(name string, dst disk.Dir, dstName string) error {
	return d.f.do(func() error { return d.Dir.Link(name, dst.(faultDir).Dir, dstName) })
}

func (d faultDir) Rename(name string, dst disk.Dir, dstName string, flags uint) error {
	d.f.note("rename")
	return d.f.do(func() error { return d.Dir.Rename(name, dst.(faultDir).Dir, dstName, flags) })
}

func (d faultDir) Stat(name string, st *unix.Stat_t) error {
	return d.f.do(func() error { return d.Dir.Stat(name, st) })
}

func (d faultDir) Mkdir(name string, mode uint32) error {
	return d.f.do(func() error { return d.Dir.Mkdir(name, mode) })
}

func (d faultDir) Mknod(name string, mode uint32, dev uint64) error {
	return d.f.do(func() error { return d.Dir.Mknod(name, mode, dev) })
}

func (d faultDir) Symlink(target, name string) error {
	return d.f.do(func() error { return d.Dir.Symlink(target, name) })
}

func (d faultDir) Unlink(name string) error {
	d.f.note("unlink")
	return d.f.do(func() error { return d.Dir.Unlink(name) })
}

func (d faultDir) Rmdir(name string) error {
	d.f.note("rmdir")
	return d.f.do(func() error { return d.Dir.Rmdir(name) })
}

func (d faultDir) Chmod(name string, mode uint32) error {
	return d.f.do(func() error { return d.Dir.Chmod(name, mode) })
}

func (d faultDir) Chown(name string, uid, gid int) error {
	return d.f.do(func() error { return d.Dir.Chown(name, uid, gid) })
}

// faultXattrs passes the calls for attributes through faults.
type faultXattrs struct {
	disk.Xattrs
	f *faults
}

func (d faultDir) Xattrs(name string) disk.Xattrs { return faultXattrs{d.Dir.Xattrs(name), d.f} }
func (d faultDir) XattrsSelf() disk.Xattrs        { return faultXattrs{d.Dir.XattrsSelf(), d.f} }

func (x faultXattrs) Setxattr(attr string, value []byte, flags int) error {
	return x.f.do(func() error { return x.Xattrs.Setxattr(attr, value, flags) })
}

func (x faultXattrs) Getxattr(attr string, dst []byte) (n int, err error) {
	err = x.f.do(func() error { n, err = x.Xattrs.Getxattr(attr, dst); return err })
	return n, err
}

func (d faultDir) List(fn func(string, uint64, uint8) error) error {
	return d.f.do(func() error { return d.Dir.List(fn) })
}

func (d faultDir) Sync() error {
	d.f.note("fsync directory")
	return d.f.do(d.Dir.Sync)
}

func (d faultDir) SyncAll() error {
	d.f.note("syncfs")
	return d.f.do(d.Dir.SyncAll)
}

func (f faultFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.f.do(func() error { n, err = f.File.ReadAt(p, off); return err })
	return n, err
}

func (f faultFile) WriteAt(p []byte, off int64) (n int, err error) {
	f.f.note("write")
	err = f.f.do(func() error { n, err = f.File.WriteAt(p, off); return err })
	return n, err
}

func (f faultFile) Sync() error {
	f.f.note("fsync")
	return f.f.do(f.File.Sync)
}

func (f faultFile) Setxattr(attr string, value []byte, flags int) error {
	return f.f.do(func() error { return f.File.Setxattr(attr, value, flags) })
}

func (f faultFile) Stat(st *unix.Stat_t) error {
	return f.f.do(func() error { return f.File.Stat(st) })
}

func (f faultFile) Chmod(mode uint32) error {
	return f.f.do(func() error { return f.File.Chmod(mode) })
}

func (f faultFile) Chown(uid, gid int) error {
	return f.f.do(func() error { return f.File.Chown(uid, gid) })
}

func TestFaultDiskConforms(t *testing.T) {
	disktest.TestDir(t, func(t *testing.T) disk.Dir {
		d, err := disk.OpenRoot(t.TempDir())
		ok(t, err)
		return faultDir{d, &faults{}}
	})
}

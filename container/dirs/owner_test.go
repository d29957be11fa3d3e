package dirs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// ownerDir looks at every host object the moment it is made.
type ownerDir struct {
	disk.Dir
	t    *testing.T
	seen int
}

func (d *ownerDir) look(name string, err error) error {
	d.t.Helper()
	var st unix.Stat_t
	if err == nil {
		err = d.Stat(name, &st)
	}
	if err == nil && (st.Uid != 12345 || st.Gid != 54321) {
		d.t.Errorf("a host object of type %o is made for %d:%d", st.Mode&unix.S_IFMT, st.Uid, st.Gid)
	}
	d.seen++
	return err
}

func (d *ownerDir) Create(name string, mode uint32) (disk.File, error) {
	f, err := d.Dir.Create(name, mode)
	return f, d.look(name, err)
}
func (d *ownerDir) Mkdir(name string, mode uint32) error {
	return d.look(name, d.Dir.Mkdir(name, mode))
}
func (d *ownerDir) Symlink(target, name string) error {
	return d.look(name, d.Dir.Symlink(target, name))
}
func (d *ownerDir) Mknod(name string, mode uint32, dev uint64) error {
	return d.look(name, d.Dir.Mknod(name, mode, dev))
}

// No host object has another owner than the one it is made for, not even for a moment: a crash would make that last.
func TestOwnerFromTheStart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes things for others")
	}
	v := newVault(t)
	h := &ownerDir{Dir: v.cfg.Root, t: t}
	v.root.fd = h
	const uid, gid = 12345, 54321
	f, _, err := v.Root().CreateFile("file", 0o6711, uid, gid)
	ok(t, err)
	ok(t, f.Close())
	_, err = v.Root().Mkdir("dir", 0o2711, uid, gid)
	ok(t, err)
	_, err = v.Root().Mknod("fifo", unix.S_IFIFO|0o600, 0, uid, gid)
	ok(t, err)
	_, err = v.Root().Symlink("link", "x", uid, gid)
	ok(t, err)
	_, err = v.Root().SymlinkContainer("far", uid, gid, func(f disk.File, _ keys.ObjectID) error { return f.Close() })
	ok(t, err)
	if h.seen != 5 {
		t.Errorf("%d objects were looked at", h.seen)
	}
	for name, mode := range map[string]uint32{"file": 0o6711, "dir": 0o2711} {
		var st unix.Stat_t
		ok(t, unix.Lstat(v.hostPath(v.Root(), name), &st))
		if st.Mode&0o7777 != mode {
			t.Errorf("%s: mode %o", name, st.Mode)
		}
	}
}

// A mode without the bits that we need, or with set-id bits that a write would take, is sealed before its name shows; others are the host's.
func TestSealedModes(t *testing.T) {
	v := newVault(t, func(c *Config) { c.Seal = testAttrs })
	if _, err := v.cfg.Root.XattrsSelf().Getxattr("user.x", nil); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("the host has no extended attributes: %v", err)
	}
	for _, c := range []struct {
		name        string
		plain, host uint32
		sealed      bool
		make        func(d *Dir, name string, mode uint32) (Entry, error)
	}{
		{"read-only", 0o444, 0o644, true, makeFile}, {"none", 0, 0o600, true, makeFile}, {"plain", 0o640, 0o640, false, makeFile},
		{"suid", 0o4455, 0o655, true, makeFile}, {"sgid", 0o2755, 0o755, true, makeFile}, {"sgid dir", 0o2755, 0o2755, false, makeDir},
		{"dir", 0o555, 0o755, true, makeDir}, {"closed", 0, 0o700, true, makeDir}, {"open", 0o1777, 0o1777, false, makeDir},
		{"fifo", 0, 0, false, func(d *Dir, name string, mode uint32) (Entry, error) {
			return d.Mknod(name, unix.S_IFIFO|mode, 0, -1, -1)
		}},
	} {
		e, err := c.make(v.Root(), c.name, c.plain)
		ok(t, err)
		var st unix.Stat_t
		path := v.hostPath(v.Root(), c.name)
		ok(t, unix.Lstat(path, &st))
		if st.Mode&0o7777 != c.host {
			t.Errorf("%s: host mode %o, want %o", c.name, st.Mode, c.host)
		}
		mode, set, err := testAttrs.Mode(v.cfg.Root.Xattrs(filepath.Base(path)), xattrs.Object{ID: e.ID})
		if c.name != "fifo" && (err != nil || set != c.sealed || set && mode != c.plain) {
			t.Errorf("%s: sealed %v, mode %o, %v", c.name, set, mode, err)
		}
	}
}

func makeFile(d *Dir, name string, mode uint32) (Entry, error) {
	f, e, err := d.CreateFile(name, mode, -1, -1)
	if err == nil {
		err = f.Close()
	}
	return e, err
}

func makeDir(d *Dir, name string, mode uint32) (Entry, error) { return d.Mkdir(name, mode, -1, -1) }

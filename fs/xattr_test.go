package fs

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// countedFile counts the host calls for attributes.
type countedFile struct {
	disk.File
	calls int
}

func (f *countedFile) Getxattr(attr string, dst []byte) (int, error) {
	f.calls++
	return f.File.Getxattr(attr, dst)
}

func (f *countedFile) Listxattr(dst []byte) (int, error) {
	f.calls++
	return f.File.Listxattr(dst)
}

func attrTable(t *testing.T) (fs *FS, n *inode, h *countedFile) {
	t.Helper()
	d, err := disk.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	f, err := d.Create("host", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Getxattr("user.x", nil); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("the host has no extended attributes: %v", err)
	}
	fs = testTable()
	fs.cfg.Attrs = xattrs.New(make([]byte, 64))
	n = fs.mustEnter(t, fs.root, "file", names.File, 11)
	n.geometry = 9
	h = &countedFile{File: f}
	n.pinned = h
	return fs, n, h
}

// What an object does not have is asked of the host once.
func TestProbesAreRemembered(t *testing.T) {
	fs, n, h := attrTable(t)
	in := &fuse.InHeader{NodeId: n.node}
	probe := func(attr string, want fuse.Status, most int) {
		t.Helper()
		h.calls = 0
		if _, status := fs.GetXAttr(nil, in, attr, nil); status != want {
			t.Errorf("%s: %v, want %v", attr, status, want)
		}
		if h.calls > most {
			t.Errorf("%s: %d host calls", attr, h.calls)
		}
	}
	const none, noLabels = fuse.Status(unix.ENODATA), fuse.Status(unix.EOPNOTSUPP)
	probe("security.capability", none, 1)
	for range 3 {
		probe("security.capability", none, 0)
		probe("user.x", none, 0)
		probe("security.selinux", noLabels, 0)
	}
	set := func(attr string) {
		t.Helper()
		s := &fuse.SetXAttrIn{InHeader: *in}
		if status := fs.SetXAttr(nil, s, attr, []byte("v")); status != fuse.OK {
			t.Fatalf("set %s: %v", attr, status)
		}
	}
	set("user.x")
	probe("user.x", fuse.OK, 1)
	probe("security.capability", none, 0)
	probe("security.selinux", noLabels, 1)
	set("security.selinux")
	probe("security.selinux", fuse.OK, 1)
	set("security.capability")
	probe("security.capability", fuse.OK, 1)
	n.held.Store(0) // as after FORGET
	probe("security.capability", fuse.OK, 2)
	if err := fs.killCaps(n); err != nil {
		t.Fatal(err)
	}
	probe("security.capability", none, 0)
	h.calls = 0
	if err := fs.killCaps(n); err != nil || h.calls > 0 {
		t.Errorf("nothing to kill: %v, %d host calls", err, h.calls)
	}
}

// A sealed mode counts as long as the host's bits are those it was sealed with.
func TestSealedMode(t *testing.T) {
	fs, n, h := attrTable(t)
	show := func() uint32 {
		t.Helper()
		var st unix.Stat_t
		if err := h.Stat(&st); err != nil {
			t.Fatal(err)
		}
		if err := fs.showMode(n, &st); err != nil {
			t.Fatal(err)
		}
		return st.Mode
	}
	for _, again := range []bool{false, true} {
		for _, c := range []struct{ plain, host uint32 }{
			{0o444, 0o644}, {0, 0o600}, {0o4755, 0o755}, {0o111, 0o711}, {0o640, 0o640}, {0o6444, 0o644},
		} {
			if err := fs.chmod(n, c.plain); err != nil {
				t.Fatal(err)
			}
			if again {
				n.held.Store(0)
			}
			var st unix.Stat_t
			if err := h.Stat(&st); err != nil || st.Mode != unix.S_IFREG|c.host {
				t.Errorf("%o: the host has %o, %v", c.plain, st.Mode, err)
			}
			if got := show(); got != unix.S_IFREG|c.plain {
				t.Errorf("%o shows as %o", c.plain, got)
			}
		}
	}
	if err := h.File.Chmod(0o664); err != nil { // by somebody else
		t.Fatal(err)
	}
	if got := show(); got != unix.S_IFREG|0o664 {
		t.Errorf("changed on the host: %o", got)
	}
	if err := fs.chmod(n, 0o444); err != nil {
		t.Fatal(err)
	}
	fs.asRoot = true // keeps up what it finds, adds nothing
	if err := fs.chmod(n, 0o400); err != nil || show() != unix.S_IFREG|0o400 {
		t.Errorf("root: %o, %v", show(), err)
	}
	if err := h.Setxattr(n.object().ModeName(), []byte("damaged, and 20 long"), 0); err != nil {
		t.Fatal(err)
	}
	n.held.Store(0)
	if got := show(); got != unix.S_IFREG {
		t.Errorf("a mode that does not open shows as %o", got)
	}
	if err := fs.chmod(n, 0o640); err != nil || show() != unix.S_IFREG|0o640 {
		t.Errorf("repaired: %o, %v", show(), err)
	}
	n.held.Store(0)
	if got := show(); got != unix.S_IFREG|0o640 {
		t.Errorf("repaired: %o", got)
	}
}

// An ACL brings the mode with it: what was sealed before it does not count any more, also where the host's mode stays what it was.
func TestSealedModeUnderACL(t *testing.T) {
	fs, n, h := attrTable(t)
	fs.cfg.ACL = true
	minimal := func(mode uint16) []byte {
		acl := []byte{2, 0, 0, 0}
		for _, e := range []struct{ tag, perm uint16 }{{aclOwner, mode >> 6 & 7}, {4, mode >> 3 & 7}, {32, mode & 7}} {
			acl = binary.LittleEndian.AppendUint16(acl, e.tag)
			acl = binary.LittleEndian.AppendUint16(acl, e.perm)
			acl = binary.LittleEndian.AppendUint32(acl, 1<<32-1)
		}
		return acl
	}
	for _, c := range []struct {
		before   uint32
		acl      uint16
		killSGID bool
		want     uint32
	}{
		{0o444, 0o644, false, 0o644},
		{0o644, 0o444, false, 0o444},
		{0o4755, 0o755, false, 0o4755},
		{0o6755, 0o555, false, 0o6555},
		{0o2755, 0o755, true, 0o755},
		{0o2555, 0o755, true, 0o755},
	} {
		if err := fs.chmod(n, c.before); err != nil {
			t.Fatal(err)
		}
		in := &fuse.SetXAttrIn{}
		if c.killSGID {
			in.SetXAttrFlags = fuse.SETXATTR_ACL_KILL_SGID
		}
		if err := fs.setACL(n, aclAccess, minimal(c.acl), in); errors.Is(err, unix.EOPNOTSUPP) {
			t.Skipf("the host has no ACLs: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := errors.Join(h.Stat(&st), fs.showMode(n, &st)); err != nil || st.Mode != unix.S_IFREG|c.want {
			t.Errorf("%o, then an ACL of %o: %o, %v, want %o", c.before, c.acl, st.Mode, err, c.want)
		}
	}
}

// chownedFile is a host file that tells of a chown before it does it.
type chownedFile struct {
	disk.File
	before func() error
}

func (f *chownedFile) Chown(uid, gid int) error {
	return errors.Join(f.before(), f.File.Chown(uid, gid))
}

// A chown takes set-id bits, sealed ones before it changes the owner. One that fails takes nothing.
func TestChownOfSealedMode(t *testing.T) {
	fs, n, h := attrTable(t)
	fs.asRoot = false
	shown := func() uint32 {
		t.Helper()
		var st unix.Stat_t
		if err := errors.Join(h.Stat(&st), fs.showMode(n, &st)); err != nil {
			t.Fatal(err)
		}
		return st.Mode & 0o7777
	}
	var fails error
	during := uint32(0)
	n.pinned = &chownedFile{h, func() error { during = shown(); return fails }}
	in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_UID, Owner: fuse.Owner{Uid: uint32(os.Getuid())}}}
	for _, c := range []struct{ mode, killed uint32 }{{0o6755, 0o755}, {0o4444, 0o444}, {0o2640, 0o2640}, {0o444, 0o444}, {0o640, 0o640}} {
		for _, fails = range []error{unix.EPERM, nil} {
			if err := fs.chmod(n, c.mode); err != nil {
				t.Fatal(err)
			}
			want := c.killed
			if fails != nil {
				want = c.mode
			}
			if err := fs.chown(n, in); !errors.Is(err, fails) {
				t.Fatal(err)
			}
			if got := shown(); got != want || during != c.killed {
				t.Errorf("%o: %o while the owner changes, then %o, want %o (%v)", c.mode, during, got, want, fails)
			}
		}
	}
}

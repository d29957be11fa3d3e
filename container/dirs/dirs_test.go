package dirs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

func TestCreateLookupRemount(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	want := map[string]Entry{"file": v.create(root, "file"), longName: v.create(root, longName)}
	var err error
	want["dir"], err = root.Mkdir("dir", 0o750, -1, -1)
	ok(t, err)
	want["link"], err = root.Symlink("link", "some/target", -1, -1)
	ok(t, err)
	want["fifo"], err = root.Mknod("fifo", unix.S_IFIFO|0o640, 0, -1, -1)
	ok(t, err)
	want["sock"], err = root.Mknod("sock", unix.S_IFSOCK|0o600, 0, -1, -1)
	ok(t, err)
	if os.Geteuid() == 0 {
		want["null"], err = root.Mknod("null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3), -1, -1)
		ok(t, err)
	}
	for pass := range 2 {
		all, err := root.Entries()
		ok(t, err)
		if len(all) != len(want) {
			t.Fatalf("pass %d: %d entries, want %d", pass, len(all), len(want))
		}
		for i, e := range all {
			if e != want[e.Name] {
				t.Errorf("pass %d: %+v, want %+v", pass, e, want[e.Name])
			}
			if i > 0 && all[i-1].Seq >= e.Seq {
				t.Errorf("pass %d: not in the order of sequences", pass)
			}
			if got, err := root.Lookup(e.Name); err != nil || got != e {
				t.Errorf("pass %d: lookup: %+v, %v", pass, got, err)
			}
			var st unix.Stat_t
			ok(t, root.Stat(e.Name, e.ID, &st))
			if st.Mode&unix.S_IFMT != e.Type.Mode() {
				t.Errorf("pass %d: %s has mode %o", pass, e.Type, st.Mode)
			}
			if e.Name == "link" && st.Size != int64(len("some/target")) {
				t.Errorf("symlink size %d", st.Size)
			}
		}
		if target, err := root.Readlink("link", want["link"].ID); err != nil || target != "some/target" {
			t.Errorf("pass %d: target %q, %v", pass, target, err)
		}
		if want["file"].Flags != names.NoHeader || want["dir"].Flags != 0 || want["file"].Geometry != 9 || want["dir"].Geometry != 0 {
			t.Errorf("flags and geometry: %+v", want)
		}
		v.quiet()
		v.mount()
		root = v.Root()
	}
	ok(t, err)
	if _, err := root.Entries(); err != nil || v.saw.Load() != v.seq.Load() {
		t.Errorf("saw sequence %d, drawn %d, %v", v.saw.Load(), v.seq.Load(), err)
	}
}

func TestErrno(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	f := v.create(root, "file")
	sub := v.mkdir(root, "sub")
	v.create(sub, "inside")
	dir, err := root.Lookup("sub")
	ok(t, err)
	over := strings.Repeat("n", 256)

	_, err = root.Lookup("none")
	fails(t, err, unix.ENOENT)
	_, err = root.Lookup(over)
	fails(t, err, unix.ENAMETOOLONG)
	for name, want := range map[string]error{"file": unix.EEXIST, "sub": unix.EEXIST, over: unix.ENAMETOOLONG, "": unix.EINVAL, ".": unix.EINVAL, "..": unix.EINVAL, "a/b": unix.EINVAL, "a\x00": unix.EINVAL} {
		_, _, err := root.CreateFile(name, 0o600, -1, -1)
		fails(t, err, want)
		_, err = root.Mkdir(name, 0o700, -1, -1)
		fails(t, err, want)
		_, err = root.Symlink(name, "x", -1, -1)
		fails(t, err, want)
		_, err = root.Mknod(name, unix.S_IFIFO, 0, -1, -1)
		fails(t, err, want)
		_, err = root.Link(name, root, "file", f.ID, true)
		fails(t, err, want)
	}
	_, err = root.Mknod("x", unix.S_IFREG|0o600, 0, -1, -1)
	fails(t, err, unix.EINVAL)
	_, err = root.Unlink("none")
	fails(t, err, unix.ENOENT)
	_, err = root.Unlink("sub")
	fails(t, err, unix.EISDIR)
	_, err = root.Rmdir("none")
	fails(t, err, unix.ENOENT)
	_, err = root.Rmdir("file")
	fails(t, err, unix.ENOTDIR)
	_, err = root.Rmdir("sub")
	fails(t, err, unix.ENOTEMPTY)
	_, err = root.Link("x", root, "sub", dir.ID, true)
	fails(t, err, unix.EPERM)
	_, err = root.Child("file", f.ID)
	fails(t, err, unix.ENOTDIR)
	_, err = root.Open("sub", dir.ID, disk.ReadWrite)
	fails(t, err, unix.EISDIR)
	_, err = root.Readlink("file", f.ID)
	fails(t, err, unix.EINVAL)
	v.quiet()
}

func TestStale(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	v.create(root, "a")
	id := keys.RandomObjectID()
	for _, name := range []string{"a", "none"} {
		var st unix.Stat_t
		fails(t, root.Stat(name, id, &st), ErrStale)
		_, err := root.Open(name, id, disk.ReadOnly)
		fails(t, err, ErrStale)
		_, err = root.OpenPath(name, id)
		fails(t, err, ErrStale)
		fails(t, root.Chmod(name, id, 0o600), ErrStale)
		fails(t, root.Chown(name, id, -1, -1), ErrStale)
		fails(t, root.Utimes(name, id, &[2]unix.Timespec{}), ErrStale)
		_, err = root.Readlink(name, id)
		fails(t, err, ErrStale)
		_, err = root.Child(name, id)
		fails(t, err, ErrStale)
		_, err = root.Link("b", root, name, id, true)
		fails(t, err, ErrStale)
	}
}

func TestAttributes(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	sub := v.mkdir(root, "sub")
	f := v.create(sub, "f")
	times := [2]unix.Timespec{{Sec: 5, Nsec: 6}, {Sec: 7, Nsec: 8}}
	ok(t, sub.Chmod("f", f.ID, 0o751))
	ok(t, sub.Chown("f", f.ID, -1, -1))
	ok(t, sub.Utimes("f", f.ID, &times))
	var st unix.Stat_t
	ok(t, sub.Stat("f", f.ID, &st))
	if st.Mode != unix.S_IFREG|0o751 || st.Atim != times[0] || st.Mtim != times[1] {
		t.Errorf("mode %o, times %v %v", st.Mode, st.Atim, st.Mtim)
	}
	ok(t, sub.ChmodSelf(0o711))
	ok(t, sub.ChownSelf(-1, -1))
	ok(t, sub.UtimesSelf(&times))
	ok(t, sub.StatSelf(&st))
	if st.Mode != unix.S_IFDIR|0o711 || st.Mtim != times[1] {
		t.Errorf("mode %o, mtime %v", st.Mode, st.Mtim)
	}
	p, err := sub.OpenPath("f", f.ID)
	ok(t, err)
	defer p.Close()
	_, err = sub.Unlink("f")
	ok(t, err)
	ok(t, p.Stat(&st))
	if st.Nlink != 0 {
		t.Errorf("%d links", st.Nlink)
	}
	ok(t, sub.Sync())
	var sfs unix.Statfs_t
	ok(t, root.Statfs(&sfs))
	ok(t, root.StatSelf(&st))
	if st.Nlink != 3 && st.Nlink != 1 {
		t.Errorf("the root has %d links with one subdirectory", st.Nlink)
	}
}

// Mode and owner passed in are final, whatever umask and a setgid parent would make of them.
func TestModeAndOwnerAreFinal(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	uid, gid := os.Getuid(), os.Getgid()
	if os.Geteuid() == 0 {
		uid, gid = 1234, 4321
		ok(t, os.Chown(v.path, 0, 999))
	}
	ok(t, os.Chmod(v.path, 0o777|os.ModeSetgid))
	for _, mode := range []uint32{0o777, 0o4755, 0o2711, 0o1666, 0o400} {
		name := fmt.Sprintf("%o", mode)
		f, _, err := root.CreateFile("f"+name, mode, uid, gid)
		ok(t, err)
		ok(t, f.Close())
		_, err = root.Mkdir("d"+name, mode, uid, gid)
		ok(t, err)
		_, err = root.Mknod("n"+name, unix.S_IFIFO|mode, 0, uid, gid)
		ok(t, err)
		_, err = root.Symlink("l"+name, "x", uid, gid)
		ok(t, err)
		for _, kind := range []string{"f", "d", "n", "l"} {
			e, err := root.Lookup(kind + name)
			ok(t, err)
			var st unix.Stat_t
			ok(t, root.Stat(e.Name, e.ID, &st))
			if kind != "l" && st.Mode&0o7777 != mode || int(st.Uid) != uid || int(st.Gid) != gid {
				t.Errorf("%s%s: mode %o, owner %d:%d", kind, name, st.Mode&0o7777, st.Uid, st.Gid)
			}
		}
	}
}

func TestHardLinks(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	sub := v.mkdir(root, "sub")
	f := v.create(root, "f")
	one, err := sub.Link("with", root, "f", f.ID, true)
	ok(t, err)
	two, err := root.Link(longName, root, "f", f.ID, false)
	ok(t, err)
	if one.Flags != 0 || two.Flags != names.NoHeader || one.ID != f.ID || one.Seq <= f.Seq || two.Seq <= one.Seq {
		t.Errorf("%+v, %+v of %+v", one, two, f)
	}
	three, err := root.Link("three", sub, "with", f.ID, false)
	ok(t, err)
	if three.Flags != 0 {
		t.Error("a name made when the header was durable says it is not")
	}
	var st unix.Stat_t
	ok(t, sub.Stat("with", f.ID, &st))
	if st.Nlink != 4 || v.content(root, longName) != f.ID.String() {
		t.Errorf("%d links", st.Nlink)
	}
	fifo, err := root.Mknod("fifo", unix.S_IFIFO|0o600, 0, -1, -1)
	ok(t, err)
	_, err = sub.Link("fifo", root, "fifo", fifo.ID, false)
	ok(t, err)
	v.mount()
	if got := list(t, v.dir("sub")); got != "fifo with" {
		t.Error(got)
	}
	v.quiet()
}

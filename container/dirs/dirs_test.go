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
	_, err = root.Open("sub", dir.ID, false)
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
		_, err := root.Open(name, id, true)
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

func TestSymlinkTargets(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	long := strings.Repeat("t", names.MaxTarget)
	e, err := root.Symlink("max", long, -1, -1)
	ok(t, err)
	if got, err := root.Readlink("max", e.ID); err != nil || got != long {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, err = root.Symlink("more", long+"t", -1, -1)
	fails(t, err, ErrTargetTooLong)

	stop := fmt.Errorf("stop")
	_, err = root.SymlinkContainer("more", -1, -1, func(f disk.File, id keys.ObjectID) error { f.Close(); return stop })
	fails(t, err, stop)
	if hostCount(t, v.path) != 1 {
		t.Error("a failed creation leaves something")
	}
	e, err = root.SymlinkContainer("more", -1, -1, func(f disk.File, id keys.ObjectID) error {
		_, err := f.WriteAt([]byte(id.String()), 0)
		f.Close()
		return err
	})
	ok(t, err)
	for range 2 {
		var st unix.Stat_t
		ok(t, root.Stat("more", e.ID, &st))
		if st.Mode != unix.S_IFLNK|0o777 {
			t.Errorf("mode %o", st.Mode)
		}
		_, err = root.Readlink("more", e.ID)
		fails(t, err, unix.EINVAL)
		if v.content(root, "more") != e.ID.String() {
			t.Error("another content")
		}
		v.mount()
		root = v.Root()
	}
	v.quiet()
}

// Sidecars come and go with their names, through every operation.
func TestLongNames(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	sub := v.mkdir(root, longName+"d")
	other := longName + "o"
	v.create(sub, longName)
	if n := hostCount(t, v.path); n != 4 {
		t.Fatalf("%d host objects for two long names", n)
	}
	_, _, err := v.Rename(sub, longName, root, other, 0)
	ok(t, err)
	v.mount()
	root, sub = v.Root(), v.dir(longName+"d")
	if list(t, sub) != "" || list(t, root) != longName+"d "+other || hostCount(t, v.path) != 4 {
		t.Fatal("lost by a rename")
	}
	v.create(root, longName)
	_, _, err = v.Rename(root, other, root, longName, 0)
	ok(t, err)
	_, _, err = v.Rename(root, longName, root, longName+"d", unix.RENAME_EXCHANGE)
	ok(t, err)
	if n := hostCount(t, v.path); n != 4 {
		t.Fatalf("%d host objects for two long names", n)
	}
	_, err = root.Unlink(longName + "d")
	ok(t, err)
	_, err = root.Rmdir(longName)
	ok(t, err)
	if n := hostCount(t, v.path); n != 0 {
		t.Fatalf("%d host objects for none", n)
	}
	v.quiet()
	for n := 1; n <= 255; n++ {
		v.create(root, strings.Repeat("n", n))
	}
	v.mount()
	if all, err := v.Root().Entries(); err != nil || len(all) != 255 {
		t.Errorf("%d of 255 lengths, %v", len(all), err)
	}
	v.quiet()
}

func TestBeforeUnlink(t *testing.T) {
	var pinned []disk.File
	var gone []string
	v := newVault(t, func(c *Config) {
		c.BeforeUnlink = func(e Entry, open func(bool) (disk.File, error)) {
			f, err := open(e.Type == names.File)
			if err != nil {
				panic(err)
			}
			pinned, gone = append(pinned, f), append(gone, e.Name)
		}
	})
	root := v.Root()
	v.create(root, "a")
	b := v.create(root, "b")
	c := v.create(root, "c")
	_, err := root.Symlink("l", "x", -1, -1)
	ok(t, err)
	v.mkdir(root, "d")
	_, rep, err := v.Rename(root, "a", root, "b", 0)
	ok(t, err)
	if *rep != b {
		t.Errorf("replaced %+v", rep)
	}
	_, err = root.Unlink("c")
	ok(t, err)
	_, err = root.Unlink("l")
	ok(t, err)
	_, err = root.Rmdir("d")
	ok(t, err)
	if fmt.Sprint(gone) != "[b c l]" {
		t.Error(gone)
	}
	for i, id := range []string{b.ID.String(), c.ID.String()} {
		p := make([]byte, 32)
		if _, err := pinned[i].ReadAt(p, 0); err != nil || string(p) != id {
			t.Errorf("%s: %v", gone[i], err)
		}
		_, err := pinned[i].WriteAt(p, 0)
		ok(t, err)
	}
	for _, f := range pinned {
		var st unix.Stat_t
		ok(t, f.Stat(&st))
		if st.Nlink != 0 {
			t.Errorf("%d links", st.Nlink)
		}
		ok(t, f.Close())
	}
}

func TestReadOnlyWritesNothing(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	sub := v.mkdir(root, "sub")
	v.create(sub, "inside")
	f := v.create(root, "f")
	l, err := root.Symlink("l", "x", -1, -1)
	ok(t, err)
	v.put(root, fileLink("f", 1000, names.NoHeader)) // it yields
	v.put(root, fileLink("l2", 5, 0))
	v.put(root, fileLink("l2", 6, 0))
	orphan, _ := testCodec.Seal(testRoot, fileLink(longName, 7, 0))
	ok(t, os.WriteFile(v.path+"/"+names.SidecarName(orphan), nil, 0o600))
	v.mount(func(c *Config) {
		c.ReadOnly, c.NextSeq = true, nil
		c.Headerless = func(n names.Link, _ disk.Dir, _ string) bool { return n.Seq == 1000 }
	})
	before := hostTree(t, v.path)
	root, sub = v.Root(), v.dir("sub")
	dir, err := root.Lookup("sub")
	ok(t, err)
	if got := list(t, root); got != "f l l2 sub" {
		t.Fatal(got)
	}
	if v.content(root, "f") != f.ID.String() {
		t.Error("the headerless winner shows")
	}
	var st unix.Stat_t
	ok(t, root.Stat("f", f.ID, &st))
	_, err = root.Readlink("l", l.ID)
	ok(t, err)
	ok(t, sub.Sync())
	for what, err := range map[string]error{
		"open":      second(root.Open("f", f.ID, false)),
		"create":    third(root.CreateFile("new", 0o600, -1, -1)),
		"mkdir":     second(root.Mkdir("new", 0o700, -1, -1)),
		"symlink":   second(root.Symlink("new", "x", -1, -1)),
		"container": second(root.SymlinkContainer("new", -1, -1, nil)),
		"mknod":     second(root.Mknod("new", unix.S_IFIFO, 0, -1, -1)),
		"link":      second(root.Link("new", root, "f", f.ID, true)),
		"unlink":    second(root.Unlink("f")),
		"rmdir":     second(root.Rmdir("sub")),
		"rename":    third(v.Rename(root, "f", root, "new", 0)),
		"over":      third(v.Rename(root, "f", root, "l", 0)),
		"exchange":  third(v.Rename(root, "f", root, "l", unix.RENAME_EXCHANGE)),
		"chmod":     root.Chmod("f", f.ID, 0o600),
		"chown":     root.Chown("f", f.ID, 0, 0),
		"utimes":    root.Utimes("f", f.ID, &[2]unix.Timespec{}),
		"chmodself": sub.ChmodSelf(0o700),
		"chownself": sub.ChownSelf(0, 0),
		"utimeself": sub.UtimesSelf(&[2]unix.Timespec{}),
		"losers":    root.RemoveLosers(),
	} {
		if err != unix.EROFS {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = root.Child("sub", dir.ID)
	ok(t, err)
	sub.Release()
	if after := hostTree(t, v.path); after != before {
		t.Errorf("the host tree was\n%s\nand is\n%s", before, after)
	}
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

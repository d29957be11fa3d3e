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
		"open":      second(root.Open("f", f.ID, disk.ReadWrite)),
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

package dirs

import (
	"fmt"
	"os"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"golang.org/x/sys/unix"
)

func TestRenamePlain(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	sub := v.mkdir(root, "sub")
	a := v.create(root, "a")
	moved, rep, err := v.Rename(root, "a", sub, "b", 0)
	ok(t, err)
	if moved.Name != "b" || moved.ID != a.ID || moved.Flags != a.Flags || moved.Geometry != a.Geometry || moved.Seq <= a.Seq || rep != nil {
		t.Errorf("moved %+v, replaced %+v", moved, rep)
	}
	v.mount()
	if list(t, v.Root()) != "sub" || list(t, v.dir("sub")) != "b" || v.content(v.dir("sub"), "b") != a.ID.String() {
		t.Error("lost")
	}
	v.quiet()
}

func TestRenameOver(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	sub := v.mkdir(root, "sub")
	a, b := v.create(root, "a"), v.create(sub, "b")
	_, rep, err := v.Rename(root, "a", sub, "b", 0)
	ok(t, err)
	if *rep != b || v.content(sub, "b") != a.ID.String() || hostCount(t, v.path) != 2 {
		t.Errorf("replaced %+v", rep)
	}
	x, y := v.mkdir(root, "x"), v.mkdir(root, "y")
	v.create(x, "inside")
	_, rep, err = v.Rename(root, "x", root, "y", 0)
	ok(t, err)
	if rep.ID != y.ID() || !y.gone.Load() || x.gone.Load() || list(t, x) != "inside" {
		t.Errorf("replaced %+v", rep)
	}
	e, err := root.Lookup("y")
	ok(t, err)
	same, err := root.Child("y", e.ID)
	ok(t, err)
	defer same.Release()
	if same != x {
		t.Error("a moved directory has another Dir")
	}
	v.quiet()
}

func TestRenameErrno(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	f := v.create(root, "f")
	v.create(root, "g")
	_, err := root.Link("f2", root, "f", f.ID, true)
	ok(t, err)
	a := v.mkdir(root, "a")
	b := v.mkdir(a, "b")
	c := v.mkdir(b, "c")
	v.create(b, "file")
	v.mkdir(root, "empty")
	for _, x := range []struct {
		src  *Dir
		old  string
		dst  *Dir
		new  string
		flag uint
		want error
	}{
		{root, "none", root, "x", 0, unix.ENOENT},
		{root, "f", root, "a", 0, unix.EISDIR},
		{root, "a", root, "f", 0, unix.ENOTDIR},
		{root, "empty", root, "a", 0, unix.ENOTEMPTY},
		{root, "a", a, "x", 0, unix.EINVAL},
		{root, "a", c, "x", 0, unix.EINVAL},
		{a, "b", b, "x", 0, unix.EINVAL},
		{b, "c", root, "a", 0, unix.ENOTEMPTY},
		{b, "file", root, "a", 0, unix.ENOTEMPTY}, // as Linux has it, not EISDIR
		{a, "b", root, "a", 0, unix.ENOTEMPTY},
		{root, "f", root, "g", unix.RENAME_NOREPLACE, unix.EEXIST},
		{root, "f", root, "f2", unix.RENAME_NOREPLACE, unix.EEXIST},
		{root, "a", b, "c", unix.RENAME_NOREPLACE, unix.EEXIST}, // as Linux has it, not EINVAL
		{root, "a", b, "x", unix.RENAME_NOREPLACE, unix.EINVAL},
		{root, "f", root, "none", unix.RENAME_EXCHANGE, unix.ENOENT},
		{root, "none", root, "f", unix.RENAME_EXCHANGE, unix.ENOENT},
		{root, "a", b, "c", unix.RENAME_EXCHANGE, unix.EINVAL},
		{b, "c", root, "a", unix.RENAME_EXCHANGE, unix.EINVAL},
		{root, "f", root, "x", unix.RENAME_WHITEOUT, unix.EINVAL},
		{root, "f", root, "x", unix.RENAME_EXCHANGE | unix.RENAME_NOREPLACE, unix.EINVAL},
		{root, "f", root, longName + "more", 0, unix.ENAMETOOLONG},
		{root, "f", root, "..", 0, unix.EINVAL},
	} {
		if _, _, err := v.Rename(x.src, x.old, x.dst, x.new, x.flag); err != x.want {
			t.Errorf("rename %s to %s, flags %d: %v, want %v", x.old, x.new, x.flag, err, x.want)
		}
	}
	for _, flag := range []uint{0, unix.RENAME_EXCHANGE} {
		for _, new := range []string{"f", "f2"} {
			moved, rep, err := v.Rename(root, "f", root, new, flag)
			if err != nil || moved != f || rep != nil {
				t.Errorf("two names of one object: %+v, %+v, %v", moved, rep, err)
			}
		}
	}
	if got := list(t, root); got != "a empty f f2 g" {
		t.Error(got)
	}
	v.quiet()
}

func TestExchange(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	x, y := v.mkdir(root, "x"), v.mkdir(root, "y")
	v.create(x, "inx")
	v.create(y, "iny")
	sub := v.mkdir(x, "sub")
	f := v.create(y, "f")
	moved, other, err := v.Rename(root, "x", root, "y", unix.RENAME_EXCHANGE)
	ok(t, err)
	if moved.Name != "y" || moved.ID != x.ID() || other.Name != "x" || other.ID != y.ID() {
		t.Errorf("%+v and %+v", moved, other)
	}
	_, _, err = v.Rename(x, "sub", y, "f", unix.RENAME_EXCHANGE)
	ok(t, err)
	v.create(sub, "still")
	if v.dir("x") != y || v.dir("y") != x || v.dir("x/f") != sub {
		t.Error("exchanged directories have other Dirs")
	}
	for range 2 {
		if list(t, v.dir("x")) != "f iny" || list(t, v.dir("y")) != "inx sub" || list(t, v.dir("x/f")) != "still" || v.content(v.dir("y"), "sub") != f.ID.String() {
			t.Error("not exchanged")
		}
		v.mount()
	}
	v.quiet()
}

// A directory that is moved keeps its descriptor's way through its parents right.
func TestMovedDirectoriesReopen(t *testing.T) {
	v := newVault(t, func(c *Config) { c.MaxOpenDirs = 1 })
	at := v.Root()
	var all []*Dir
	for i := range 10 {
		at = v.mkdir(at, fmt.Sprint(i))
		all = append(all, at)
	}
	_, _, err := v.Rename(all[2], "3", v.Root(), "moved", 0)
	ok(t, err)
	_, _, err = v.Rename(all[7], "8", all[0], "eight", 0)
	ok(t, err)
	for i, d := range all {
		var st, want unix.Stat_t
		ok(t, d.StatSelf(&st))
		ok(t, unix.Lstat(v.hostDir(d), &want))
		if st.Ino != want.Ino {
			t.Errorf("directory %d is another one", i)
		}
	}
	if v.fds.n > 1 {
		t.Errorf("%d descriptors are open", v.fds.n)
	}
	v.quiet()
}

// What a host refuses after the new name shows must stay hidden.
func TestVictimStaysHidden(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	x, y := v.mkdir(root, "x"), v.mkdir(root, "y")
	v.create(x, "inside")
	stray := v.hostDir(y) + "/stray"
	ok(t, os.WriteFile(stray, nil, 0o600))
	_, _, err := v.Rename(root, "x", root, "y", 0)
	fails(t, err, unix.ENOTEMPTY)
	_, err = root.Rmdir("y")
	fails(t, err, unix.ENOTEMPTY)
	ok(t, os.Remove(stray))
	_, _, err = v.Rename(root, "x", root, "y", 0)
	ok(t, err)

	// An orphan sidecar is a crash's leftover and hinders nobody.
	z := v.mkdir(root, "z")
	orphan, sidecar := testCodec.Seal(z.ID(), fileLink(longName, 99, 0))
	ok(t, os.WriteFile(v.hostDir(z)+"/"+names.SidecarName(orphan), sidecar, 0o600))
	_, _, err = v.Rename(root, "y", root, "z", 0)
	ok(t, err)
	z = v.mkdir(root, "w")
	orphan, sidecar = testCodec.Seal(z.ID(), fileLink(longName, 99, 0))
	ok(t, os.WriteFile(v.hostDir(z)+"/"+names.SidecarName(orphan), sidecar, 0o600))
	_, err = root.Rmdir("w")
	ok(t, err)
	if hostCount(t, v.path) != 2 {
		t.Error("something is left")
	}
}

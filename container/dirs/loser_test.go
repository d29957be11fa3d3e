package dirs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// withLosers builds what crashes leave: in the root "f" with two losers, in "sub" a directory "d" with a file and a directory as losers.
func withLosers(t *testing.T) (v *vault, sub *Dir, winner names.Link) {
	v = newVault(t)
	root := v.Root()
	sub = v.mkdir(root, "sub")
	v.seq.Store(100)
	winner = fileLink("f", 30, 0)
	v.put(root, fileLink("f", 10, 0))
	v.put(root, winner)
	v.put(root, fileLink("f", 20, names.NoHeader))
	for seq := uint64(11); seq <= 31; seq += 10 {
		l := fileLink("d", seq, 0)
		if seq != 11 {
			l.Type, l.Geometry = names.Dir, 0
		}
		v.put(sub, l)
	}
	v.mount()
	if list(t, v.Root()) != "f sub" || list(t, v.dir("sub")) != "d" {
		t.Fatal("losers show")
	}
	if got := v.kinds(); got != "loser loser loser loser" {
		t.Fatal(got)
	}
	if v.content(v.Root(), "f") != winner.ID.String() {
		t.Fatal("not the highest sequence wins")
	}
	return v, v.dir("sub"), winner
}

// After any operation on a name with losers no remount brings one back.
func TestLosersGoFirst(t *testing.T) {
	for name, c := range map[string]struct {
		do        func(t *testing.T, v *vault, sub *Dir) error
		root, sub string
		left      int // host objects
	}{
		"unlink": {func(t *testing.T, v *vault, sub *Dir) error {
			_, err := v.Root().Unlink("f")
			return err
		}, "sub", "d", 4},
		"rmdir": {func(t *testing.T, v *vault, sub *Dir) error {
			_, err := sub.Rmdir("d")
			return err
		}, "f sub", "", 4},
		"move away": {func(t *testing.T, v *vault, sub *Dir) error {
			_, _, err := v.Rename(v.Root(), "f", sub, "g", 0)
			return err
		}, "sub", "d g", 5},
		"move a directory away": {func(t *testing.T, v *vault, sub *Dir) error {
			_, _, err := v.Rename(sub, "d", v.Root(), "e", 0)
			return err
		}, "e f sub", "", 5},
		"rename over": {func(t *testing.T, v *vault, sub *Dir) error {
			v.create(v.Root(), "new")
			_, _, err := v.Rename(v.Root(), "new", v.Root(), "f", 0)
			return err
		}, "f sub", "d", 5},
		"rename a directory over": {func(t *testing.T, v *vault, sub *Dir) error {
			v.mkdir(v.Root(), "new")
			_, _, err := v.Rename(v.Root(), "new", sub, "d", 0)
			return err
		}, "f sub", "d", 5},
		"exchange": {func(t *testing.T, v *vault, sub *Dir) error {
			_, _, err := v.Rename(v.Root(), "f", sub, "d", unix.RENAME_EXCHANGE)
			return err
		}, "f sub", "d", 3},
	} {
		t.Run(name, func(t *testing.T) {
			v, sub, _ := withLosers(t)
			ok(t, c.do(t, v, sub))
			for range 2 {
				if list(t, v.Root()) != c.root || list(t, v.dir("sub")) != c.sub {
					t.Fatalf("%q and %q, want %q and %q", list(t, v.Root()), list(t, v.dir("sub")), c.root, c.sub)
				}
				v.mount()
			}
			if n := hostCount(t, v.path); n != c.left {
				t.Errorf("%d host objects, want %d", n, c.left)
			}
		})
	}
}

// A loser that cannot be removed keeps its winner in place: otherwise it would show.
func TestLoserThatStays(t *testing.T) {
	v, sub, _ := withLosers(t)
	for _, n := range sub.losers["d"] {
		if n.typ == names.Dir {
			ok(t, os.WriteFile(filepath.Join(v.hostDir(sub), sub.hostName("d", n), "stray"), nil, 0o600))
		}
	}
	_, err := sub.Rmdir("d")
	fails(t, err, ErrName)
	_, _, err = v.Rename(sub, "d", v.Root(), "x", 0)
	fails(t, err, ErrName)
	if list(t, sub) != "d" {
		t.Error("the winner is gone")
	}
	v.mount()
	if list(t, v.dir("sub")) != "d" {
		t.Error("the winner is gone")
	}
}

func TestLosersAreNotCounted(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	f := v.create(root, "f")
	host := v.hostPath(root, "f")
	for _, name := range []string{"g", "h"} { // g and h: older links of f behind newer files
		l := names.Link{Type: names.File, Geometry: 9, ID: f.ID, Seq: 5, Name: name}
		old, _ := testCodec.Seal(testRoot, l)
		ok(t, os.Link(host, filepath.Join(v.path, old)))
		v.put(root, fileLink(name, 6, 0))
	}
	d := names.Link{Type: names.Dir, ID: f.ID, Seq: 7, Name: "dir"}
	v.put(root, d)
	d.Seq, d.ID = 8, testRoot
	v.put(root, d)
	ok(t, os.Mkdir(filepath.Join(v.path, "foreign"), 0o700))
	v.mount()
	root = v.Root()
	var st unix.Stat_t
	list(t, root)
	ok(t, root.Stat("f", f.ID, &st))
	if st.Nlink != 1 {
		t.Errorf("%d links, want 1", st.Nlink)
	}
	ok(t, root.StatSelf(&st))
	if st.Nlink > 3 {
		t.Errorf("the root has %d links with one subdirectory", st.Nlink)
	}
	_, err := root.Unlink("g")
	ok(t, err)
	_, err = root.Link("l", root, "f", f.ID, true)
	ok(t, err)
	ok(t, root.Stat("f", f.ID, &st))
	if st.Nlink != 2 {
		t.Errorf("%d links, want 2", st.Nlink)
	}
}

// A winner without a header from an unclean session yields, but never to nothing.
func TestHeaderlessYields(t *testing.T) {
	asked := 0
	v := newVault(t, func(c *Config) {
		c.Headerless = func(l names.Link, d disk.Dir, host string) bool {
			asked++
			var st unix.Stat_t
			ok(t, d.Stat(host, &st))
			return st.Size == 0 && l.Seq >= 20
		}
	})
	root := v.Root()
	v.seq.Store(100)
	empty := func(l names.Link) { ok(t, os.Truncate(v.put(root, l), 0)) }
	good := fileLink("yields", 10, 0)
	v.put(root, good)
	empty(fileLink("yields", 20, names.NoHeader))
	empty(fileLink("yields", 21, names.NoHeader))
	v.put(root, fileLink("has header", 12, 0))
	v.put(root, fileLink("has header", 22, names.NoHeader))
	empty(fileLink("alone", 23, names.NoHeader))
	empty(fileLink("all", 25, names.NoHeader))
	empty(fileLink("all", 26, names.NoHeader))
	empty(fileLink("durable", 24, 0)) // no flag: a missing header is damage, and no reason to show an older file
	v.put(root, fileLink("durable", 14, 0))
	v.put(root, fileLink("long ago", 1, 0))
	empty(fileLink("long ago", 2, names.NoHeader))
	v.mount()
	root = v.Root()
	for name, seq := range map[string]uint64{"yields": 10, "has header": 22, "alone": 23, "durable": 24, "long ago": 2, "all": 25} {
		if e, err := root.Lookup(name); err != nil || e.Seq != seq {
			t.Errorf("%s: sequence %d, want %d, %v", name, e.Seq, seq, err)
		}
	}
	if asked != 5 {
		t.Errorf("asked %d times", asked)
	}
	_, _, err := v.Rename(root, "yields", root, "kept", 0)
	ok(t, err)
	v.mount(func(c *Config) { c.Headerless = nil }) // the session is repaired
	root = v.Root()
	if _, err := root.Lookup("yields"); err != unix.ENOENT {
		t.Errorf("the headerless file shows: %v", err)
	}
	if v.content(root, "kept") != good.ID.String() {
		t.Error("another file")
	}
}

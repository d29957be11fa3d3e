package dirs

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"golang.org/x/sys/unix"
)

// whiteouts rename with RENAME_WHITEOUT: to a new name and over another one, within a directory and between two, long names and a directory.
var whiteouts = map[string]struct {
	within bool // one directory
	old    string
	new    string
}{
	"new name":  {true, "g", "new"},
	"over":      {true, longName, "g"},
	"elsewhere": {false, longName, "f"},
	"long":      {false, "g", longName},
	"directory": {false, "sub", "new"},
}

// carries answers what a name carries, the zero Entry where it is nothing.
func carries(t *testing.T, d *Dir, name string) Entry {
	t.Helper()
	e, err := d.Lookup(name)
	if err != unix.ENOENT {
		ok(t, err)
	}
	return e
}

// whiteoutDirs answers the directories of swapVault, b/deep first.
func whiteoutDirs(t *testing.T, tree *Tree) (deep, a *Dir) {
	t.Helper()
	e := carries(t, tree.Root(), "b")
	b, err := tree.Root().Child("b", e.ID)
	ok(t, err)
	deep, err = b.Child("deep", carries(t, b, "deep").ID)
	ok(t, err)
	a, err = tree.Root().Child("a", carries(t, tree.Root(), "a").ID)
	ok(t, err)
	return deep, a
}

// A power cut at any point: the old name carries the object and the new one what it did, or the old name a whiteout and the new one the object.
func TestWhiteoutCut(t *testing.T) {
	for name, c := range whiteouts {
		t.Run(name, func(t *testing.T) {
			v := newSwapVault(t)
			dst := v.a
			if c.within {
				dst = v.deep
			}
			moved, over := carries(t, v.deep, c.old), carries(t, dst, c.new)
			v.m.Record()
			_, _, err := v.RenameWhiteout(v.deep, c.old, dst, c.new, 0, -1, -1)
			ok(t, err)
			judge := func(deep, dst *Dir) (done bool) {
				t.Helper()
				at, to := carries(t, deep, c.old), carries(t, dst, c.new)
				switch {
				case at.ID == moved.ID && to.ID == over.ID:
					return false
				case at.Type == names.CharDev && to.ID == moved.ID:
					return true
				}
				t.Fatalf("the old name carries %+v, the new one %+v", at, to)
				return false
			}
			if !judge(v.deep, dst) || len(v.events) > 0 {
				t.Fatalf("not renamed; events %v", v.events)
			}
			cuts := 0
			for k := range v.m.Ops() + 1 {
				for _, l := range disktest.PowerCuts() {
					for seed := range uint64(2) {
						tree := treeOn(t, v.m.CutAt(k, l, rand.New(rand.NewPCG(seed, uint64(k)))))
						deep, a := whiteoutDirs(t, tree)
						if c.within {
							a = deep
						}
						if judge(deep, a) {
							cuts++
						}
					}
				}
			}
			if cuts == 0 {
				t.Error("no cut left the rename done")
			}
		})
	}
}

// A host call fails: nothing has happened, in the map and on the host, or all has.
func TestWhiteoutFault(t *testing.T) {
	for n := 0; ; n++ {
		v := newSwapVault(t)
		old := listing(t, v.Tree)
		moved := carries(t, v.deep, longName)
		v.m.SetFault(func(c disktest.Call) error {
			if c.N == n {
				return syscall.EIO
			}
			return nil
		})
		_, _, err := v.RenameWhiteout(v.deep, longName, v.a, "f", 0, -1, -1)
		struck := v.m.Struck()
		v.m.SetFault(nil)
		now := listing(t, v.Tree)
		switch {
		case err != nil && now != old:
			t.Fatalf("call %d fails with %v: tree\n%s\nwas\n%s", n, err, now, old)
		case err == nil && (carries(t, v.deep, longName).Type != names.CharDev || carries(t, v.a, "f").ID != moved.ID):
			t.Fatalf("call %d fails unnoticed: tree\n%s", n, now)
		}
		if got := listing(t, treeOn(t, v.m)); got != now {
			t.Fatalf("call %d fails, answer %v: the host has\n%s\nwant\n%s", n, err, got, now)
		}
		if !struck {
			if n < 10 {
				t.Fatalf("%d calls", n)
			}
			return
		}
	}
}

// A whiteout is the device 0:0 without a mode, can be moved, replaced and removed, and no flag of exchange goes with it.
func TestWhiteout(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	f := v.create(root, "f")
	_, _, err := v.RenameWhiteout(root, "f", root, "g", unix.RENAME_NOREPLACE, -1, -1)
	ok(t, err)
	var st unix.Stat_t
	ok(t, root.Stat("f", carries(t, root, "f").ID, &st))
	if st.Mode != unix.S_IFCHR || st.Rdev != 0 || v.content(root, "g") != f.ID.String() {
		t.Errorf("mode %o, device %d", st.Mode, st.Rdev)
	}
	_, _, err = v.RenameWhiteout(root, "f", root, "g", unix.RENAME_NOREPLACE, -1, -1)
	fails(t, err, unix.EEXIST)
	_, _, err = v.RenameWhiteout(root, "f", root, "g", unix.RENAME_EXCHANGE, -1, -1)
	fails(t, err, unix.EINVAL)
	if f.Seq != 1 { // so that the whiteout of the vault's first object has 0
		t.Fatalf("the sequence of the first object is %d", f.Seq)
	}
	_, _, err = v.RenameWhiteout(root, "f", root, "h", 0, -1, -1)
	fails(t, err, unix.EINVAL)
	_, _, err = v.Rename(root, "g", root, "f", 0)
	ok(t, err)
	_, err = root.Unlink("f")
	ok(t, err)
	v.mount()
	if got := list(t, v.Root()); got != "" {
		t.Error(got)
	}
	v.quiet()
}

package dirs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"golang.org/x/sys/unix"
)

func TestSupersede(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	sub := v.mkdir(root, "sub")
	old := v.create(root, "a")
	_, err := sub.Link(longName, root, "a", old.ID, true)
	ok(t, err)
	f, e, err := sub.CreateContainer("new", names.File, 3, 0o600, -1, -1)
	ok(t, err)
	_, err = f.WriteAt([]byte("new"), 0)
	ok(t, err)
	ok(t, f.Close())
	if e.Geometry != 3 {
		t.Errorf("%+v", e)
	}
	ok(t, root.Supersede("a", sub, "new"))
	ok(t, sub.Supersede(longName, sub, "new"))
	fails(t, root.Supersede("a", sub, "new"), ErrStale) // it is the same already
	fails(t, root.Supersede("b", sub, "new"), ErrStale)
	fails(t, root.Supersede("sub", sub, "new"), ErrStale)
	_, err = sub.Unlink("new")
	ok(t, err)
	if k := v.kinds(); k != "repaired repaired" { // both old links were losers for a moment
		t.Errorf("events: %s", k)
	}

	v.mount()
	root, sub = v.Root(), v.dir("sub")
	a, err := root.Lookup("a")
	ok(t, err)
	if a.ID != e.ID || a.Flags != 0 || a.Geometry != 3 || v.content(root, "a") != "new" || v.content(sub, longName) != "new" {
		t.Errorf("%+v, %q", a, v.content(root, "a"))
	}
	var st unix.Stat_t
	ok(t, root.Stat("a", a.ID, &st))
	if st.Nlink != 2 || hostCount(t, v.path) != 4 {
		t.Errorf("%d links, %d host objects", st.Nlink, hostCount(t, v.path))
	}
	v.quiet()
	v.mount(func(c *Config) { c.ReadOnly = true })
	fails(t, v.Root().Supersede("a", v.dir("sub"), longName), unix.EROFS)
}

func TestAdopt(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	v.mkdir(root, "sub")
	e := v.create(root, "a")
	host := v.hostPath(root, "a")
	moved := filepath.Join(filepath.Dir(v.hostPath(root, "sub")), filepath.Base(v.hostPath(root, "sub")), filepath.Base(host))
	ok(t, os.Rename(host, moved))

	v.mount()
	root = v.Root()
	sub := v.dir("sub")
	if _, err := sub.Lookup("a"); err == nil {
		t.Fatal("it shows")
	}
	v.kinds()
	from, err := v.cfg.Root.OpenDir(filepath.Base(filepath.Dir(moved)))
	ok(t, err)
	defer from.Close()
	_, err = root.Adopt("sub", Entry{Type: names.File, ID: e.ID, Geometry: e.Geometry}, from, filepath.Base(moved), false)
	fails(t, err, unix.EEXIST)
	got, err := root.Adopt(longName, e, from, filepath.Base(moved), false)
	ok(t, err)
	if got.ID != e.ID || got.Seq <= e.Seq || v.content(root, longName) != e.ID.String() {
		t.Errorf("%+v of %+v", got, e)
	}
	_, err = root.Adopt("again", e, from, filepath.Base(moved), false)
	fails(t, err, ErrStale)
	v.quiet()

	other := v.create(root, "other")
	ok(t, os.Rename(v.hostPath(root, "other"), moved))
	v.mount()
	root = v.Root()
	_, err = root.Adopt("sub", other, from, filepath.Base(moved), true)
	fails(t, err, unix.EISDIR)
	got, err = root.Adopt(longName, other, from, filepath.Base(moved), true)
	ok(t, err)
	if list(t, root) != longName+" sub" || got.ID != other.ID || v.content(root, longName) != other.ID.String() || hostCount(t, v.path) != 3 {
		t.Errorf("%+v in place of %+v: %s, %d host objects", got, e, list(t, root), hostCount(t, v.path))
	}
	v.mount(func(c *Config) { c.ReadOnly = true })
	_, err = v.Root().Adopt("b", e, from, "x", false)
	fails(t, err, unix.EROFS)
}

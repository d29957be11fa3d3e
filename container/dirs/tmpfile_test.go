package dirs

import (
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"golang.org/x/sys/unix"
)

func TestTmpfile(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	sub := v.mkdir(root, "sub")
	f, e, err := sub.Tmpfile(0o2751, -1, -1)
	ok(t, err)
	defer f.Close()
	var st unix.Stat_t
	ok(t, f.Stat(&st))
	if st.Nlink != 0 || st.Mode&0o7777 != 0o2751 || hostCount(t, v.path) != 1 || e.Flags != names.NoHeader || e.Seq != 0 {
		t.Errorf("%d links, mode %o, %d host objects, %+v", st.Nlink, st.Mode, hostCount(t, v.path), e)
	}
	_, err = f.WriteAt([]byte(e.ID.String()), 0)
	ok(t, err)
	a, err := root.LinkFile("a", f, e, false)
	ok(t, err)
	b, err := sub.LinkFile(longName, f, a, true)
	ok(t, err)
	if a.Flags != names.NoHeader || b.Flags != 0 || b.Seq <= a.Seq || a.ID != e.ID || b.Geometry != e.Geometry {
		t.Errorf("%+v, %+v of %+v", a, b, e)
	}
	_, err = root.LinkFile("a", f, e, false)
	fails(t, err, unix.EEXIST)
	_, err = root.LinkFile(longName+longName, f, e, false)
	fails(t, err, unix.ENAMETOOLONG)
	v.mount()
	root, sub = v.Root(), v.dir("sub")
	if v.content(root, "a") != e.ID.String() || v.content(sub, longName) != e.ID.String() {
		t.Error("another content")
	}
	_, err = root.Unlink("a")
	ok(t, err)
	_, err = sub.Unlink(longName)
	ok(t, err)
	_, err = root.LinkFile("late", f, e, false)
	fails(t, err, unix.ENOENT)
	if n := hostCount(t, v.path); n != 1 {
		t.Errorf("%d host objects", n)
	}
	_, err = root.Rmdir("sub")
	ok(t, err)
	_, err = sub.LinkFile("b", f, e, false)
	fails(t, err, unix.ENOENT)
	v.quiet()
	v.mount(func(c *Config) { c.ReadOnly = true })
	_, _, err = v.Root().Tmpfile(0o600, -1, -1)
	fails(t, err, unix.EROFS)
	_, err = v.Root().LinkFile("b", f, e, false)
	fails(t, err, unix.EROFS)
}

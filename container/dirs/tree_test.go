package dirs

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNewNeeds(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a tree of nothing")
	}
}

func TestOneDirPerDirectory(t *testing.T) {
	v := newVault(t)
	e, err := v.Root().Mkdir("a", 0o700, -1, -1)
	ok(t, err)
	var got [8]*Dir
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			d, err := v.Root().Child("a", e.ID)
			if err != nil {
				t.Error(err)
			}
			got[i] = d
		})
	}
	wg.Wait()
	for _, d := range got {
		if d != got[0] {
			t.Fatal("several Dirs of one directory")
		}
	}
	b := v.mkdir(got[0], "b")
	b.Retain()
	b.Release()
	for _, d := range got {
		d.Release()
	}
	if len(v.dirs) != 3 {
		t.Errorf("%d live directories: a live one does not keep its parent", len(v.dirs))
	}
	list(t, b)
}

// References and memory go back to nothing.
func TestReleaseLeavesNothing(t *testing.T) {
	v := newVault(t)
	at := v.Root()
	var all []*Dir
	for i := range 50 {
		name := fmt.Sprint(i)
		e, err := at.Mkdir(name, 0o700, -1, -1)
		ok(t, err)
		at, err = at.Child(name, e.ID)
		ok(t, err)
		all = append(all, at)
		v.create(at, "f")
	}
	_, _, err := v.Rename(all[10], "11", all[2], "x", 0)
	ok(t, err)
	_, _, err = v.Rename(all[20], "21", all[1], "2", unix.RENAME_EXCHANGE)
	fails(t, err, unix.EINVAL)
	_, _, err = v.Rename(all[20], "21", all[8], "f", unix.RENAME_EXCHANGE)
	ok(t, err)
	_, err = all[49].Unlink("f")
	ok(t, err)
	_, err = all[48].Rmdir("49")
	ok(t, err)
	for i := range all { // any order
		all[(i*7)%50].Release()
	}
	if len(v.dirs) != 1 || v.root.refs != 1 || v.fds.n != 0 || v.fds.ring.next != &v.fds.ring {
		t.Errorf("%d live directories, %d references of the root, %d descriptors", len(v.dirs), v.root.refs, v.fds.n)
	}
	if got := v.links.Load(); got != int64(len(v.root.links)) || v.loaded.Load() != 1 {
		t.Errorf("%d links in %d maps", got, v.loaded.Load())
	}
}

func TestRemovedDirectory(t *testing.T) {
	v := newVault(t, func(c *Config) { c.MaxOpenDirs = 1 })
	root := v.Root()
	gone := v.mkdir(root, "gone")
	other := v.mkdir(root, "other")
	v.mkdir(other, "below")
	e, err := root.Rmdir("gone")
	ok(t, err)
	if e.ID != gone.ID() || !gone.gone.Load() || other.gone.Load() {
		t.Error("not removed")
	}
	if v.dirs[gone.ID()] != nil {
		t.Error("a removed directory would still be answered for its id")
	}
	list(t, v.dir("other/below")) // takes the place of any descriptor that could be evicted
	var st unix.Stat_t
	ok(t, gone.StatSelf(&st))
	ok(t, gone.ChmodSelf(0o711))
	ok(t, gone.StatSelf(&st))
	if st.Mode != unix.S_IFDIR|0o711 || st.Nlink != 0 {
		t.Errorf("mode %o, %d links", st.Mode, st.Nlink)
	}
	ok(t, gone.Sync())
	if list(t, gone) != "" {
		t.Error("entries")
	}
	_, err = gone.Lookup("x")
	fails(t, err, unix.ENOENT)
	_, _, err = gone.CreateFile("x", 0o600, -1, -1)
	fails(t, err, unix.ENOENT)
	_, err = gone.Mkdir("x", 0o600, -1, -1)
	fails(t, err, unix.ENOENT)
	f := v.create(root, "f")
	_, err = gone.Link("x", root, "f", f.ID, false)
	fails(t, err, unix.ENOENT)
	_, _, err = v.Rename(root, "f", gone, "x", 0)
	fails(t, err, unix.ENOENT)
	_, _, err = v.Rename(gone, "x", root, "y", 0)
	fails(t, err, unix.ENOENT)
	_, err = gone.Unlink("x")
	fails(t, err, unix.ENOENT)

	again := v.mkdir(root, "gone")
	if again == gone || again.ID() == gone.ID() {
		t.Error("a removed directory came back")
	}
	// A process may stand in a removed directory, and its handle outlive everything.
	_, err = other.Rmdir("below")
	ok(t, err)
	v.quiet()
}

func TestDeepTree(t *testing.T) {
	depth := 1000
	if testing.Short() {
		depth = 100
	}
	v := newVault(t, func(c *Config) { c.MaxOpenDirs, c.MaxEntries = 8, 16 })
	all := []*Dir{v.Root()}
	for i := range depth {
		at := all[i]
		e, err := at.Mkdir("directory", 0o755, -1, -1)
		ok(t, err)
		x, err := at.Child("directory", e.ID)
		ok(t, err)
		v.create(x, "file")
		all = append(all, x)
	}
	if v.fds.n > 8 {
		t.Errorf("%d descriptors open", v.fds.n)
	}
	if n := v.links.Load(); n > 16+2 {
		t.Errorf("%d links in memory", n)
	}
	for i := range 200 { // far apart, so that most are opened again
		d := all[1+i*617%depth]
		if want := "directory file"; list(t, d) != want && d != all[depth] {
			t.Fatalf("%q", list(t, d))
		}
		var st unix.Stat_t
		ok(t, d.StatSelf(&st))
	}
	_, _, err := v.Rename(all[1], "directory", v.Root(), "second", 0)
	ok(t, err)
	v.create(all[depth], "after")
	_, _, err = v.Rename(v.Root(), "second", all[depth], "x", 0)
	fails(t, err, unix.EINVAL)
	for i := depth; i > 0; i-- {
		all[i].Release()
	}
	if v.fds.n != 0 || len(v.dirs) != 1 {
		t.Errorf("%d descriptors, %d live directories left", v.fds.n, len(v.dirs))
	}
	v.quiet()
}

func TestLargeDirectory(t *testing.T) {
	const n = 20000
	v := newVault(t)
	root := v.Root()
	for i := range n {
		f, _, err := root.CreateFile(fmt.Sprintf("file %d", i), 0o600, -1, -1)
		ok(t, err)
		ok(t, f.Close())
	}
	v.mount()
	root = v.Root()
	all, err := root.Entries()
	ok(t, err)
	if len(all) != n {
		t.Fatalf("%d entries", len(all))
	}
	for i, e := range all {
		if e.Name != fmt.Sprintf("file %d", i) {
			t.Fatalf("entry %d is %q", i, e.Name)
		}
		if i%2 == 0 {
			_, err := root.Unlink(e.Name)
			ok(t, err)
		}
	}
	if len(all) != n { // a snapshot
		t.Error("changed under its reader")
	}
	left, err := root.Entries()
	ok(t, err)
	if len(left) != n/2 || hostCount(t, v.path) != n/2 {
		t.Errorf("%d entries", len(left))
	}
	v.quiet()
}

// Maps are dropped oldest first, and come back as they were.
func TestMaxEntries(t *testing.T) {
	v := newVault(t, func(c *Config) { c.MaxEntries = 100 })
	var all []*Dir
	for i := range 10 {
		d := v.mkdir(v.Root(), fmt.Sprint(i))
		all = append(all, d)
		for k := range 30 {
			v.create(d, fmt.Sprint(k))
		}
		if n := v.links.Load(); n > 100 {
			t.Fatalf("%d links", n)
		}
	}
	loaded := func() (s string) {
		for i, d := range all {
			if d.links != nil {
				s += fmt.Sprint(i)
			}
		}
		return s
	}
	if got := loaded(); got != "789" && got != "89" {
		t.Errorf("loaded: %s", got)
	}
	list(t, all[0])
	list(t, all[8])
	list(t, all[1])
	if got := loaded(); got != "018" {
		t.Errorf("loaded: %s, want 018", got)
	}
	v.put(all[2], fileLink("x", 5, 0))
	v.put(all[2], fileLink("x", 6, 0))
	list(t, all[2])
	if n := len(v.loserLinks); n != 1 {
		t.Errorf("%d losers", n)
	}
	for range 2 {
		for _, d := range all {
			if e, err := d.Entries(); err != nil || len(e) < 30 {
				t.Fatalf("%d entries, %v", len(e), err)
			}
		}
	}
	if n := len(v.loserLinks); n != 0 {
		t.Errorf("%d losers are kept of dropped maps", n)
	}
}

func TestHostRefuses(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root is refused nothing; runs as a user")
	}
	v := newVault(t)
	d := v.mkdir(v.Root(), "d")
	v.create(d, "f")
	ok(t, d.ChmodSelf(0o500))
	_, _, err := d.CreateFile("g", 0o600, -1, -1)
	fails(t, err, unix.EACCES)
	_, err = d.Unlink("f")
	fails(t, err, unix.EACCES)
	_, _, err = v.Rename(d, "f", v.Root(), "f", 0)
	fails(t, err, unix.EACCES)
	if list(t, d) != "f" || list(t, v.Root()) != "d" {
		t.Error("a refused operation shows")
	}
	ok(t, d.ChmodSelf(0o700))
}

package fs

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
)

func TestKilled(t *testing.T) {
	for mode, want := range map[uint32]uint32{
		0o100755: 0o100755,
		0o104755: 0o100755,
		0o102755: 0o100755,
		0o106777: 0o100777,
		0o102745: 0o102745, // no group execute: sgid is no privilege
		0o106745: 0o102745,
		0o101755: 0o101755,
	} {
		if got := killed(mode); got != want {
			t.Errorf("%o: got %o, want %o", mode, got, want)
		}
	}
}

func TestParseWords(t *testing.T) {
	const base = unix.MS_NOSUID | unix.MS_NODEV
	for _, c := range []struct {
		in    []string
		flags uintptr
		words []string
	}{
		{nil, base, nil},
		{[]string{"default_permissions", "rw"}, base, []string{"rw"}},
		{[]string{"ro,noatime", "nodiratime"}, base | unix.MS_RDONLY | unix.MS_NOATIME | unix.MS_NODIRATIME, []string{"ro", "noatime", "nodiratime"}},
		{[]string{"ro", "rw"}, base, []string{"ro", "rw"}},
		{[]string{"suid,dev"}, 0, []string{"suid", "dev"}},
		{[]string{"suid,dev,noexec"}, unix.MS_NOEXEC, []string{"suid", "dev", "noexec"}},
		{[]string{"sync,dirsync,relatime"}, base | unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC | unix.MS_RELATIME, []string{"sync", "dirsync", "relatime"}},
		{[]string{"", "exec,,async"}, base, []string{"exec", "async"}},
	} {
		w, err := parseWords(c.in)
		if err != nil || w.flags != c.flags || !slices.Equal(w.words, c.words) {
			t.Errorf("%q: %#x %q, %v; want %#x %q", c.in, w.flags, w.words, err, c.flags, c.words)
		}
	}
	w, err := parseWords([]string{"suid,dev,fsname=a b,subtype=x,allow_other"})
	if err != nil || w.direct() != unix.MS_MGC_VAL || w.fsName != "a b" || w.subtype != "x" || !w.allowOther {
		t.Errorf("%+v, %v", w, err)
	}
	for _, bad := range []string{"bogus", "ro=1", "fsname", "uid=0"} {
		if _, err := parseWords([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// An inode goes when the kernel has forgotten it and nothing needs it; then its parent's hold goes too.
func TestTableForget(t *testing.T) {
	fs := testTable()
	dir := fs.mustEnter(t, fs.root, "dir", names.Dir, 10)
	file := fs.mustEnter(t, dir, "file", names.File, 11)
	again := fs.mustEnter(t, dir, "file", names.File, 11)
	if again != file || file.lookups != 2 || len(file.links) != 1 {
		t.Fatalf("second lookup: %v, %d lookups, %d links", again == file, file.lookups, len(file.links))
	}
	fs.Forget(dir.node, 1)
	if _, err := fs.node(dir.node); err != nil {
		t.Fatal("a directory went before its child")
	}
	fs.opened(file, true)
	fs.Forget(file.node, 2)
	if n, err := fs.node(file.node); err != nil || n != file {
		t.Fatal("an open file went with FORGET")
	}
	if err := fs.closed(file, true); err != nil {
		t.Fatal(err)
	}
	if len(fs.nodes) != 1 || len(fs.objects) != 1 || fs.root.holds != 0 {
		t.Fatalf("left: %d nodes, %d objects, %d holds on the root", len(fs.nodes), len(fs.objects), fs.root.holds)
	}
	next := fs.mustEnter(t, fs.root, "dir", names.Dir, 10)
	if next.node <= file.node {
		t.Error("a node id was given twice")
	}
}

func TestTableLinks(t *testing.T) {
	fs := testTable()
	a := fs.mustEnter(t, fs.root, "a", names.File, 11)
	b := fs.mustEnter(t, fs.root, "b", names.File, 11)
	if a != b || len(a.links) != 2 {
		t.Fatalf("hard links do not merge: %d links", len(a.links))
	}
	a.loc.Lock()
	fs.removeLinkLocked(a, fs.root, "a")
	fs.removeLinkLocked(a, fs.root, "b")
	fs.removeLinkLocked(a, fs.root, "never")
	a.loc.Unlock()
	if len(a.links) != 0 || len(a.left) != 1 || fs.root.holds != 1 {
		t.Fatalf("%d links, %d left, %d holds", len(a.links), len(a.left), fs.root.holds)
	}
	fs.Forget(a.node, 2)
	if fs.root.holds != 0 {
		t.Errorf("%d holds on the root", fs.root.holds)
	}
}

func TestTableDuplicate(t *testing.T) {
	fs := testTable()
	first := fs.mustEnter(t, fs.root, "a", names.File, 11)
	e := testEntry("copy", names.File, 11)
	n, err := fs.enter(fs.root, e, &unix.Stat_t{Ino: 99})
	if err != nil || n == first || !n.refused {
		t.Fatalf("second host inode under one id: %+v, %v", n, err)
	}
	if _, err := fs.node(n.node); err != dirs.ErrDuplicate {
		t.Errorf("it can be used: %v", err)
	}
	fs.Forget(n.node, 1)
	if fs.objects[first.id] != first || len(fs.nodes) != 2 || fs.root.holds != 1 {
		t.Errorf("the first one went with it: %d nodes, %d holds", len(fs.nodes), fs.root.holds)
	}
	e.Type = names.Dir
	if _, err := fs.enter(fs.root, e, &unix.Stat_t{Ino: 99}); err != dirs.ErrDuplicate {
		t.Errorf("a directory under the id: %v", err)
	}
}

func testTable() *FS {
	fs := &FS{nodes: map[uint64]*inode{}, objects: map[keys.ObjectID]*inode{}, unsynced: map[keys.ObjectID]*dirChanges{}}
	fs.root = &inode{node: 1, typ: typeDir, lookups: 1}
	fs.lastNode = 1
	fs.nodes[1] = fs.root
	fs.objects[fs.root.id] = fs.root
	return fs
}

func testEntry(name string, typ names.Type, id byte) dirs.Entry {
	return dirs.Entry{Name: name, Type: typ, ID: keys.ObjectID{id}}
}

func (fs *FS) mustEnter(t *testing.T, parent *inode, name string, typ names.Type, id byte) *inode {
	t.Helper()
	n, err := fs.enter(parent, testEntry(name, typ, id), &unix.Stat_t{Ino: uint64(id)})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

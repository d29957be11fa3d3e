package disktest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

func testBadComponent(t *testing.T, d disk.Dir) {
	ok(t, d.Mkdir("sub", 0o700))
	write(t, d, "sub2", "")
	var st unix.Stat_t
	for _, name := range []string{"", ".", "..", "sub/x", "/", "/etc", "a\x00b"} {
		fails(t, d.Stat(name, &st), syscall.EINVAL, name)
		_, err := d.Open(name, disk.ReadOnly)
		fails(t, err, syscall.EINVAL, name)
		_, err = d.OpenDir(name)
		fails(t, err, syscall.EINVAL, name)
		_, err = d.OpenPath(name)
		fails(t, err, syscall.EINVAL, name)
		_, err = d.Create(name, 0o600)
		fails(t, err, syscall.EINVAL, name)
		fails(t, d.Mkdir(name, 0o700), syscall.EINVAL, name)
		fails(t, d.Rename("sub2", d, name, 0), syscall.EINVAL, name)
		fails(t, d.Rename(name, d, "x", 0), syscall.EINVAL, name)
		fails(t, d.Link("sub2", d, name), syscall.EINVAL, name)
		fails(t, d.Unlink(name), syscall.EINVAL, name)
		fails(t, d.Rmdir(name), syscall.EINVAL, name)
		fails(t, d.Chmod(name, 0o700), syscall.EINVAL, name)
	}
}

func testDirectories(t *testing.T, d disk.Dir) {
	ok(t, d.Mkdir("a", 0o700))
	fails(t, d.Mkdir("a", 0o700), syscall.EEXIST, "a")
	a, err := d.OpenDir("a")
	ok(t, err)
	defer a.Close()
	write(t, a, "f", "inside")
	fails(t, d.Rmdir("a"), syscall.ENOTEMPTY, "a")
	fails(t, d.Unlink("a"), syscall.EISDIR, "a")
	fails(t, a.Rmdir("f"), syscall.ENOTDIR, "f")
	_, err = d.OpenDir("none")
	fails(t, err, syscall.ENOENT, "none")
	ok(t, a.Unlink("f"))
	ok(t, d.Rmdir("a"))
	fails(t, d.Rmdir("a"), syscall.ENOENT, "a")
}

func testList(t *testing.T, d disk.Dir) {
	if got := list(t, d); got != "" {
		t.Fatalf("a new directory lists %q", got)
	}
	write(t, d, "file", "")
	ok(t, d.Mkdir("dir", 0o700))
	ok(t, d.Symlink("x", "link"))
	ok(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	want := map[string]uint8{"file": unix.DT_REG, "dir": unix.DT_DIR, "link": unix.DT_LNK, "fifo": unix.DT_FIFO}
	ok(t, d.List(func(name string, ino uint64, typ uint8) error {
		w, known := want[name]
		delete(want, name)
		if !known || typ != w && typ != unix.DT_UNKNOWN {
			t.Errorf("%s: type %d, want %d", name, typ, w)
		}
		var st unix.Stat_t
		ok(t, d.Stat(name, &st)) // a callback may use the directory
		if st.Ino != ino {
			t.Errorf("%s: inode %d, stat says %d", name, ino, st.Ino)
		}
		return nil
	}))
	if len(want) != 0 {
		t.Fatalf("not listed: %v", want)
	}
	stop := errors.New("stop")
	calls := 0
	if err := d.List(func(string, uint64, uint8) error { calls++; return stop }); err != stop || calls != 1 {
		t.Fatalf("the callback's error is answered as %v after %d calls", err, calls)
	}
	if got := list(t, d); got != "dir fifo file link" {
		t.Fatalf("a second list sees %q", got)
	}
}

func testListConcurrent(t *testing.T, d disk.Dir) {
	const n = 3000 // more than one buffer of names
	for i := range n {
		write(t, d, fmt.Sprintf("%0100d", i), "")
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			seen := make(map[string]int)
			if err := d.List(func(name string, _ uint64, _ uint8) error { seen[name]++; return nil }); err != nil {
				t.Error(err)
			}
			if len(seen) != n {
				t.Errorf("%d names, want %d", len(seen), n)
			}
			for name, k := range seen {
				if k != 1 {
					t.Errorf("%s seen %d times", name, k)
				}
			}
		})
	}
	wg.Wait()
}

func testRemoved(t *testing.T, d disk.Dir) {
	ok(t, d.Mkdir("a", 0o700))
	a, err := d.OpenDir("a")
	ok(t, err)
	defer a.Close()
	ok(t, d.Rmdir("a"))
	var st unix.Stat_t
	ok(t, a.StatSelf(&st))
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Fatalf("mode %o", st.Mode)
	}
	if got := list(t, a); got != "" {
		t.Fatalf("a removed directory lists %q", got)
	}
	_, err = a.Create("x", 0o600)
	fails(t, err, syscall.ENOENT, "x")
	fails(t, a.Mkdir("x", 0o700), syscall.ENOENT, "x")
	ok(t, a.ChmodSelf(0o711))
	ok(t, a.StatSelf(&st))
	if st.Mode&0o777 != 0o711 {
		t.Fatalf("mode %o", st.Mode)
	}
}

func testSymlink(t *testing.T, d disk.Dir) {
	target := strings.Repeat("t", 4000)
	ok(t, d.Symlink(target, "l"))
	got, err := d.Readlink("l")
	ok(t, err)
	if got != target {
		t.Fatalf("target of %d bytes", len(got))
	}
	fails(t, d.Symlink("x", "l"), syscall.EEXIST, "l")
	write(t, d, "f", "")
	_, err = d.Readlink("f")
	fails(t, err, syscall.EINVAL, "f")
	var st unix.Stat_t
	ok(t, d.Stat("l", &st))
	if st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Size != 4000 {
		t.Fatalf("mode %o, size %d", st.Mode, st.Size)
	}
	fails(t, d.Symlink(strings.Repeat("t", 4096), "m"), syscall.ENAMETOOLONG, "m")
}

func testLink(t *testing.T, d disk.Dir) {
	write(t, d, "a", "one")
	ok(t, d.Mkdir("sub", 0o700))
	sub, err := d.OpenDir("sub")
	ok(t, err)
	defer sub.Close()
	ok(t, d.Link("a", sub, "b"))
	ok(t, d.Link("a", d, "c"))
	fails(t, d.Link("a", d, "c"), syscall.EEXIST, "a")
	fails(t, d.Link("none", d, "x"), syscall.ENOENT, "none")
	var s1, s2 unix.Stat_t
	ok(t, d.Stat("a", &s1))
	ok(t, sub.Stat("b", &s2))
	if s1.Ino != s2.Ino || s1.Nlink != 3 {
		t.Fatalf("inodes %d and %d, %d links", s1.Ino, s2.Ino, s1.Nlink)
	}
	ok(t, d.Symlink("a", "l"))
	ok(t, d.Link("l", d, "l2")) // the link, not what it points to
	got, err := d.Readlink("l2")
	ok(t, err)
	if got != "a" {
		t.Fatalf("target %q", got)
	}
}

func testTmpfile(t *testing.T, d disk.Dir) {
	f, err := d.Tmpfile(0o640)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("the host makes no files without names")
	}
	ok(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("content"), 0)
	ok(t, err)
	var st unix.Stat_t
	ok(t, f.Stat(&st))
	if st.Nlink != 0 || st.Mode != unix.S_IFREG|0o640 || list(t, d) != "" {
		t.Fatalf("%d links, mode %o, names %q", st.Nlink, st.Mode, list(t, d))
	}
	ok(t, d.Mkdir("sub", 0o700))
	sub, err := d.OpenDir("sub")
	ok(t, err)
	defer sub.Close()
	ok(t, sub.LinkFile(f, "a"))
	ok(t, d.LinkFile(f, "b"))
	fails(t, d.LinkFile(f, "b"), syscall.EEXIST, "b")
	fails(t, d.LinkFile(f, "x/y"), syscall.EINVAL, "x/y")
	if got := read(t, sub, "a"); got != "content" {
		t.Fatalf("read %q", got)
	}
	ok(t, sub.Unlink("a"))
	ok(t, d.Unlink("b"))
	fails(t, d.LinkFile(f, "b"), syscall.ENOENT, "b")
	_, err = f.WriteAt([]byte("more"), 0)
	ok(t, err)
	p, err := func() (disk.File, error) { write(t, d, "c", "by path"); return d.OpenPath("c") }()
	ok(t, err)
	defer p.Close()
	ok(t, d.LinkFile(p, "d"))
	if got := read(t, d, "d"); got != "by path" {
		t.Fatalf("read %q", got)
	}
}

func testRename(t *testing.T, d disk.Dir) {
	write(t, d, "a", "one")
	write(t, d, "b", "two")
	ok(t, d.Mkdir("sub", 0o700))
	sub, err := d.OpenDir("sub")
	ok(t, err)
	defer sub.Close()
	ok(t, d.Rename("a", d, "b", 0))
	if got := read(t, d, "b"); got != "one" {
		t.Fatalf("b is %q", got)
	}
	ok(t, d.Rename("b", sub, "c", 0))
	if list(t, d) != "sub" || list(t, sub) != "c" {
		t.Fatalf("%q and %q", list(t, d), list(t, sub))
	}
	fails(t, d.Rename("none", d, "x", 0), syscall.ENOENT, "none")
	fails(t, d.Rename("sub", sub, "x", 0), syscall.EINVAL, "sub")
	write(t, d, "file", "")
	fails(t, d.Rename("file", d, "sub", 0), syscall.EISDIR, "file")
	fails(t, d.Rename("sub", d, "file", 0), syscall.ENOTDIR, "sub")
	ok(t, d.Mkdir("other", 0o700))
	fails(t, d.Rename("other", d, "sub", 0), syscall.ENOTEMPTY, "other")
	ok(t, sub.Unlink("c"))
	ok(t, d.Rename("other", d, "sub", 0))
	write(t, d, "keep", "")
	ok(t, d.Link("keep", d, "same"))
	ok(t, d.Rename("keep", d, "same", 0)) // two names of one file: POSIX has this do nothing
	if got := list(t, d); got != "file keep same sub" {
		t.Fatal(got)
	}
}

func testRenameFlags(t *testing.T, d disk.Dir) {
	write(t, d, "a", "one")
	write(t, d, "b", "two")
	fails(t, d.Rename("a", d, "b", unix.RENAME_NOREPLACE), syscall.EEXIST, "a")
	ok(t, d.Rename("a", d, "c", unix.RENAME_NOREPLACE))
	ok(t, d.Rename("b", d, "c", unix.RENAME_EXCHANGE))
	if read(t, d, "b") != "one" || read(t, d, "c") != "two" {
		t.Fatal("not exchanged")
	}
	fails(t, d.Rename("b", d, "none", unix.RENAME_EXCHANGE), syscall.ENOENT, "b")
}

func testUnlink(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	defer f.Close()
	ok(t, d.Unlink("a"))
	fails(t, d.Unlink("a"), syscall.ENOENT, "a")
	_, err = f.WriteAt([]byte("still here"), 0)
	ok(t, err)
	b := make([]byte, 10)
	_, err = f.ReadAt(b, 0)
	ok(t, err)
	var st unix.Stat_t
	ok(t, f.Stat(&st))
	if string(b) != "still here" || st.Nlink != 0 {
		t.Fatalf("%q, %d links", b, st.Nlink)
	}
}

func testLongName(t *testing.T, d disk.Dir) {
	long := strings.Repeat("n", 255)
	write(t, d, long, "x")
	if got := list(t, d); got != long {
		t.Fatal(got)
	}
	_, err := d.Create(long+"n", 0o600)
	fails(t, err, syscall.ENAMETOOLONG, long+"n")
}

func testDeep(t *testing.T, d disk.Dir) {
	name := strings.Repeat("d", 200) // 64 of them are longer than PATH_MAX
	at := d
	for range 64 {
		ok(t, at.Mkdir(name, 0o700))
		next, err := at.OpenDir(name)
		ok(t, err)
		t.Cleanup(func() { next.Close() })
		at = next
	}
	write(t, at, "f", "deep")
	ok(t, at.Rename("f", d, "f", 0))
	if read(t, d, "f") != "deep" {
		t.Fatal("lost on the way up")
	}
}

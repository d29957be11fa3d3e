package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// TestDir runs the suite. newRoot answers a new empty directory that the test closes.
func TestDir(t *testing.T, newRoot func(t *testing.T) disk.Dir) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, d disk.Dir)
	}{
		{"create_open", testCreateOpen},
		{"read_write", testReadWrite},
		{"truncate_punch", testTruncatePunch},
		{"not_regular", testNotRegular},
		{"bad_component", testBadComponent},
		{"directories", testDirectories},
		{"list", testList},
		{"list_concurrent", testListConcurrent},
		{"removed_directory", testRemoved},
		{"symlink", testSymlink},
		{"link", testLink},
		{"rename", testRename},
		{"rename_flags", testRenameFlags},
		{"unlink", testUnlink},
		{"special_files", testSpecial},
		{"attributes", testAttributes},
		{"path_only", testPathOnly},
		{"long_name", testLongName},
		{"deep", testDeep},
		{"sync_and_statfs", testSync},
		{"close", testClose},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newRoot(t)
			t.Cleanup(func() { d.Close() })
			c.run(t, d)
		})
	}
}

// fails checks class and shape of an error: a *fs.PathError whose Path is the name given.
func fails(t *testing.T, err error, want error, path string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		t.Fatalf("error is a %T, want *fs.PathError", err)
	}
	if pe.Path != path {
		t.Fatalf("path of the error is %q, want %q", pe.Path, path)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, d disk.Dir, name, content string) {
	t.Helper()
	f, err := d.Create(name, 0o600)
	ok(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	ok(t, err)
	ok(t, f.Close())
}

func read(t *testing.T, d disk.Dir, name string) string {
	t.Helper()
	f, err := d.Open(name, true)
	ok(t, err)
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	ok(t, err)
	return string(b)
}

func list(t *testing.T, d disk.Dir) string {
	t.Helper()
	var s []string
	ok(t, d.List(func(name string, _ uint64, _ uint8) error { s = append(s, name); return nil }))
	sort.Strings(s)
	return strings.Join(s, " ")
}

func testCreateOpen(t *testing.T, d disk.Dir) {
	_, err := d.Open("a", false)
	fails(t, err, syscall.ENOENT, "a")
	write(t, d, "a", "one")
	_, err = d.Create("a", 0o600)
	fails(t, err, syscall.EEXIST, "a")
	if got := read(t, d, "a"); got != "one" {
		t.Fatalf("read %q", got)
	}
	f, err := d.Open("a", true)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 0)
	fails(t, err, syscall.EBADF, "")

	// Access is checked when a file is opened: one made read-only is still written by whoever made it.
	g, err := d.Create("b", 0o400)
	ok(t, err)
	defer g.Close()
	_, err = g.WriteAt([]byte("x"), 0)
	ok(t, err)
}

func testReadWrite(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	defer f.Close()
	n, err := f.ReadAt(make([]byte, 1), 0)
	if n != 0 || err != io.EOF {
		t.Fatalf("read of an empty file: %d, %v", n, err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB
	n, err = f.WriteAt(big, 4096)
	if n != len(big) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	got := make([]byte, len(big))
	n, err = f.ReadAt(got, 4096)
	if n != len(big) || err != nil || !bytes.Equal(got, big) {
		t.Fatalf("read: %d, %v", n, err)
	}
	n, err = f.ReadAt(got[:4096], 0)
	if n != 4096 || err != nil || !bytes.Equal(got[:4096], make([]byte, 4096)) {
		t.Fatalf("the gap before the first write is not zeros: %d, %v", n, err)
	}
	n, err = f.ReadAt(got, 4096+int64(len(big))-10)
	if n != 10 || err != io.EOF || string(got[:10]) != "6789abcdef" {
		t.Fatalf("read over the end: %d, %v", n, err)
	}
	n, err = f.ReadAt(nil, 0)
	if n != 0 || err != nil {
		t.Fatalf("empty read: %d, %v", n, err)
	}
	_, err = f.ReadAt(got[:1], -1)
	fails(t, err, syscall.EINVAL, "")
	_, err = f.WriteAt(got[:1], -1)
	fails(t, err, syscall.EINVAL, "")

	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte('A' + w)}, 5000)
			if _, err := f.WriteAt(p, int64(w)*5000); err != nil {
				t.Error(err)
			}
			q := make([]byte, 5000)
			if _, err := f.ReadAt(q, int64(w)*5000); err != nil || !bytes.Equal(p, q) {
				t.Errorf("worker %d reads something else, %v", w, err)
			}
		})
	}
	wg.Wait()
}

func testTruncatePunch(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat([]byte{7}, 3*4096), 0)
	ok(t, err)
	switch err := f.Punch(4096, 4096); {
	case errors.Is(err, syscall.EOPNOTSUPP):
		t.Log("the host punches no holes")
	default:
		ok(t, err)
		b := make([]byte, 3*4096)
		_, err = f.ReadAt(b, 0)
		ok(t, err)
		want := bytes.Repeat([]byte{7}, 3*4096)
		clear(want[4096:8192])
		if !bytes.Equal(b, want) {
			t.Fatal("the hole is not where it was punched")
		}
		ok(t, f.Punch(1<<20, 4096)) // beyond the end: the length stays
		ok(t, f.Punch(0, 0))
	}
	var st unix.Stat_t
	ok(t, f.Stat(&st))
	if st.Size != 3*4096 {
		t.Fatalf("size %d after a punch", st.Size)
	}
	ok(t, f.Truncate(100))
	ok(t, f.Truncate(1<<33+1))
	ok(t, f.Stat(&st))
	if st.Size != 1<<33+1 {
		t.Fatalf("size %d after an extension", st.Size)
	}
	b := make([]byte, 200)
	_, err = f.ReadAt(b, 0)
	ok(t, err)
	if !bytes.Equal(b, append(bytes.Repeat([]byte{7}, 100), make([]byte, 100)...)) {
		t.Fatal("bytes cut off came back")
	}
	fails(t, f.Truncate(-1), syscall.EINVAL, "")
}

func testNotRegular(t *testing.T, d disk.Dir) {
	ok(t, d.Mkdir("dir", 0o700))
	ok(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	ok(t, d.Mknod("sock", unix.S_IFSOCK|0o600, 0))
	write(t, d, "file", "x")
	ok(t, d.Symlink("file", "link"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, ro := range []bool{false, true} {
			for _, name := range []string{"dir", "fifo", "sock"} {
				f, err := d.Open(name, ro)
				if !errors.Is(err, disk.ErrNotRegular) {
					t.Errorf("open %s, read-only %v: %v", name, ro, err)
				}
				if err == nil {
					f.Close()
				}
			}
			if _, err := d.Open("link", ro); !errors.Is(err, syscall.ELOOP) {
				t.Errorf("open of a symlink: %v", err)
			}
		}
		for _, name := range []string{"fifo", "sock", "file"} {
			if _, err := d.OpenDir(name); !errors.Is(err, syscall.ENOTDIR) {
				t.Errorf("open %s as a directory: %v", name, err)
			}
		}
		ok(t, d.Symlink("dir", "dirlink"))
		if _, err := d.OpenDir("dirlink"); !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.ELOOP) {
			t.Errorf("open of a symlink to a directory: %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("an open hangs")
	}
}

func testBadComponent(t *testing.T, d disk.Dir) {
	ok(t, d.Mkdir("sub", 0o700))
	write(t, d, "sub2", "")
	var st unix.Stat_t
	for _, name := range []string{"", ".", "..", "sub/x", "/", "/etc", "a\x00b"} {
		fails(t, d.Stat(name, &st), syscall.EINVAL, name)
		_, err := d.Open(name, true)
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

func testSpecial(t *testing.T, d disk.Dir) {
	kinds := map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK}
	if os.Geteuid() == 0 {
		kinds["char"], kinds["block"] = unix.S_IFCHR, unix.S_IFBLK
	}
	for name, kind := range kinds {
		dev := uint64(0)
		if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			dev = unix.Mkdev(7, 300)
		}
		err := d.Mknod(name, kind|0o600, dev)
		if dev != 0 && errors.Is(err, syscall.EPERM) {
			t.Logf("no device nodes here: %v", err)
			continue
		}
		ok(t, err)
		var st unix.Stat_t
		ok(t, d.Stat(name, &st))
		if st.Mode&unix.S_IFMT != kind || st.Rdev != dev {
			t.Errorf("%s: mode %o, device %x", name, st.Mode, st.Rdev)
		}
	}
}

var someTimes = [2]unix.Timespec{{Sec: 1000000007, Nsec: 123456789}, {Sec: -5, Nsec: 999999999}}

func sameTimes(t *testing.T, st *unix.Stat_t) {
	t.Helper()
	if st.Atim != someTimes[0] || st.Mtim != someTimes[1] {
		t.Fatalf("times are %v %v, want %v", st.Atim, st.Mtim, someTimes)
	}
}

// owner answers ids that this process may give away.
func owner() (uid, gid int) {
	if os.Geteuid() == 0 {
		return 12345, 54321
	}
	return os.Getuid(), os.Getgid()
}

func testAttributes(t *testing.T, d disk.Dir) {
	uid, gid := owner()
	write(t, d, "f", "")
	ok(t, d.Mkdir("dir", 0o700))
	ok(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	ok(t, d.Symlink("f", "l"))
	var st unix.Stat_t
	for _, name := range []string{"f", "dir", "fifo"} {
		ok(t, d.Chown(name, uid, gid))
		ok(t, d.Chmod(name, 0o751))
		ok(t, d.Utimes(name, &someTimes))
		ok(t, d.Stat(name, &st))
		if st.Mode&0o7777 != 0o751 || int(st.Uid) != uid || int(st.Gid) != gid {
			t.Fatalf("%s: mode %o, owner %d:%d", name, st.Mode, st.Uid, st.Gid)
		}
		sameTimes(t, &st)
		ok(t, d.Chown(name, -1, -1))
		ok(t, d.Utimes(name, &[2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}))
		ok(t, d.Stat(name, &st))
		sameTimes(t, &st)
		fails(t, d.Chmod("none", 0o700), syscall.ENOENT, "none")
		fails(t, d.Chown("none", -1, -1), syscall.ENOENT, "none")
		fails(t, d.Utimes("none", &someTimes), syscall.ENOENT, "none")
	}
	fails(t, d.Chmod("l", 0o600), syscall.EOPNOTSUPP, "l")
	ok(t, d.Chown("l", uid, gid))
	ok(t, d.Utimes("l", &someTimes))
	ok(t, d.Stat("l", &st))
	sameTimes(t, &st)
	ok(t, d.Stat("f", &st))
	if st.Mode&0o7777 != 0o751 {
		t.Fatal("chmod followed a link")
	}

	f, err := d.Open("f", false)
	ok(t, err)
	defer f.Close()
	ok(t, f.Chmod(0o4640))
	ok(t, f.Utimes(&[2]unix.Timespec{{Sec: 1}, {Sec: 2}}))
	ok(t, f.Chown(-1, -1))
	ok(t, f.Chmod(0o4640)) // the host's chown clears the set-id bits
	ok(t, d.Stat("f", &st))
	if st.Mode&0o7777 != 0o4640 || st.Atim.Sec != 1 || st.Mtim.Sec != 2 {
		t.Fatalf("mode %o, times %v %v", st.Mode, st.Atim, st.Mtim)
	}
	birth, err := f.BirthTime()
	ok(t, err)
	if birth < 0 {
		t.Fatalf("birth time %d", birth)
	}

	sub, err := d.OpenDir("dir")
	ok(t, err)
	defer sub.Close()
	ok(t, sub.ChownSelf(uid, gid))
	ok(t, sub.ChmodSelf(0o1711))
	ok(t, sub.UtimesSelf(&someTimes))
	ok(t, sub.StatSelf(&st))
	if st.Mode&0o7777 != 0o1711 {
		t.Fatalf("mode %o", st.Mode)
	}
	sameTimes(t, &st)
}

func testPathOnly(t *testing.T, d disk.Dir) {
	uid, gid := owner()
	write(t, d, "file", "x")
	ok(t, d.Mkdir("dir", 0o700))
	ok(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	ok(t, d.Symlink("file", "link"))
	_, err := d.OpenPath("none")
	fails(t, err, syscall.ENOENT, "none")
	for _, name := range []string{"file", "dir", "fifo", "link"} {
		f, err := d.OpenPath(name)
		ok(t, err)
		var before, st unix.Stat_t
		ok(t, d.Stat(name, &before))
		if name == "dir" {
			ok(t, d.Rmdir(name))
		} else {
			ok(t, d.Unlink(name))
		}
		ok(t, f.Stat(&st))
		if st.Ino != before.Ino || st.Mode != before.Mode {
			t.Fatalf("%s: another object", name)
		}
		ok(t, f.Chown(uid, gid))
		if name == "link" {
			fails(t, f.Chmod(0o611), syscall.EOPNOTSUPP, "")
		} else {
			ok(t, f.Chmod(0o611))
		}
		ok(t, f.Utimes(&someTimes))
		ok(t, f.Stat(&st))
		sameTimes(t, &st)
		if name != "link" && st.Mode&0o7777 != 0o611 || int(st.Uid) != uid || int(st.Gid) != gid {
			t.Fatalf("%s: mode %o, owner %d:%d", name, st.Mode, st.Uid, st.Gid)
		}
		_, err = f.ReadAt(make([]byte, 1), 0)
		fails(t, err, syscall.EBADF, "")
		_, err = f.WriteAt(make([]byte, 1), 0)
		fails(t, err, syscall.EBADF, "")
		fails(t, f.Truncate(0), syscall.EBADF, "")
		fails(t, f.Sync(), syscall.EBADF, "")
		fails(t, f.Datasync(), syscall.EBADF, "")
		_, err = f.BirthTime()
		ok(t, err)
		ok(t, f.Close())
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

func testSync(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	defer f.Close()
	ok(t, f.Datasync())
	ok(t, f.Sync())
	ok(t, d.Sync())
	var st unix.Statfs_t
	ok(t, d.Statfs(&st))
	if st.Bsize <= 0 || st.Namelen < 255 {
		t.Fatalf("block size %d, names of %d", st.Bsize, st.Namelen)
	}
}

func testClose(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	ok(t, f.Close())
	fails(t, f.Close(), syscall.EBADF, "")
	_, err = f.ReadAt(make([]byte, 1), 0)
	fails(t, err, syscall.EBADF, "")
	_, err = f.WriteAt(make([]byte, 1), 0)
	fails(t, err, syscall.EBADF, "")
	fails(t, f.Sync(), syscall.EBADF, "")
	ok(t, d.Mkdir("sub", 0o700))
	sub, err := d.OpenDir("sub")
	ok(t, err)
	ok(t, sub.Close())
	fails(t, sub.Close(), syscall.EBADF, "")
	_, err = sub.Create("a", 0o600)
	fails(t, err, syscall.EBADF, "a")
	fails(t, sub.List(func(string, uint64, uint8) error { return nil }), syscall.EBADF, "")
}

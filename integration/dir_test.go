package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func listing(t testing.TB, dir string) (all []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		all = append(all, e.Name())
	}
	return all
}

// Who lists a directory while its names go away sees each of the others exactly once.
func TestReaddirWhileDeleting(t *testing.T) {
	m := mount(t, options{})
	const count = 2000
	want := map[string]bool{}
	for i := range count {
		name := fmt.Sprintf("file-%04d", i)
		m.write(name, nil)
		if i%2 == 0 {
			want[name] = true
		}
	}
	f, err := os.Open(m.dir)
	m.must(err)
	defer f.Close()
	seen := map[string]int{}
	for {
		list, err := f.Readdirnames(50)
		if len(list) == 0 {
			break
		}
		m.must(err)
		for _, name := range list {
			seen[name]++
			if name >= "file-1000" || !want[name] {
				continue
			}
			var i int
			fmt.Sscanf(name, "file-%d", &i)
			m.must(os.Remove(m.path(fmt.Sprintf("file-%04d", count-1-i)))) // odd ones, from the end
		}
	}
	for name := range want {
		if seen[name] != 1 {
			t.Errorf("%s was seen %d times", name, seen[name])
		}
	}
	for name, n := range seen {
		if n > 1 {
			t.Errorf("%s was seen %d times", name, n)
		}
	}
	if got := listing(t, m.dir); len(got) != count*3/4 {
		t.Errorf("%d names left, want %d", len(got), count*3/4)
	}
}

func TestNames(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		var all []string
		for _, name := range []string{
			"a", "with space", "new\nline", "\xff\xfe not UTF-8 \x80", "ümlaut", "U\u0308mlaut", "名前", ".hidden", "...", "-rf", "*?[]", "a\\b",
			strings.Repeat("n", 255), strings.Repeat("\xe9", 255), strings.Repeat("x", 146), strings.Repeat("x", 147), strings.Repeat("x", 150), "config", ".coffer",
		} {
			m.must(os.WriteFile(m.dir+"/"+name, []byte(name), 0o600))
			all = append(all, name)
		}
		slices.Sort(all)
		for range 2 {
			got := listing(t, m.dir)
			slices.Sort(got)
			if !slices.Equal(got, all) {
				t.Errorf("got %q, want %q", got, all)
			}
			for _, name := range all {
				m.want(m.dir+"/"+name, []byte(name))
			}
			m.remount()
		}
		for _, name := range all {
			m.must(os.Rename(m.dir+"/"+name, m.dir+"/"+"moved"))
			m.must(os.Rename(m.dir+"/"+"moved", m.dir+"/"+name))
			m.must(os.Remove(m.dir + "/" + name))
		}
		if err := os.WriteFile(m.path(strings.Repeat("n", 256)), nil, 0o600); !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("256 bytes: %v", err)
		}
		m.stop()
		if n := m.host(); len(n) != 0 {
			t.Errorf("left on the host: %q", n)
		}
		m.start()
	})
}

func TestHardLinks(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		m.must(os.Mkdir(m.path("d"), 0o755))
		data := patterned(10_000)
		a, b, c := m.write("a", data), m.path("b"), m.path("d", "c")
		m.must(os.Link(a, b))
		m.must(os.Link(b, c))
		check := func(links uint64, paths ...string) {
			t.Helper()
			ino := lstat(t, paths[0]).Ino
			for _, p := range paths {
				if st := lstat(t, p); st.Ino != ino || uint64(st.Nlink) != links || st.Size != int64(len(data)) {
					t.Errorf("%s: inode %d of %d, %d links, %d bytes", p, st.Ino, ino, st.Nlink, st.Size)
				}
				m.want(p, data)
			}
		}
		check(3, a, b, c)
		ino := lstat(t, a).Ino
		m.remount()
		check(3, c, b, a)
		if got := lstat(t, a).Ino; got != ino {
			t.Errorf("inode number changed from %d to %d", ino, got)
		}
		f, err := os.OpenFile(b, os.O_RDWR, 0)
		m.must(err)
		data = append(data, "more"...)
		_, err = f.WriteAt([]byte("more"), 10_000)
		m.must(err)
		check(3, a, b, c)
		m.must(os.Remove(a))
		check(2, b, c)
		m.must(os.Rename(c, a))
		check(2, a, b)
		m.must(os.Remove(b))
		m.must(f.Sync())
		check(1, a)
		if st := fstat(t, f); st.Nlink != 1 {
			t.Errorf("open file has %d links", st.Nlink)
		}
		m.must(f.Close())
		m.remount()
		check(1, a)
		m.must(os.Symlink("nowhere", m.path("s")))
		m.must(os.Link(m.path("s"), m.path("s2")))
		if target, err := os.Readlink(m.path("s2")); err != nil || target != "nowhere" {
			t.Errorf("link of a symlink: %q, %v", target, err)
		}
		if err := os.Link(m.path("d"), m.path("d2")); !errors.Is(err, unix.EPERM) {
			t.Errorf("link of a directory: %v", err)
		}
	})
}

func TestRename(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		rename := func(old, new string, flags uint) error {
			return unix.Renameat2(unix.AT_FDCWD, m.path(old), unix.AT_FDCWD, m.path(new), flags)
		}
		m.must(os.MkdirAll(m.path("x", "y", "z"), 0o755))
		m.write("a", []byte("A"))
		m.write("b", []byte("B"))
		if err := rename("a", "b", unix.RENAME_NOREPLACE); err != unix.EEXIST {
			t.Errorf("NOREPLACE over a name: %v", err)
		}
		m.must(rename("a", "c", unix.RENAME_NOREPLACE))
		m.must(rename("b", "c", unix.RENAME_EXCHANGE))
		m.want(m.path("b"), []byte("A"))
		m.want(m.path("c"), []byte("B"))
		m.must(rename("c", "x", unix.RENAME_EXCHANGE))
		m.want(m.path("x"), []byte("B"))
		if err := rename("c", "none", unix.RENAME_EXCHANGE); err != unix.ENOENT {
			t.Errorf("EXCHANGE with nothing: %v", err)
		}
		if err := rename("x", "c", unix.RENAME_WHITEOUT|unix.RENAME_EXCHANGE); err != unix.EINVAL {
			t.Errorf("WHITEOUT and EXCHANGE: %v", err)
		}
		if err := rename("c", "c/y/z/c", 0); err != unix.EINVAL {
			t.Errorf("directory into itself: %v", err)
		}
		m.must(os.Mkdir(m.path("full"), 0o755))
		m.write("full/file", []byte("F"))
		if err := rename("c", "full", 0); err != unix.ENOTEMPTY {
			t.Errorf("over a full directory: %v", err)
		}
		if err := os.Remove(m.path("full")); !errors.Is(err, unix.ENOTEMPTY) {
			t.Errorf("rmdir of a full directory: %v", err)
		}
		if err := rename("x", "full", 0); err != unix.EISDIR {
			t.Errorf("file over directory: %v", err)
		}
		// An open file below a directory that moves twice.
		m.write("c/y/z/deep", []byte("deep"))
		f, err := os.OpenFile(m.path("c/y/z/deep"), os.O_RDWR, 0)
		m.must(err)
		m.must(rename("c/y", "y", 0))
		m.must(rename("y", "full/y", 0))
		_, err = f.WriteAt([]byte("DEEP"), 0)
		m.must(err)
		m.must(f.Sync())
		m.must(f.Close())
		m.must(os.Chmod(m.path("full/y/z/deep"), 0o600))
		m.must(os.Mkdir(m.path("empty"), 0o755))
		m.must(rename("c", "empty", 0))
		m.remount()
		m.want(m.path("full/y/z/deep"), []byte("DEEP"))
		m.want(m.path("full/file"), []byte("F"))
		got := listing(t, m.dir)
		slices.Sort(got)
		if want := []string{"b", "empty", "full", "x"}; !slices.Equal(got, want) {
			t.Errorf("left %q, want %q", got, want)
		}
	})
}

func TestSymlinks(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		targets := map[string]string{
			"short": "a", "dangling": "no/such/file", "absolute": "/etc/hostname", "bytes": "\xff\x01 x", "3000": strings.Repeat("t/", 1500),
			"3100": strings.Repeat("u/", 1550), "4095": strings.Repeat("v/", 2047) + "v",
		}
		for name, target := range targets {
			m.must(os.Symlink(target, m.path(name)))
		}
		if err := os.Symlink(strings.Repeat("w", 4096), m.path("4096")); !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("4096 bytes: %v", err)
		}
		for range 2 {
			for name, target := range targets {
				got, err := os.Readlink(m.path(name))
				if err != nil || got != target {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
				if st := lstat(t, m.path(name)); st.Size != int64(len(target)) || st.Mode != unix.S_IFLNK|0o777 {
					t.Errorf("%s: size %d, mode %o", name, st.Size, st.Mode)
				}
			}
			m.remount()
		}
		for name := range targets {
			m.must(os.Remove(m.path(name)))
		}
	})
}

func TestSpecialFiles(t *testing.T) {
	needRoot(t)
	m := mount(t, options{words: []string{"dev"}})
	for name, mode := range map[string]uint32{
		"fifo": unix.S_IFIFO | 0o640, "socket": unix.S_IFSOCK | 0o600, "char": unix.S_IFCHR | 0o644, "block": unix.S_IFBLK | 0o600, "regular": unix.S_IFREG | 0o604,
	} {
		dev := 0
		if mode&unix.S_IFMT == unix.S_IFCHR || mode&unix.S_IFMT == unix.S_IFBLK {
			dev = int(unix.Mkdev(1, 3))
		}
		m.must(unix.Mknod(m.path(name), mode, dev))
		defer func() {
			st := lstat(t, m.path(name))
			if st.Mode != mode || st.Rdev != uint64(dev) || st.Size != 0 {
				t.Errorf("%s: mode %o, device %d, size %d", name, st.Mode, st.Rdev, st.Size)
			}
		}()
	}
	f, err := os.OpenFile(m.path("char"), os.O_WRONLY, 0) // it is /dev/null
	m.must(err)
	_, err = f.WriteString("gone")
	m.must(err)
	m.must(f.Close())
	m.remount()
}

// A tree made, changed, remounted and compared with what it should be.
func TestRemountAndCompare(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		want := map[string]string{}
		for i := range 300 {
			dir := m.path(fmt.Sprintf("d%d", i%7), fmt.Sprintf("e%d", i%3))
			m.must(os.MkdirAll(dir, 0o755))
			p := filepath.Join(dir, fmt.Sprintf("f%d", i))
			data := string(patterned(i * i * 3))
			m.must(os.WriteFile(p, []byte(data), 0o644))
			want[p] = data
			switch i % 5 {
			case 1:
				m.must(os.Rename(p, p+".moved"))
				delete(want, p)
				want[p+".moved"] = data
			case 2:
				m.must(os.Remove(p))
				delete(want, p)
			}
		}
		for range 2 {
			got := map[string]string{}
			m.must(filepath.WalkDir(m.dir, func(p string, e os.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				st := lstat(t, p)
				b, err := os.ReadFile(p)
				if int(st.Size) != len(b) {
					t.Errorf("%s: size %d, %d bytes read", p, st.Size, len(b))
				}
				got[p] = string(b)
				return err
			}))
			if len(got) != len(want) {
				t.Errorf("%d files, want %d", len(got), len(want))
			}
			for p, data := range want {
				if got[p] != data {
					t.Errorf("%s differs", p)
				}
			}
			m.remount()
		}
		m.must(os.RemoveAll(m.path("d0")))
		m.stop()
		m.start()
		if slices.Contains(listing(t, m.dir), "d0") {
			t.Error("d0 came back")
		}
	})
}

// A directory that was removed while somebody is in it.
func TestRemovedDirectory(t *testing.T) {
	m := mount(t, options{})
	m.must(os.Mkdir(m.path("d"), 0o750))
	fd, err := unix.Open(m.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	m.must(err)
	defer unix.Close(fd)
	m.must(os.Remove(m.path("d")))
	var st unix.Stat_t
	m.must(unix.Fstat(fd, &st))
	if st.Nlink != 0 || st.Mode != unix.S_IFDIR|0o750 {
		t.Errorf("%d links, mode %o", st.Nlink, st.Mode)
	}
	m.must(unix.Fchmod(fd, 0o700))
	if _, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_RDWR, 0o600); err != unix.ENOENT {
		t.Errorf("create in it: %v", err)
	}
	m.must(os.Mkdir(m.path("d"), 0o711))
	if st := lstat(t, m.path("d")); st.Mode != unix.S_IFDIR|0o711 {
		t.Errorf("its successor has mode %o", st.Mode)
	}
}

// A name that goes while its directory is being listed is not listed with a made-up inode number.
func TestReaddirInodeNumbers(t *testing.T) {
	m := mount(t, options{})
	const count = 300
	for i := range count {
		m.write(fmt.Sprint(i), nil)
	}
	m.remount() // nothing is known but by listing
	f, err := os.Open(m.dir)
	m.must(err)
	defer f.Close()
	buf := make([]byte, 256)
	for listed := 0; ; {
		n, err := unix.Getdents(int(f.Fd()), buf)
		m.must(err)
		if n == 0 {
			break
		}
		if listed++; listed == 5 {
			for i := count / 2; i < count; i++ {
				m.must(os.Remove(m.path(fmt.Sprint(i))))
			}
		}
		for b := buf[:n]; len(b) > 0; {
			size := binary.NativeEndian.Uint16(b[16:])
			if ino := binary.NativeEndian.Uint64(b); ino == 0 || ino == 1<<32-1 {
				t.Errorf("%q has inode number %d", bytes.TrimRight(b[19:size], "\x00"), ino)
			}
			b = b[size:]
		}
	}
}

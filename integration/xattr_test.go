package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/event"
)

// getXattr returns a value; the length that a probe answers must be the same.
func getXattr(t testing.TB, path, attr string) ([]byte, error) {
	t.Helper()
	n, err := unix.Lgetxattr(path, attr, nil)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n)
	got, err := unix.Lgetxattr(path, attr, buf)
	if err == nil && got != n {
		t.Errorf("%s of %s: a probe says %d bytes, there are %d", attr, path, n, got)
	}
	return buf[:max(got, 0)], err
}

func wantXattr(t testing.TB, path, attr string, want []byte) {
	t.Helper()
	got, err := getXattr(t, path, attr)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want %d", attr, len(got), err, len(want))
	}
}

func listXattr(t testing.TB, path string) []string {
	t.Helper()
	n, err := unix.Llistxattr(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, n+1)
	got, err := unix.Llistxattr(path, buf)
	if err != nil || got != n {
		t.Fatalf("list of %d bytes: %d, %v", n, got, err)
	}
	return sorted(string(buf[:got]))
}

func sorted(list string) []string {
	all := strings.Split(strings.TrimSuffix(list, "\x00"), "\x00")
	if all[0] == "" {
		return nil
	}
	slices.Sort(all)
	return all
}

func needHostXattrs(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Setxattr(dir, "user.probe", nil, 0); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("%s has no extended attributes: %v", dir, err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := unix.Removexattr(dir, "user.probe"); err != nil {
		t.Fatal(err)
	}
}

func TestXattr(t *testing.T) {
	needHostXattrs(t, t.TempDir())
	bothModes(t, func(t *testing.T, m *mounted) {
		m.must(os.Mkdir(m.path("dir"), 0o755))
		m.write("file", []byte("content"))
		values := map[string][]byte{
			"user.mime_type": []byte("text/plain"), "user.empty": {}, "user.binary": patterned(1000),
			"user." + strings.Repeat("s", 158): []byte("longest short name"),
			"user." + strings.Repeat("l", 159): []byte("shortest long name"),
			"user." + strings.Repeat("x", 250): []byte("longest name"),
			"user.\xff\xfe not UTF-8":          []byte("x"),
		}
		for _, name := range []string{"dir", "file", ""} {
			path := m.path(name)
			if got := listXattr(t, path); got != nil {
				t.Errorf("a new object lists %q", got)
			}
			var names []string
			for attr, value := range values {
				if _, err := getXattr(t, path, attr); err != unix.ENODATA {
					t.Errorf("get before set: %v", err)
				}
				m.must(unix.Lsetxattr(path, attr, value, unix.XATTR_CREATE))
				names = append(names, attr)
			}
			slices.Sort(names)
			check := func() {
				t.Helper()
				for attr, value := range values {
					wantXattr(t, path, attr, value)
				}
				if got := listXattr(t, path); !slices.Equal(got, names) {
					t.Errorf("list: %q", got)
				}
			}
			check()
			m.remount()
			check()
		}
		xattrErrors(t, m.path("file"))
		m.must(unix.Lremovexattr(m.path("file"), "user.empty"))
		m.must(os.Link(m.path("file"), m.path("dir", "second")))
		m.must(os.Rename(m.path("file"), m.path("moved")))
		for _, name := range []string{"moved", "dir/second"} {
			wantXattr(t, m.path(name), "user.mime_type", []byte("text/plain"))
			if n := len(listXattr(t, m.path(name))); n != len(values)-1 {
				t.Errorf("%d attributes", n)
			}
		}
		for _, host := range m.host() {
			for _, attr := range listXattr(t, host) {
				if !strings.HasPrefix(attr, "user.coffer.") || strings.Contains(attr, "mime") {
					t.Errorf("the host shows %q", attr)
				}
			}
		}
	})
}

// xattrErrors compares the errno of calls that fail. user.mime_type is there.
func xattrErrors(t *testing.T, path string) {
	get := func(attr string, size int) error {
		_, err := unix.Lgetxattr(path, attr, make([]byte, size))
		return err
	}
	list := func(size int) error { _, err := unix.Llistxattr(path, make([]byte, size)); return err }
	for what, c := range map[string]struct{ got, want error }{
		"get none":                  {get("user.none", 10), unix.ENODATA},
		"get security.none":         {get("security.capability", 100), unix.ENODATA},
		"get into too little":       {get("user.mime_type", 9), unix.ERANGE},
		"list into too little":      {list(5), unix.ERANGE},
		"create what is there":      {unix.Lsetxattr(path, "user.mime_type", nil, unix.XATTR_CREATE), unix.EEXIST},
		"replace what is not there": {unix.Lsetxattr(path, "user.none", nil, unix.XATTR_REPLACE), unix.ENODATA},
		"remove none":               {unix.Lremovexattr(path, "user.none"), unix.ENODATA},
		"value of more than 64 KiB": {unix.Lsetxattr(path, "user.big", make([]byte, 1<<16+1), 0), unix.E2BIG},
		"name of 256 bytes":         {unix.Lsetxattr(path, "user."+strings.Repeat("x", 251), nil, 0), unix.ERANGE},
		"name without a space":      {unix.Lsetxattr(path, "none", nil, 0), unix.EOPNOTSUPP},
		"unknown space":             {unix.Lsetxattr(path, "system.x", nil, 0), unix.EOPNOTSUPP},
		"space without a name":      {unix.Lsetxattr(path, "user.", nil, 0), unix.EINVAL},
		"unknown flag":              {unix.Lsetxattr(path, "user.x", nil, 4), unix.EINVAL},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
	wantXattr(t, path, "user.mime_type", []byte("text/plain"))
}

// A value is refused where the host refuses it, with the host's errno, and the old one stays.
func TestXattrTooLargeForHost(t *testing.T) {
	m := mount(t, options{})
	needHostXattrs(t, m.vault)
	path, plain := m.write("file", nil), filepath.Join(t.TempDir(), "plain")
	m.must(os.WriteFile(plain, nil, 0o644))
	m.must(unix.Lsetxattr(path, "user.a", []byte("old"), 0))
	for _, size := range []int{100, 3000, 4100, 20_000, 1<<16 - 16, 1 << 16} {
		want := unix.Lsetxattr(plain, "user.a", make([]byte, size+16), 0)
		err := unix.Lsetxattr(path, "user.a", make([]byte, size), 0)
		if err != nil && err != want {
			t.Errorf("%d bytes: %v, the host says %v", size, err, want)
		}
		if err != nil {
			wantXattr(t, path, "user.a", []byte("old"))
			continue
		}
		wantXattr(t, path, "user.a", make([]byte, size))
		m.must(unix.Lsetxattr(path, "user.a", []byte("old"), 0))
	}
}

func TestXattrUnlinked(t *testing.T) {
	needHostXattrs(t, t.TempDir())
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("file", []byte("x"))
		m.must(unix.Lsetxattr(path, "user.a", []byte("1"), 0))
		m.must(os.Mkdir(m.path("dir"), 0o755))
		for _, path := range []string{path, m.path("dir")} {
			f, err := os.Open(path)
			m.must(err)
			m.must(os.Remove(path))
			fd := int(f.Fd())
			m.must(unix.Fsetxattr(fd, "user.b", []byte("22"), 0))
			buf := make([]byte, 10)
			if n, err := unix.Fgetxattr(fd, "user.b", buf); err != nil || string(buf[:n]) != "22" {
				t.Errorf("%s: %q, %v", path, buf[:max(n, 0)], err)
			}
			m.must(unix.Fremovexattr(fd, "user.b"))
			if n, err := unix.Fgetxattr(fd, "user.b", buf); err != unix.ENODATA {
				t.Errorf("%s: %d bytes, %v", path, n, err)
			}
			m.must(f.Close())
		}
	})
}

// Attributes that only root may have, on objects of all types. Others do not see trusted ones.
func TestXattrOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	m := mount(t, options{allowOther: true})
	needHostXattrs(t, m.vault)
	m.must(os.Symlink("target", m.path("link")))
	m.must(os.Symlink("/"+strings.Repeat("x", 4000), m.path("far"))) // a container
	m.must(unix.Mkfifo(m.path("fifo"), 0o666))
	m.write("file", nil)
	m.must(unix.Chmod(m.path("file"), 0o666))
	want := []string{"security.foo", "trusted.bar"}
	for _, name := range []string{"link", "far", "fifo", "file"} {
		m.must(unix.Lsetxattr(m.path(name), "trusted.bar", []byte(name), 0))
		m.must(unix.Lsetxattr(m.path(name), "security.foo", []byte("2"), 0))
		if err := unix.Lsetxattr(m.path(name), "user.x", nil, 0); name != "file" && err != unix.EPERM {
			t.Errorf("%s takes a user attribute: %v", name, err)
		}
	}
	m.must(unix.Lremovexattr(m.path("file"), "user.x"))
	m.remount()
	for _, name := range []string{"link", "far", "fifo", "file"} {
		wantXattr(t, m.path(name), "trusted.bar", []byte(name))
		wantXattr(t, m.path(name), "security.foo", []byte("2"))
		if got := listXattr(t, m.path(name)); !slices.Equal(got, want) {
			t.Errorf("%s lists %q", name, got)
		}
		if out := childOutput(t, nobody, "listxattr", m.path(name)); out != "security.foo" {
			t.Errorf("another user sees %q", out)
		}
		if err := runChild(t, nobody, "setxattr", m.path(name), "trusted.bar", "x"); err == nil || !strings.Contains(err.Error(), unix.EPERM.Error()) {
			t.Errorf("another user sets a trusted attribute: %v", err)
		}
	}
	m.must(runChild(t, nobody, "setxattr", m.path("file"), "user.theirs", "x"))
	wantXattr(t, m.path("file"), "user.theirs", []byte("x"))
	m.must(os.Chmod(m.path("file"), 0o644))
	if err := runChild(t, nobody, "setxattr", m.path("file"), "user.theirs", "y"); err == nil {
		t.Error("a user sets an attribute of a file that he may not write")
	}
}

// hostFileOf returns the host file of the only object that has n attributes of its own.
func (m *mounted) hostWith(n int) string {
	m.t.Helper()
	for _, host := range m.host() {
		if len(listXattr(m.t, host)) == n {
			return host
		}
	}
	m.t.Fatalf("no host file has %d attributes", n)
	return ""
}

// What was changed on the host, or moved to another object, is damage; the rest stays readable.
func TestXattrDamage(t *testing.T) {
	m := mount(t, options{wantErrors: true})
	needHostXattrs(t, m.vault)
	one, two := m.write("one", nil), m.write("two", nil)
	for i := range 3 {
		m.must(unix.Lsetxattr(one, fmt.Sprintf("user.a%d", i), []byte("value"), 0))
	}
	m.must(unix.Lsetxattr(two, "user.a0", []byte("other"), 0))
	host1, host2 := m.hostWith(3), m.hostWith(1)
	m.stop()
	attrs := listXattr(t, host1)
	value, err := getXattr(t, host1, attrs[0])
	m.must(err)
	moved, err := getXattr(t, host1, attrs[1])
	m.must(err)
	m.must(unix.Lsetxattr(host2, attrs[1], moved, 0)) // of another object
	value[3] ^= 1
	m.must(unix.Lsetxattr(host1, attrs[0], value, 0))
	m.start()

	bad := 0
	for i := range 3 {
		got, err := getXattr(t, one, fmt.Sprintf("user.a%d", i))
		if err == unix.EIO {
			bad++
		} else if err != nil || string(got) != "value" {
			t.Errorf("attribute %d: %q, %v", i, got, err)
		}
	}
	if bad != 1 {
		t.Errorf("%d attributes are damaged, want 1", bad)
	}
	if got := listXattr(t, one); len(got) != 3 {
		t.Errorf("list: %q", got)
	}
	before := m.findings.count(event.Damage)
	if got := listXattr(t, two); !slices.Equal(got, []string{"user.a0"}) {
		t.Errorf("list: %q", got)
	}
	if m.findings.count(event.Damage) == before {
		t.Error("an attribute of another object is not reported")
	}
	wantXattr(t, two, "user.a0", []byte("other"))
}

// A host without extended attributes keeps files and refuses attributes as it would itself.
func TestXattrHostWithout(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a ramfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("no ramfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	m := mount(t, options{vault: dir})
	path := m.write("file", []byte("x"))
	for range 2 {
		if err := unix.Lsetxattr(path, "user.x", []byte("y"), 0); err != unix.EOPNOTSUPP {
			t.Errorf("set: %v", err)
		}
		if _, err := unix.Lgetxattr(path, "user.x", nil); err != unix.EOPNOTSUPP {
			t.Errorf("get: %v", err)
		}
		if err := unix.Lremovexattr(path, "user.x"); err != unix.EOPNOTSUPP {
			t.Errorf("remove: %v", err)
		}
		if got := listXattr(t, path); got != nil {
			t.Errorf("list: %q", got)
		}
		m.must(unix.Chmod(path, 0o444))
		if st := lstat(t, path); st.Mode&0o7777 != 0o444 {
			t.Errorf("mode %o", st.Mode)
		}
		m.want(path, []byte("x"))
		m.remount()
	}
}

// -o noxattr: the kernel asks once and then no more.
func TestNoXattr(t *testing.T) {
	m := mount(t, options{noXattr: true})
	path := m.write("file", []byte("x"))
	for range 3 {
		if _, err := unix.Lgetxattr(path, "user.x", nil); err != unix.EOPNOTSUPP {
			t.Errorf("get: %v", err)
		}
	}
	if err := unix.Lsetxattr(path, "user.x", nil, 0); err != unix.EOPNOTSUPP {
		t.Errorf("set: %v", err)
	}
	if n := m.take()["GETXATTR"]; n > 0 {
		t.Errorf("%d requests reach the filesystem", n)
	}
}

// The reader in Python finds what the mount wrote.
func TestReaderOfXattrs(t *testing.T) {
	needPython(t)
	m := mount(t, options{})
	needHostXattrs(t, m.vault)
	long := "user." + strings.Repeat("l", 200)
	values := map[string][]byte{"user.a": []byte("1"), "user.empty": {}, long: patterned(500)}
	m.write("file", []byte("x"))
	for attr, value := range values {
		m.must(unix.Lsetxattr(m.path("file"), attr, value, 0))
	}
	m.stop()
	pass := filepath.Join(t.TempDir(), passFile)
	m.must(os.WriteFile(pass, passphrase, 0o600))
	got, stderr, err := readByPython(m.vault, "--passphrase-file="+pass)
	if err != nil || len(got.Entries) != 1 {
		t.Fatalf("%d entries, %v\n%s", len(got.Entries), err, stderr)
	}
	for attr, value := range values {
		sum := sha256.Sum256(value)
		if got.Entries[0].Xattrs[attr] != hex.EncodeToString(sum[:]) {
			t.Errorf("attribute %s: value differs", attr)
		}
	}
	if n := len(got.Entries[0].Xattrs); n != len(values) {
		t.Errorf("%d attributes", n)
	}
}

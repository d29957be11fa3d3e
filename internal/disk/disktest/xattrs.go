package disktest

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// attrNames lists x, without what the host itself puts there.
func attrNames(t *testing.T, x disk.Xattrs) (names []string) {
	t.Helper()
	n, err := x.Listxattr(nil)
	ok(t, err)
	buf := make([]byte, n+1)
	n, err = x.Listxattr(buf)
	ok(t, err)
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func testXattrs(t *testing.T, d disk.Dir) {
	write(t, d, "f", "x")
	if err := d.Xattrs("f").Setxattr("user.probe", nil, 0); errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skipf("the host has no extended attributes here: %v", err)
	}
	ok(t, d.Xattrs("f").Removexattr("user.probe"))
	ok(t, d.Mkdir("dir", 0o700))
	sub, err := d.OpenDir("dir")
	ok(t, err)
	defer sub.Close()
	f, err := d.Open("f", disk.ReadWrite)
	ok(t, err)
	defer f.Close()
	p, err := d.OpenPath("f")
	ok(t, err)
	defer p.Close()

	// Each pair is one object, reached in two ways.
	for _, c := range []struct {
		what, path string
		x, same    disk.Xattrs
	}{
		{"name", "f", d.Xattrs("f"), f},
		{"file", "", f, p},
		{"path", "", p, d.Xattrs("f")},
		{"directory", "", sub.XattrsSelf(), d.Xattrs("dir")},
		{"directory's name", "dir", d.Xattrs("dir"), sub.XattrsSelf()},
	} {
		t.Run(c.what, func(t *testing.T) { xattrsOf(t, c.x, c.same, c.path) })
	}
}

func xattrsOf(t *testing.T, x, same disk.Xattrs, path string) {
	value := []byte("one\x00two")
	_, err := x.Getxattr("user.a", nil)
	fails(t, err, syscall.ENODATA, path)
	fails(t, x.Removexattr("user.a"), syscall.ENODATA, path)
	fails(t, x.Setxattr("user.a", value, unix.XATTR_REPLACE), syscall.ENODATA, path)
	ok(t, x.Setxattr("user.a", value, unix.XATTR_CREATE))
	fails(t, x.Setxattr("user.a", nil, unix.XATTR_CREATE), syscall.EEXIST, path)
	ok(t, x.Setxattr("user.empty", nil, 0))
	if n, err := same.Getxattr("user.a", nil); n != len(value) || err != nil {
		t.Fatalf("length %d, %v", n, err)
	}
	_, err = x.Getxattr("user.a", make([]byte, len(value)-1))
	fails(t, err, syscall.ERANGE, path)
	buf := make([]byte, 100)
	n, err := same.Getxattr("user.a", buf)
	if err != nil || !bytes.Equal(buf[:n], value) {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if n, err := x.Getxattr("user.empty", buf); n != 0 || err != nil {
		t.Fatalf("an empty value has %d bytes, %v", n, err)
	}
	ok(t, same.Setxattr("user.a", []byte("3"), unix.XATTR_REPLACE))
	if n, err := x.Getxattr("user.a", buf); err != nil || string(buf[:n]) != "3" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if got := attrNames(t, x); !slices.Equal(got, []string{"user.a", "user.empty"}) {
		t.Fatalf("list: %q", got)
	}
	_, err = x.Listxattr(make([]byte, 1))
	fails(t, err, syscall.ERANGE, path)
	fails(t, x.Setxattr("user.b", make([]byte, 1<<16+1), 0), syscall.E2BIG, path)
	ok(t, x.Removexattr("user.a"))
	ok(t, same.Removexattr("user.empty"))
	if got := attrNames(t, x); len(got) != 0 {
		t.Fatalf("left: %q", got)
	}
}

// Symlinks and special files have attributes of their own: nothing is followed.
func testXattrsOfLinks(t *testing.T, d disk.Dir) {
	write(t, d, "f", "x")
	ok(t, d.Symlink("f", "link"))
	ok(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	if os.Geteuid() != 0 {
		t.Skip("only root has attributes on what is no file or directory")
	}
	if err := d.Xattrs("link").Setxattr("trusted.probe", nil, 0); errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPERM) {
		t.Skipf("no trusted attributes here: %v", err)
	}
	ok(t, d.Xattrs("link").Removexattr("trusted.probe"))
	for _, name := range []string{"link", "fifo"} {
		x := d.Xattrs(name)
		p, err := d.OpenPath(name)
		ok(t, err)
		defer p.Close()
		fails(t, x.Setxattr("user.a", nil, 0), syscall.EPERM, name)
		ok(t, x.Setxattr("trusted.a", []byte("1"), 0))
		ok(t, p.Setxattr("trusted.b", []byte("2"), 0))
		buf := make([]byte, 10)
		n, err := x.Getxattr("trusted.b", buf)
		if err != nil || string(buf[:n]) != "2" {
			t.Fatalf("%s: %q, %v", name, buf[:n], err)
		}
		for _, y := range []disk.Xattrs{x, p} {
			if got := attrNames(t, y); !slices.Equal(got, []string{"trusted.a", "trusted.b"}) {
				t.Fatalf("%s: %q", name, got)
			}
		}
		if got := attrNames(t, d.Xattrs("f")); len(got) != 0 {
			t.Fatalf("%s was followed: %q", name, got)
		}
		ok(t, d.Unlink(name))
		ok(t, p.Removexattr("trusted.a")) // without a name, too
		if got := attrNames(t, p); !slices.Equal(got, []string{"trusted.b"}) {
			t.Fatalf("%s unlinked: %q", name, got)
		}
	}
	fails(t, d.Xattrs("none").Setxattr("trusted.a", nil, 0), syscall.ENOENT, "none")
	fails(t, d.Xattrs("..").Setxattr("trusted.a", nil, 0), syscall.EINVAL, "..")
	fails(t, d.Xattrs("x/y").Removexattr("trusted.a"), syscall.EINVAL, "x/y")
	if _, err := d.Xattrs("").Listxattr(nil); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("no name: %v", err)
	}
}

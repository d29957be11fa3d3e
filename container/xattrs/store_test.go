package xattrs

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// hostFile is a file on a real host, which may have no extended attributes.
func hostFile(t *testing.T) disk.File {
	t.Helper()
	d, err := disk.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	f, err := d.Create("file", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Setxattr("user.foreign", []byte("x"), 0); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("the host has no extended attributes: %v", err)
	}
	return f
}

func TestStore(t *testing.T) {
	x, c, o := hostFile(t), testCodec(), Object{ID: objectID}
	long := "user." + strings.Repeat("l", 240)
	for _, name := range []string{"user.a", long} {
		if _, err := c.Get(x, o, name); !errors.Is(err, unix.ENODATA) {
			t.Fatalf("get: %v", err)
		}
		if err := c.Set(x, o, name, nil, unix.XATTR_REPLACE); !errors.Is(err, unix.ENODATA) {
			t.Fatalf("replace: %v", err)
		}
		for _, value := range [][]byte{[]byte("1"), {}, bytes.Repeat([]byte("v"), 1500)} {
			if err := c.Set(x, o, name, value, 0); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Get(x, o, name); err != nil || !bytes.Equal(got, value) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
		if err := c.Set(x, o, name, nil, unix.XATTR_CREATE); !errors.Is(err, unix.EEXIST) {
			t.Fatalf("create: %v", err)
		}
	}
	names := func() (all []string) {
		hosts, err := HostList(x, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range hosts {
			if IsSealed(o, host) {
				name, err := c.Plain(x, o, host)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, name)
			}
		}
		slices.Sort(all)
		return all
	}
	if got := names(); !slices.Equal(got, []string{"user.a", long}) {
		t.Fatalf("list: %q", got)
	}
	if err := c.Remove(x, o, long); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(x, o, long); !errors.Is(err, unix.ENODATA) {
		t.Fatalf("remove twice: %v", err)
	}
	if got := names(); !slices.Equal(got, []string{"user.a"}) {
		t.Fatalf("list: %q", got)
	}
	if err := x.Setxattr(c.HostName(o, "user.a"), []byte("never sealed, but long enough"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(x, o, "user.a"); !errors.Is(err, ErrBadAttr) {
		t.Fatalf("a value that was not sealed: %v", err)
	}
}

func TestStoreMode(t *testing.T) {
	x, c, o := hostFile(t), testCodec(), Object{ID: objectID}
	if _, set, err := c.Mode(x, o); set || err != nil {
		t.Fatalf("no mode: %v, %v", set, err)
	}
	if err := c.DropMode(x, o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint32{0o444, 0, 0o7777} {
		if err := c.SetMode(x, o, want); err != nil {
			t.Fatal(err)
		}
		if mode, set, err := c.Mode(x, o); mode != want || !set || err != nil {
			t.Fatalf("%o, %v, %v", mode, set, err)
		}
	}
	if _, _, err := c.Mode(x, Object{ID: otherID}); !errors.Is(err, ErrBadAttr) {
		t.Fatalf("the mode of another object: %v", err)
	}
	if err := c.DropMode(x, o); err != nil {
		t.Fatal(err)
	}
	if _, set, err := c.Mode(x, o); set || err != nil {
		t.Fatalf("dropped: %v, %v", set, err)
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]error{
		"": unix.EINVAL, "user.\x00": unix.EINVAL, strings.Repeat("x", 256): unix.ERANGE, strings.Repeat("x", 255): nil, "user.x": nil,
	} {
		if err := CheckName(name); err != want {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
}

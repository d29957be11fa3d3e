package dirs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// Whoever holds the storage moves, copies, retypes or renames host objects: none shows as another object or in another place.
func TestForeignAndDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(v *vault, sub *Dir, file, dir string)
		root   string // what shows in the root then
		events string
	}{
		"nothing": {func(*vault, *Dir, string, string) {}, "dir file sub", ""},
		"moved up": {func(v *vault, sub *Dir, _, _ string) {
			p := v.hostPath(sub, "inner")
			ok(v.t, os.Rename(p, filepath.Join(v.path, filepath.Base(p))))
		}, "dir file sub", "damage"},
		"copied up": {func(v *vault, sub *Dir, _, _ string) {
			p := v.hostPath(sub, "inner")
			ok(v.t, os.Link(p, filepath.Join(v.path, filepath.Base(p))))
		}, "dir file sub", "damage"},
		"file becomes directory": {func(v *vault, _ *Dir, file, _ string) {
			ok(v.t, os.Remove(file))
			ok(v.t, os.Mkdir(file, 0o700))
		}, "dir sub", "damage"},
		"file becomes symlink": {func(v *vault, _ *Dir, file, _ string) {
			ok(v.t, os.Rename(file, file[:len(file)-1]))
			ok(v.t, os.Symlink(filepath.Base(file[:len(file)-1]), file))
		}, "dir sub", "damage foreign"},
		"file becomes fifo": {func(v *vault, _ *Dir, file, _ string) {
			ok(v.t, os.Remove(file))
			ok(v.t, unix.Mkfifo(file, 0o600))
		}, "dir sub", "damage"},
		"directory becomes file": {func(v *vault, _ *Dir, _, dir string) {
			ok(v.t, os.Remove(dir))
			ok(v.t, os.WriteFile(dir, nil, 0o600))
		}, "file sub", "damage"},
		"plain text": {func(v *vault, _ *Dir, file, _ string) {
			ok(v.t, os.WriteFile(filepath.Join(v.path, "README.txt"), nil, 0o600))
			ok(v.t, os.Mkdir(filepath.Join(v.path, "lost+found"), 0o700))
		}, "dir file sub", "foreign foreign"},
		"flipped": {func(v *vault, _ *Dir, file, _ string) {
			b := []byte(filepath.Base(file))
			if b[5] == 'A' { // another letter of base64url
				b[5] = 'B'
			} else {
				b[5] = 'A'
			}
			ok(v.t, os.Rename(file, filepath.Join(v.path, string(b))))
		}, "dir sub", "damage"},
		"other case": {func(v *vault, _ *Dir, file, _ string) {
			// The last letter stays: in upper case it might be no canonical base64url any more.
			b := filepath.Base(file)
			ok(v.t, os.Rename(file, filepath.Join(v.path, strings.ToUpper(b[:len(b)-1])+b[len(b)-1:])))
		}, "dir sub", "damage"},
		"config directory below the root": {func(v *vault, sub *Dir, _, _ string) {
			ok(v.t, os.Mkdir(filepath.Join(v.hostDir(sub), configDir), 0o700))
			list(v.t, sub)
		}, "dir file sub", ""},
		"stray sidecar": {func(v *vault, _ *Dir, file, _ string) {
			host, sidecar := testCodec.Seal(testRoot, fileLink(longName, 9, 0))
			ok(v.t, os.WriteFile(filepath.Join(v.path, names.SidecarName(host)), sidecar, 0o600))
		}, "dir file sub", "foreign"},
		"long name without sidecar": {func(v *vault, _ *Dir, file, _ string) {
			ok(v.t, os.Remove(names.SidecarName(v.put(v.Root(), fileLink(longName, 9, 0)))))
		}, "dir file sub", "damage"},
		"long name with a fifo for a sidecar": {func(v *vault, _ *Dir, file, _ string) {
			p := names.SidecarName(v.put(v.Root(), fileLink(longName, 9, 0)))
			ok(v.t, os.Remove(p))
			ok(v.t, unix.Mkfifo(p, 0o600))
		}, "dir file sub", "damage"},
		"long name with another's sidecar": {func(v *vault, _ *Dir, file, _ string) {
			p := v.put(v.Root(), fileLink(longName+"p", 8, 0))
			q := v.put(v.Root(), fileLink(longName, 9, 0))
			ok(v.t, os.Rename(names.SidecarName(p), names.SidecarName(q)))
			ok(v.t, os.Remove(p))
		}, "dir file sub", "damage"},
		"sidecar grown": {func(v *vault, _ *Dir, file, _ string) {
			p := v.put(v.Root(), fileLink(longName, 9, 0))
			ok(v.t, os.Truncate(names.SidecarName(p), 1<<30))
		}, "dir file sub", "damage"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			v.t = t
			root := v.Root()
			sub := v.mkdir(root, "sub")
			v.create(sub, "inner")
			f := v.create(root, "file")
			v.mkdir(root, "dir")
			c.do(v, sub, v.hostPath(root, "file"), v.hostPath(root, "dir"))
			v.mount()
			if got := list(t, v.Root()); got != c.root {
				t.Errorf("shows %q, want %q", got, c.root)
			}
			list(t, v.Root()) // reported once per load
			if got := v.kinds(); got != c.events {
				t.Errorf("events %q, want %q", got, c.events)
			}
			if e, err := v.Root().Lookup("file"); err == nil && e != f {
				t.Error("another object shows")
			}
		})
	}
}

// The same while the map is loaded: the object's type is checked with each answer, its content by its container.
func TestSwappedWhileMounted(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	f := v.create(root, "f")
	l, err := root.Symlink("l", "x", -1, -1)
	ok(t, err)
	k, err := root.Symlink("k", "y", -1, -1)
	ok(t, err)
	a, b := v.mkdir(root, "a"), v.mkdir(root, "b")
	v.create(a, "ina")
	v.create(b, "inb")
	file, link, other := v.hostPath(root, "f"), v.hostPath(root, "l"), v.hostPath(root, "k")
	pa, pb := v.hostDir(a), v.hostDir(b)

	ok(t, unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE))
	var st unix.Stat_t
	fails(t, root.Stat("f", f.ID, &st), ErrName)
	_, err = root.Open("f", f.ID, disk.ReadWrite)
	fails(t, err, ErrName)
	_, err = root.Readlink("l", l.ID)
	fails(t, err, ErrName)
	ok(t, unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE))
	_, err = root.Readlink("k", k.ID) // the other symlink's target
	fails(t, err, ErrName)
	if got := v.kinds(); got != "damage damage damage damage" {
		t.Error(got)
	}

	ok(t, unix.Renameat2(unix.AT_FDCWD, pa, unix.AT_FDCWD, pb, unix.RENAME_EXCHANGE))
	v.mount()
	if list(t, v.dir("a")) != "" || list(t, v.dir("b")) != "" {
		t.Error("names show in a directory that they were not sealed for")
	}
	if got := v.kinds(); got != "damage damage damage damage" {
		// two of the root's names still on the wrong type, one in each directory
		t.Error(got)
	}
}

// What is gone behind our back is EIO to who looks, and can still be removed.
func TestVanished(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	f := v.create(root, "f")
	ok(t, os.Remove(v.hostPath(root, "f")))
	var st unix.Stat_t
	err := root.Stat("f", f.ID, &st)
	fails(t, err, ErrName)
	if got := v.kinds(); got != "damage" {
		t.Error(got)
	}
	_, _, err = v.Rename(root, "f", root, "g", 0)
	fails(t, err, ErrName)
	_, err = root.Link("g", root, "f", f.ID, true)
	fails(t, err, ErrName)
	_, err = root.Unlink("f")
	ok(t, err)
	if list(t, root) != "" {
		t.Error("still there")
	}
}

// Two host directories under one id: the second is refused while the first lives.
func TestDuplicateDirectory(t *testing.T) {
	v := newVault(t)
	root := v.Root()
	a := v.mkdir(root, "a")
	b := v.mkdir(root, "b")
	v.create(a, "inside")
	old := v.hostDir(a)
	_, _, err := v.Rename(root, "a", b, "moved", 0)
	ok(t, err)
	ok(t, os.Mkdir(old, 0o700)) // the storage brings the old name back
	v.mount()
	root = v.Root()
	moved := v.dir("b/moved")
	e, err := root.Lookup("a")
	ok(t, err)
	if e.ID != moved.ID() {
		t.Fatal("not a duplicate")
	}
	_, err = root.Child("a", e.ID)
	fails(t, err, ErrDuplicate)
	_, err = root.Rmdir("a")
	fails(t, err, ErrDuplicate)
	if got := v.kinds(); got != "duplicate duplicate" {
		t.Error(got)
	}
	if list(t, moved) != "inside" {
		t.Error("the first one suffers")
	}
}

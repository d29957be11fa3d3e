package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kinds of objects to be exchanged, each made under a name and known again by what it holds.
var kinds = map[string]struct {
	make func(m *mounted, path string)
	is   func(m *mounted, path string) bool
}{
	"file": {
		func(m *mounted, path string) { m.must(os.WriteFile(path, patterned(20_000), 0o640)) },
		func(m *mounted, path string) bool { return lstat(m.t, path).Size == 20_000 },
	},
	"directory": {
		func(m *mounted, path string) {
			m.must(os.MkdirAll(path+"/sub", 0o755))
			m.must(os.WriteFile(path+"/sub/file", []byte("below"), 0o600))
		},
		func(m *mounted, path string) bool {
			b, err := os.ReadFile(path + "/sub/file")
			return err == nil && string(b) == "below"
		},
	},
	"symlink": {
		func(m *mounted, path string) { m.must(os.Symlink("target", path)) },
		func(m *mounted, path string) bool { s, err := os.Readlink(path); return err == nil && s == "target" },
	},
	"long symlink": {
		func(m *mounted, path string) { m.must(os.Symlink(strings.Repeat("t", 4000), path)) },
		func(m *mounted, path string) bool { s, err := os.Readlink(path); return err == nil && len(s) == 4000 },
	},
	"fifo": {
		func(m *mounted, path string) { m.must(unix.Mkfifo(path, 0o600)) },
		func(m *mounted, path string) bool { return lstat(m.t, path).Mode == unix.S_IFIFO|0o600 },
	},
}

// Every kind changes places with every other, in one directory and across, under short names and long ones.
func TestExchangeKinds(t *testing.T) {
	m := mount(t, options{})
	type place struct{ kind, path string }
	var all []place
	m.must(os.Mkdir(m.path("other"), 0o755))
	exchange := func(a, b, x, y string) {
		kinds[a].make(m, x)
		kinds[b].make(m, y)
		m.must(unix.Renameat2(unix.AT_FDCWD, x, unix.AT_FDCWD, y, unix.RENAME_EXCHANGE))
		all = append(all, place{b, x}, place{a, y})
	}
	n := 0
	for a := range kinds {
		for b := range kinds {
			for _, pad := range []string{"", strings.Repeat("n", 250)} {
				n++
				exchange(a, b, m.path(fmt.Sprintf("x%03d%s", n, pad)), m.path(fmt.Sprintf("y%03d", n)))
				exchange(a, b, m.path(fmt.Sprintf("z%03d", n)), m.path("other", fmt.Sprintf("z%03d%s", n, pad)))
			}
		}
	}
	for range 2 {
		for _, p := range all {
			if !kinds[p.kind].is(m, p.path) {
				t.Errorf("%s is no %s", p.path, p.kind)
			}
		}
		if n := len(listing(t, m.dir)) + len(listing(t, m.path("other"))) - 1; n != len(all) {
			t.Errorf("%d names, want %d", n, len(all))
		}
		m.remount()
	}
}

// A file that is open while it changes places stays the same file, and a directory that somebody is in stays the same directory.
func TestExchangeInUse(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		f := m.open("file", os.O_RDWR|os.O_CREATE)
		_, err := f.WriteAt([]byte("before"), 0)
		m.must(err)
		m.must(os.Mkdir(m.path("dir"), 0o755))
		fd, err := unix.Open(m.path("dir"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		m.must(err)
		m.must(unix.Renameat2(unix.AT_FDCWD, m.path("file"), unix.AT_FDCWD, m.path("dir"), unix.RENAME_EXCHANGE))
		_, err = f.WriteAt([]byte(" and after"), 6)
		m.must(err)
		m.must(f.Sync())
		in, err := unix.Openat(fd, "in", unix.O_CREAT|unix.O_WRONLY, 0o600)
		m.must(err)
		m.must(unix.Close(in))
		m.must(unix.Close(fd))
		m.must(f.Close())
		for range 2 {
			m.want(m.path("dir"), []byte("before and after"))
			if got := listing(t, m.path("file")); len(got) != 1 || got[0] != "in" {
				t.Errorf("in the directory: %q", got)
			}
			m.remount()
		}
		if err := unix.Renameat2(unix.AT_FDCWD, m.path("file"), unix.AT_FDCWD, m.path("file/in"), unix.RENAME_EXCHANGE); err != unix.EINVAL {
			t.Errorf("with what it holds: %v", err)
		}
		if err := unix.Renameat2(unix.AT_FDCWD, m.path("file/in"), unix.AT_FDCWD, m.path("file"), unix.RENAME_EXCHANGE); err != unix.EINVAL {
			t.Errorf("with what holds it: %v", err)
		}
		if err := unix.Renameat2(unix.AT_FDCWD, m.path("dir"), unix.AT_FDCWD, m.path("file"), unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE); err != unix.EINVAL {
			t.Errorf("with NOREPLACE: %v", err)
		}
	})
}

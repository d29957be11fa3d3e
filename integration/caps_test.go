package integration

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// someCaps are file capabilities, version 2: CAP_NET_RAW, permitted and effective.
var someCaps = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// withFile opens a file for one call.
func withFile(path string, flags int, fn func(fd int) error) error {
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fn(fd)
}

// capsOps are what may take capabilities from a file.
func capsOps(t *testing.T) map[string]func(path string) error {
	write := func(fd int) error { _, err := unix.Pwrite(fd, []byte("y"), 0); return err }
	return map[string]func(path string) error{
		"nothing":       func(path string) error { return nil },
		"read":          func(path string) error { _, err := os.ReadFile(path); return err },
		"open to write": func(path string) error { return withFile(path, unix.O_WRONLY, func(int) error { return nil }) },
		"write":         func(path string) error { return withFile(path, unix.O_WRONLY, write) },
		"write and fsync": func(path string) error {
			return withFile(path, unix.O_RDWR, func(fd int) error { _ = write(fd); return unix.Fsync(fd) })
		},
		"write before, flush after": func(path string) error {
			return withFile(path, unix.O_WRONLY, func(fd int) error {
				if err := write(fd); err != nil {
					return err
				}
				return unix.Fsetxattr(fd, "security.capability", someCaps, 0)
			})
		},
		"append by another user": func(path string) error { return runChild(t, nobody, "append", path, "more") },
		"truncate":               func(path string) error { return os.Truncate(path, 1) },
		"extend":                 func(path string) error { return os.Truncate(path, 10_000) },
		"open to truncate": func(path string) error {
			return withFile(path, unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil })
		},
		"fallocate": func(path string) error {
			return withFile(path, unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 9000) })
		},
		"copy_file_range": func(path string) error {
			return withFile(path, unix.O_RDWR, func(fd int) error {
				to := int64(1)
				_, err := unix.CopyFileRange(fd, new(int64), fd, &to, 1, 0)
				return err
			})
		},
		"chown":             func(path string) error { return os.Chown(path, 1, -1) },
		"chown to itself":   func(path string) error { return os.Chown(path, -1, -1) },
		"chmod":             func(path string) error { return os.Chmod(path, 0o700) },
		"utimes":            func(path string) error { return unix.Utimes(path, make([]unix.Timeval, 2)) },
		"rename":            func(path string) error { return os.Rename(path, path) },
		"another attribute": func(path string) error { return unix.Lsetxattr(path, "user.x", []byte("y"), 0) },
		"remove":            func(path string) error { return unix.Lremovexattr(path, "security.capability") },
	}
}

// File capabilities go and stay as on the host.
func TestCapabilities(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives capabilities")
	}
	for _, o := range []options{{allowOther: true}, {allowOther: true, writeThrough: true}} {
		t.Run(o.String(), func(t *testing.T) {
			m := mount(t, o)
			needHostXattrs(t, m.vault)
			host := t.TempDir()
			for d := host; d != os.TempDir(); d = filepath.Dir(d) {
				m.must(os.Chmod(d, 0o755))
			}
			kept := 0
			for what, op := range capsOps(t) {
				// left runs op on a file that has capabilities, and says whether it still has them.
				left := func(dir string) bool {
					path := filepath.Join(dir, "file")
					m.must(os.WriteFile(path, []byte("x"), 0o666))
					m.must(os.Chmod(path, 0o4777))
					m.must(unix.Lsetxattr(path, "security.capability", someCaps, 0))
					if err := op(path); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					_, err := unix.Lgetxattr(path, "security.capability", make([]byte, 100))
					if err != nil && err != unix.ENODATA {
						t.Fatalf("%s: %v", what, err)
					}
					if out, lerr := unix.Llistxattr(path, make([]byte, 100)); lerr != nil || err != nil && out > 0 && dir != host {
						t.Errorf("%s: listed although it is gone: %d, %v", what, out, lerr)
					}
					m.must(os.Remove(path))
					return err == nil
				}
				want := left(host)
				if want {
					kept++
				}
				if got := left(m.dir); got != want {
					t.Errorf("%s: kept is %v, on the host %v", what, got, want)
				}
			}
			if kept == 0 || kept == len(capsOps(t)) {
				t.Errorf("%d of %d operations keep capabilities on the host", kept, len(capsOps(t)))
			}
		})
	}
}

// A kernel that asks for no attributes takes none away, so we do: of every kind of change.
func TestCapabilitiesWithoutXattr(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives capabilities")
	}
	m := mount(t, options{allowOther: true})
	needHostXattrs(t, m.vault)
	gone := map[string]func(path string) error{}
	for _, what := range []string{"write", "append by another user", "open to truncate", "truncate", "extend", "fallocate", "copy_file_range", "chown"} {
		gone[what] = capsOps(t)[what]
	}
	for what := range gone {
		m.must(os.Chmod(m.write(what, []byte("x")), 0o666))
		m.must(unix.Lsetxattr(m.path(what), "security.capability", someCaps, 0))
	}
	m.write("kept", []byte("x"))
	m.must(unix.Lsetxattr(m.path("kept"), "security.capability", someCaps, 0))
	m.stop()
	m.options.noXattr = true
	m.start()
	for what, op := range gone {
		if err := op(m.path(what)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	m.stop()
	m.options.noXattr = false
	m.start()
	wantXattr(t, m.path("kept"), "security.capability", someCaps)
	for what := range gone {
		if _, err := unix.Lgetxattr(m.path(what), "security.capability", make([]byte, 100)); err != unix.ENODATA {
			t.Errorf("%s left capabilities: %v", what, err)
		}
	}
}

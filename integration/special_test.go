package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Sockets and FIFOs work by their names, which may change.
func TestSocketsAndFIFOs(t *testing.T) {
	m := mount(t, options{})
	m.must(os.Mkdir(m.path("d"), 0o755))
	l, err := net.Listen("unix", m.path("socket"))
	m.must(err)
	defer l.Close()
	m.must(os.Rename(m.path("socket"), m.path("d", "moved")))
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := net.Dial("unix", m.path("d", "moved"))
	m.must(err)
	_, err = c.Write([]byte("echo"))
	m.must(errors.Join(err, c.(*net.UnixConn).CloseWrite()))
	if got, err := io.ReadAll(c); string(got) != "echo" {
		t.Errorf("socket: %q, %v", got, err)
	}
	c.Close()

	m.must(unix.Mkfifo(m.path("fifo"), 0o600))
	m.must(os.Link(m.path("fifo"), m.path("d", "again")))
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(m.path("fifo"), patterned(200_000), 0o600) }()
	got, err := os.ReadFile(m.path("d", "again"))
	m.must(errors.Join(err, <-done))
	same(t, "fifo", got, patterned(200_000))
	if fd, err := unix.Open(m.path("fifo"), unix.O_WRONLY|unix.O_NONBLOCK, 0); err != unix.ENXIO {
		t.Errorf("a FIFO that nobody reads: %d, %v", fd, err)
	}
}

// 255 bytes are a name for every call, 256 for none.
func TestLongestNames(t *testing.T) {
	m := mount(t, options{})
	m.write("file", []byte("content"))
	f := m.open("file", os.O_RDONLY)
	calls := map[string]func(path string) error{
		"create":  func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"mkdir":   func(p string) error { return unix.Mkdir(p, 0o700) },
		"symlink": func(p string) error { return unix.Symlink(strings.Repeat("t", 4095), p) },
		"link":    func(p string) error { return unix.Link(m.path("file"), p) },
		"linkat":  func(p string) error { return linkFile(f, p) },
		"fifo":    func(p string) error { return unix.Mknod(p, unix.S_IFIFO|0o600, 0) },
		"socket":  func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) },
		"rename": func(p string) error {
			return errors.Join(os.WriteFile(m.path("to rename"), nil, 0o600), unix.Rename(m.path("to rename"), p))
		},
	}
	for what, call := range calls {
		name := what + strings.Repeat("é", 127)
		name = name[:len(what)] + name[len(what):][:255-len(what)] // may cut a character: names are bytes
		if err := call(m.path(name)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := call(m.path(name + "x")); !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("%s of 256 bytes: %v", what, err)
		}
	}
	m.must(f.Close())
	m.must(os.Remove(m.path("to rename")))
	m.remount()
	if got := listing(t, m.dir); len(got) != len(calls)+1 {
		t.Errorf("%d names", len(got))
	}
}

// A tree far deeper than a path can be long: made, looked at after a remount, renamed at its top, and removed by rm -r.
func TestDeepTree(t *testing.T) {
	levels := times(600, 2000)
	m := mount(t, options{})
	cd := func(fd int, name string) int {
		t.Helper()
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		m.must(err)
		unix.Close(fd)
		return next
	}
	top := func() int {
		fd, err := unix.Open(m.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		m.must(err)
		return fd
	}
	name := func(i int) string { return fmt.Sprintf("level-%04d", i) }
	fd := top()
	for i := range levels {
		m.must(unix.Mkdirat(fd, name(i), 0o755))
		fd = cd(fd, name(i))
	}
	bottom, err := unix.Openat(fd, "bottom", unix.O_CREAT|unix.O_RDWR, 0o600)
	m.must(err)
	f := os.NewFile(uintptr(bottom), "bottom")
	_, err = f.WriteString("here")
	m.must(errors.Join(err, f.Sync(), f.Close(), unix.Close(fd)))
	m.remount()
	m.must(os.Rename(m.path(name(0)), m.path("top")))
	fd = cd(top(), "top")
	for i := 1; i < levels; i++ {
		fd = cd(fd, name(i))
	}
	bottom, err = unix.Openat(fd, "bottom", unix.O_RDONLY, 0)
	m.must(err)
	f = os.NewFile(uintptr(bottom), "bottom")
	if got, err := io.ReadAll(f); string(got) != "here" {
		t.Errorf("at the bottom: %q, %v", got, err)
	}
	m.must(errors.Join(f.Close(), unix.Close(fd)))
	if out, err := exec.Command("rm", "-r", m.path("top")).CombinedOutput(); err != nil {
		t.Errorf("rm -r: %v: %.300s", err, out)
	}
	if got := listing(t, m.dir); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
	m.stop()
	if out, err := exec.Command("find", m.vault, "-mindepth", "1", "-not", "-path", "*/.coffer*").Output(); err != nil || len(out) > 0 {
		t.Errorf("left on the host: %.300s, %v", out, err)
	}
	m.start()
}

// The limit of a process on the size of its files holds for every way to make one larger.
func TestFileSizeLimit(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("file", make([]byte, 1000))
		m.write("source", patterned(100_000))
		m.must(runChild(t, uint32(os.Geteuid()), "fsize", path, m.path("source")))
		if st := lstat(t, path); st.Size != 50_000 {
			t.Errorf("%d bytes", st.Size)
		}
	})
}

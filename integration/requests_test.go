package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// How many requests everyday operations cost: each is a round trip, and the number of them is most of what metadata work costs.
// A change that adds one shows here, each time; a kernel that has to forget what it knew, for want of memory, asks more now and then.
func TestRequests(t *testing.T) {
	m := mount(t, options{})
	const files, tries = 1000, 3
	m.must(os.Mkdir(m.path("d"), 0o755))
	data := patterned(4096)
	for i := range files {
		m.write(fmt.Sprintf("d/%04d", i), data)
	}
	var more []string
	for range tries {
		m.remount()
		if more = m.countRequests(t, data); len(more) == 0 {
			return
		}
		m.must(os.Remove(m.path("d", "new")))
	}
	t.Errorf("%s", strings.Join(more, "\n"))
}

// countRequests does what people do in a directory of many files of data, and answers what cost more than it may.
func (m *mounted) countRequests(t *testing.T, data []byte) (more []string) {
	fd, err := unix.Open(m.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	m.must(err)
	unix.Close(fd)

	// afterRelease waits for RELEASE, which nobody else waits for.
	afterRelease := func() map[string]int {
		t.Helper()
		for end := time.Now().Add(time.Minute); m.handles() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d handles stay open", m.handles())
			}
		}
		time.Sleep(20 * time.Millisecond) // for what nobody expects
		return m.take()
	}
	create := func(name string) {
		f, err := os.OpenFile(m.path("d", name), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
		m.must(err)
		_, err = unix.Write(int(f.Fd()), data)
		m.must(err)
		m.must(f.Close())
	}
	read := func(name string) {
		fd, err := unix.Open(m.path("d", name), unix.O_RDONLY, 0)
		m.must(err)
		_, err = unix.Read(fd, make([]byte, 4096))
		m.must(err)
		unix.Close(fd)
	}
	stat := func(name string) { lstat(t, m.path("d", name)) }

	const many = 32
	for _, c := range []struct {
		what string
		do   func()
		want map[string]int // most that may be sent
	}{
		{"create, write 4 KiB, close", func() { create("new") },
			map[string]int{"LOOKUP": 1, "CREATE": 1, "GETXATTR": 1, "WRITE": 1, "SETATTR": 1, "FLUSH": 1, "RELEASE": 1}},
		{"rename", func() { m.must(unix.Rename(m.path("d", "new"), m.path("d", "old"))) }, map[string]int{"LOOKUP": 1, "RENAME": 1, "SETATTR": 1}},
		{"and back", func() { m.must(unix.Rename(m.path("d", "old"), m.path("d", "new"))) }, map[string]int{"LOOKUP": 1, "RENAME": 1, "SETATTR": 1}},
		{"link", func() { m.must(unix.Link(m.path("d", "new"), m.path("d", "link"))) }, map[string]int{"LOOKUP": 1, "LINK": 1, "SETATTR": 1}},
		{"unlink", func() { m.must(unix.Unlink(m.path("d", "link"))) }, map[string]int{"UNLINK": 1, "SETATTR": 1}},
		{"mkdir", func() { m.must(unix.Mkdir(m.path("d", "dir"), 0o755)) }, map[string]int{"LOOKUP": 1, "MKDIR": 1}},
		{"rmdir", func() { m.must(unix.Rmdir(m.path("d", "dir"))) }, map[string]int{"RMDIR": 1}},
		{"symlink", func() { m.must(unix.Symlink("new", m.path("d", "sym"))) }, map[string]int{"LOOKUP": 1, "SYMLINK": 1}},
		{"unlink of a symlink", func() { m.must(os.Remove(m.path("d", "sym"))) }, map[string]int{"UNLINK": 1}},
		{"stat after it", func() { stat("new") }, map[string]int{"GETATTR": 2}}, // of the directory, which changed, too
		{"stat again", func() { stat("new") }, nil},
		{"open, read, close of a known file", func() { read("new") }, map[string]int{"OPEN": 1, "FLUSH": 1, "RELEASE": 1}},
		{"open, read, close of an unknown file", func() { read("0007") }, map[string]int{"LOOKUP": 1, "OPEN": 1, "READ": 1, "FLUSH": 1, "RELEASE": 1}},
		{"again", func() { read("0007") }, map[string]int{"OPEN": 1, "FLUSH": 1, "RELEASE": 1}},
		{"stat of an unknown file", func() { stat("0008") }, map[string]int{"LOOKUP": 1}},
		{"stat of no file", func() { unix.Lstat(m.path("d", "none"), &unix.Stat_t{}) }, map[string]int{"LOOKUP": 1}},
		{"again", func() { unix.Lstat(m.path("d", "none"), &unix.Stat_t{}) }, nil},
		{"overwrite with O_TRUNC", func() {
			f, err := os.OpenFile(m.path("d", "new"), os.O_WRONLY|os.O_TRUNC, 0)
			m.must(err)
			_, err = unix.Write(int(f.Fd()), data)
			m.must(err)
			m.must(f.Close())
		}, map[string]int{"OPEN": 1, "GETATTR": 1, "GETXATTR": 2, "WRITE": 1, "SETATTR": 2, "FLUSH": 1, "RELEASE": 1}}, // one to truncate, one for the mtime
		{"append 100 bytes 100 times and fsync", func() {
			f, err := os.OpenFile(m.path("d", "0009"), os.O_WRONLY|os.O_APPEND, 0)
			m.must(err)
			for range 100 {
				_, err = unix.Write(int(f.Fd()), data[:100])
				m.must(err)
			}
			m.must(f.Sync())
			m.must(f.Close())
		}, map[string]int{"LOOKUP": 1, "OPEN": 1, "GETATTR": 1, "GETXATTR": 1, "READ": 1, "WRITE": 3, "SETATTR": 1, "FSYNC": 1, "FLUSH": 1, "RELEASE": 1}},
		{"create, chown, write 4 KiB, close, 32 times within a tick of the clock each", func() {
			for i := range many {
				f, err := os.OpenFile(m.path("d", fmt.Sprint("many", i)), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
				m.must(err)
				m.must(f.Chown(os.Geteuid(), os.Getegid()))
				_, err = unix.Write(int(f.Fd()), data)
				m.must(err)
				m.must(f.Close())
			}
		}, map[string]int{ // one SETATTR each for the owner, and for a few the mtime, of those that took longer
			"LOOKUP": many, "CREATE": many, "GETXATTR": 2 * many, "WRITE": many, "SETATTR": many + many/2, "FLUSH": many, "RELEASE": many}},
		{"unlink of them", func() {
			for i := range many {
				m.must(unix.Unlink(m.path("d", fmt.Sprint("many", i))))
			}
		}, map[string]int{"UNLINK": many, "SETATTR": many}},
		{"ls -l of 1001 files", func() { m.must(exec.Command("ls", "-l", m.path("d")).Run()) },
			map[string]int{"OPENDIR": 1, "READDIRPLUS": 20, "READDIR": 1, "GETXATTR": 4, "LOOKUP": 2, "GETATTR": 10}},
	} {
		afterRelease()
		c.do()
		got := afterRelease()
		t.Logf("%s: %s", c.what, show(got))
		if os.Geteuid() != 0 && got["GETATTR"] > 0 { // the kernel checks permissions, and asks for the directory's after each change in it
			got["GETATTR"]--
		}
		for op, n := range got {
			if n > c.want[op] {
				more = append(more, fmt.Sprintf("%s: %d %s, want at most %d", c.what, n, op, c.want[op]))
			}
		}
	}
	return more
}

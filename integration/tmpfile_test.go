package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func tmpfile(t *testing.T, dir string, flags int, mode uint32) *os.File {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDWR|unix.O_TMPFILE|flags, mode)
	if err != nil {
		t.Fatalf("O_TMPFILE: %v", err)
	}
	return os.NewFile(uintptr(fd), "tmpfile")
}

func linkFile(f *os.File, path string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
}

func TestTmpfile(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		m.must(os.Mkdir(m.path("d"), 0o755))
		data := patterned(300_000)
		f := tmpfile(t, m.path("d"), 0, 0o640)
		defer f.Close()
		_, err := f.WriteAt(data, 0)
		m.must(err)
		if st := fstat(t, f); st.Nlink != 0 || st.Mode != unix.S_IFREG|0o640 || st.Size != int64(len(data)) {
			t.Errorf("%d links, mode %o, %d bytes", st.Nlink, st.Mode, st.Size)
		}
		got := make([]byte, len(data))
		_, err = f.ReadAt(got, 0)
		m.must(err)
		same(t, "without a name", got, data)
		m.must(f.Sync())
		if n := len(listing(t, m.path("d"))) + len(m.host()); n != 0 {
			t.Errorf("%d names, here and on the host", n)
		}

		// Into another directory, a second time as any file, over an existing name by a rename.
		m.must(linkFile(f, m.path("named")))
		m.must(linkFile(f, m.path("d", "again")))
		m.must(os.Rename(m.write("other", []byte("other")), m.path("d", "target")))
		m.must(os.Rename(m.path("d", "again"), m.path("d", "target")))
		if err := linkFile(f, m.path("named")); err != unix.EEXIST {
			t.Errorf("onto a name: %v", err)
		}
		_, err = f.WriteAt([]byte("more"), 100)
		m.must(err)
		copy(data[100:], "more")
		m.must(f.Close())
		for range 2 {
			m.want(m.path("named"), data)
			m.want(m.path("d", "target"), data)
			if st := lstat(t, m.path("named")); st.Nlink != 2 || st.Mode != unix.S_IFREG|0o640 {
				t.Errorf("%d links, mode %o", st.Nlink, st.Mode)
			}
			m.remount()
		}

		// What is not named goes, and with O_EXCL or once its names are gone it cannot be named.
		g := tmpfile(t, m.dir, unix.O_EXCL, 0o600)
		_, err = g.WriteAt(data, 0)
		m.must(err)
		if err := linkFile(g, m.path("excl")); err != unix.ENOENT {
			t.Errorf("O_EXCL: %v", err)
		}
		m.must(g.Close())
		h := tmpfile(t, m.dir, 0, 0o600)
		m.must(linkFile(h, m.path("brief")))
		m.must(os.Remove(m.path("brief")))
		if err := linkFile(h, m.path("excl")); err != unix.ENOENT {
			t.Errorf("once removed: %v", err)
		}
		m.must(h.Close())
		m.stop()
		if n := m.host(); len(n) != 2 { // two links of one file
			t.Errorf("on the host: %q", n)
		}
		m.start()
	})
}

// A file that was linked and closed holds no descriptor: thousands may come and go.
func TestTmpfileReleasesHost(t *testing.T) {
	m := mount(t, options{})
	open := func() int { return len(listing(t, "/proc/self/fd")) }
	before := open()
	for i := range 100 {
		f := tmpfile(t, m.dir, 0, 0o600)
		_, err := f.WriteString("content")
		m.must(err)
		m.must(linkFile(f, m.path(fmt.Sprint(i))))
		m.must(f.Close())
	}
	for i := range 100 {
		m.want(m.path(fmt.Sprint(i)), []byte("content"))
	}
	for end := time.Now().Add(time.Minute); open() > before+50; time.Sleep(time.Millisecond) { // nobody waits for RELEASE
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", open(), before)
		}
	}
}

// Owner, group and mode are right from the start, in a setgid directory too, and the umask counts.
func TestTmpfileOwner(t *testing.T) {
	needRoot(t)
	m := mount(t, options{allowOther: true})
	m.must(os.Mkdir(m.path("d"), 0o777))
	m.must(os.Chown(m.path("d"), 0, 77))
	m.must(unix.Chmod(m.path("d"), 0o2777))
	m.must(runChild(t, nobody, "tmpfile", m.path("d"), m.path("d", "named")))
	if st := lstat(t, m.path("d", "named")); st.Uid != nobody || st.Gid != 77 || st.Mode&0o7777 != 0o666 {
		t.Errorf("%d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	m.must(os.Mkdir(m.path("closed"), 0o755))
	if err := runChild(t, nobody, "tmpfile", m.path("closed"), m.path("d", "no")); err == nil {
		t.Error("made in a directory of another user")
	}
	old := unix.Umask(0o077)
	f := tmpfile(t, m.dir, 0, 0o666)
	unix.Umask(old)
	defer f.Close()
	if st := fstat(t, f); st.Mode&0o7777 != 0o600 {
		t.Errorf("with umask 077: %o", st.Mode)
	}
}

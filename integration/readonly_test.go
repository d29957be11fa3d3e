package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hostState is all that the host says of every object of the vault, access times included: that of a directory before it is listed here.
func (m *mounted) hostState() map[string]string {
	m.t.Helper()
	all := map[string]string{}
	m.must(filepath.WalkDir(m.vault, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		all[path] = hostStat(m.t, path)
		return nil
	}))
	return all
}

func hostStat(t testing.TB, path string) string {
	t.Helper()
	st := lstat(t, path)
	return fmt.Sprintf("%o %d:%d links %d, %d bytes, %d blocks, atime %v, mtime %v, ctime %v", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Blocks, st.Atim, st.Mtim, st.Ctim)
}

// refusals tries every call that changes something.
func (m *mounted) refusals() map[string]error {
	f, err := os.Open(m.path("file"))
	m.must(err)
	defer f.Close()
	fd, now := int(f.Fd()), time.Now()
	_, tmp := unix.Open(m.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	return map[string]error{
		"write":    os.WriteFile(m.path("file"), nil, 0o644),
		"create":   os.WriteFile(m.path("new"), nil, 0o644),
		"tmpfile":  tmp,
		"truncate": os.Truncate(m.path("file"), 1),
		"mkdir":    os.Mkdir(m.path("new"), 0o755),
		"mkfifo":   unix.Mkfifo(m.path("new"), 0o600),
		"symlink":  os.Symlink("x", m.path("new")),
		"link":     os.Link(m.path("file"), m.path("new")),
		"linkfile": linkFile(f, m.path("new")),
		"remove":   os.Remove(m.path("file")),
		"rmdir":    unix.Rmdir(m.path("dir")),
		"rename":   os.Rename(m.path("file"), m.path("new")),
		"exchange": unix.Renameat2(unix.AT_FDCWD, m.path("file"), unix.AT_FDCWD, m.path("dir"), unix.RENAME_EXCHANGE),
		"chmod":    os.Chmod(m.path("file"), 0o600),
		"fchmod":   f.Chmod(0o600),
		"chown":    os.Lchown(m.path("link"), os.Getuid(), os.Getgid()),
		"utimes":   os.Chtimes(m.path("file"), now, now),
		"futimes":  unix.Futimes(fd, []unix.Timeval{{Sec: 1}, {Sec: 2}}),
	}
}

// lookAt reads all there is to read.
func (m *mounted) lookAt(data []byte) {
	m.t.Helper()
	m.want(m.path("file"), data)
	m.want(m.path("dir", "small"), []byte("small"))
	if target, err := os.Readlink(m.path("link")); err != nil || target != "target" {
		m.t.Errorf("%q, %v", target, err)
	}
	if n := len(listing(m.t, m.dir)) + len(listing(m.t, m.path("dir"))); n < 4 {
		m.t.Errorf("%d names", n)
	}
	f, err := os.Open(m.path("file"))
	m.must(err)
	defer f.Close()
	if off, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil || off != int64(len(data)) {
		m.t.Errorf("SEEK_HOLE: %d, %v", off, err)
	}
	m.must(f.Sync())
	statx(m.t, m.path("file"))
}

func (m *mounted) fillForReading() []byte {
	m.t.Helper()
	data := patterned(100_000)
	m.write("file", data)
	m.must(os.Mkdir(m.path("dir"), 0o755))
	m.write("dir/small", []byte("small"))
	m.must(os.Symlink("target", m.path("link")))
	return data
}

// A mount for reading changes nothing on the host, not even when something was read last: after a clean end, after a crash that left files
// to repair, and on a host that is read-only itself.
func TestReadOnly(t *testing.T) {
	test := func(t *testing.T, m *mounted, data []byte) {
		before := m.hostState()
		for path := range before { // long ago, so that any reading would show
			m.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: 1000}, {Nsec: unix.UTIME_OMIT}}, unix.AT_SYMLINK_NOFOLLOW))
		}
		for path := range before {
			before[path] = hostStat(t, path)
		}
		m.options.readOnly = true
		m.start()
		m.lookAt(data)
		for what, err := range m.refusals() {
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %v", what, err)
			}
		}
		m.lookAt(data)
		m.stop()
		m.options.readOnly = false
		after := m.hostState()
		links := os.Geteuid() == 0 // only root reads symlinks without a trace
		for path, was := range before {
			if after[path] != was && (links || lstat(t, path).Mode&unix.S_IFMT != unix.S_IFLNK) {
				t.Errorf("%s was %s, is %s", path, was, after[path])
			}
		}
		if !maps.Equal(keysOf(before), keysOf(after)) {
			t.Error("objects came or went")
		}
	}
	t.Run("clean", func(t *testing.T) {
		m := mount(t, options{})
		data := m.fillForReading()
		m.stop()
		test(t, m, data)
		m.start()
	})
	t.Run("unclean", func(t *testing.T) {
		m := mount(t, options{wantErrors: true})
		data := m.fillForReading()
		headless := m.write("headless", data)
		host := map[uint64]string{}
		for _, h := range m.host() {
			host[lstat(t, h).Ino] = h
		}
		torn, long := host[lstat(t, headless).Ino], host[lstat(t, m.path("file")).Ino]
		m.crash()
		m.must(os.Truncate(torn, 0))
		m.must(os.Truncate(long, 1<<20))
		test(t, m, data)
		m.options.readOnly = true
		m.start()
		m.want(headless, nil)
		time.Sleep(50 * time.Millisecond)
		m.must(m.cache.FlushAll()) // nothing was noted as to be written
		m.options.readOnly = false
		m.remount()
	})
	t.Run("read-only host", func(t *testing.T) {
		needRoot(t)
		m := mount(t, options{})
		data := m.fillForReading()
		m.stop()
		ro := t.TempDir()
		m.must(unix.Mount(m.vault, ro, "", unix.MS_BIND, ""))
		unmount := func() { _ = unix.Unmount(ro, unix.MNT_DETACH) }
		t.Cleanup(unmount)
		m.must(unix.Mount("", ro, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		m.options.readOnly = true
		home := m.vault
		m.vault = ro
		m.start()
		m.lookAt(data)
		for what, err := range m.refusals() {
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %v", what, err)
			}
		}
		m.stop()
		unmount()
		m.options.readOnly, m.vault = false, home
		m.start()
	})
}

func keysOf(all map[string]string) map[string]bool {
	set := map[string]bool{}
	for k := range all {
		set[k] = true
	}
	return set
}

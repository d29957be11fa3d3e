package integration

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func statx(t testing.TB, path string) (st unix.Statx_t) {
	t.Helper()
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		t.Fatalf("statx %s: %v", path, err)
	}
	return st
}

// The time of birth is the host's, stays through writes, renames and remounts, and comes with the same attributes as stat's.
func TestBirthTime(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		if statx(t, m.vault).Mask&unix.STATX_BTIME == 0 {
			t.Skip("the host has no birth times")
		}
		m.must(os.Mkdir(m.path("dir"), 0o755))
		file := m.write("file", []byte("x"))
		m.must(os.Symlink("target", m.path("link")))
		m.must(unix.Mkfifo(m.path("fifo"), 0o600))
		born := map[string]unix.StatxTimestamp{}
		last := statx(t, m.vault).Btime
		for _, name := range []string{"dir", "file", "link", "fifo"} {
			st := statx(t, m.path(name))
			if st.Mask&unix.STATX_BTIME == 0 || st.Btime.Sec < last.Sec || st.Btime.Sec == last.Sec && st.Btime.Nsec < last.Nsec {
				t.Errorf("%s: mask %#x, born at %v, after %v", name, st.Mask, st.Btime, last)
			}
			born[name], last = st.Btime, st.Btime
		}
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		m.must(err)
		defer f.Close()
		_, err = f.WriteAt(patterned(100_000), 0)
		m.must(err)
		if st := statx(t, file); st.Size != 100_000 || st.Btime != born["file"] || st.Nlink != 1 {
			t.Errorf("open: %d bytes, %d links, born at %v", st.Size, st.Nlink, st.Btime)
		}
		m.must(os.Remove(file))
		var st unix.Statx_t
		m.must(unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st))
		if st.Nlink != 0 || st.Btime != born["file"] || st.Size != 100_000 {
			t.Errorf("unlinked: %d bytes, %d links, born at %v", st.Size, st.Nlink, st.Btime)
		}
		m.must(f.Close())
		m.must(os.Rename(m.path("link"), m.path("dir", "link")))
		born["dir/link"] = born["link"]
		m.remount()
		for _, name := range []string{"dir", "dir/link", "fifo"} {
			x, st := statx(t, m.path(name)), lstat(t, m.path(name))
			if x.Btime != born[name] {
				t.Errorf("%s: born at %v, want %v", name, x.Btime, born[name])
			}
			if uint32(x.Mode) != st.Mode || x.Ino != st.Ino || int64(x.Size) != st.Size || uint64(x.Nlink) != uint64(st.Nlink) ||
				x.Mtime.Sec != st.Mtim.Sec || int64(x.Mtime.Nsec) != st.Mtim.Nsec {
				t.Errorf("%s: statx says %+v, stat %+v", name, x, st)
			}
		}
	})
}

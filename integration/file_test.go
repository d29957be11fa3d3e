package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// pattern is the byte at an offset of every test file.

func pattern(off int64) byte { return byte(off*7 + off>>8*13 + off>>16*29) }

func patterned(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = pattern(int64(i))
	}
	return b
}

func (m *mounted) write(name string, data []byte) string {
	m.t.Helper()
	m.must(os.WriteFile(m.path(name), data, 0o644))
	return m.path(name)
}

func (m *mounted) want(path string, data []byte) {
	m.t.Helper()
	got, err := os.ReadFile(path)
	m.must(err)
	same(m.t, path, got, data)
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
		}
	}
}

func lstat(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("stat %s: %v", path, err)
	}
	return st
}

func fstat(t testing.TB, f *os.File) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatalf("fstat: %v", err)
	}
	return st
}

func TestRenameOverOpen(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		old, fresh := patterned(200_000), []byte("fresh")
		target := m.write("target", old)
		f, err := os.OpenFile(target, os.O_RDWR, 0)
		m.must(err)
		defer f.Close()
		m.must(os.Rename(m.write("new", fresh), target))
		m.want(target, fresh)
		got, err := io.ReadAll(f)
		m.must(err)
		same(t, "open file", got, old)
		if st := fstat(t, f); st.Nlink != 0 || st.Size != int64(len(old)) {
			t.Errorf("open file: %d links, %d bytes", st.Nlink, st.Size)
		}
		_, err = f.WriteAt([]byte("still here"), 300_000)
		m.must(err)
		m.must(f.Sync())
		m.must(f.Close())
		m.remount()
		m.want(target, fresh)
		if n := len(m.host()); n != 1 {
			t.Errorf("%d host files", n)
		}
	})
}

func TestUnlinkOpen(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		data := patterned(100_000)
		for _, opened := range []string{"before the first byte", "with dirty data", "by O_PATH alone"} {
			path := m.write("file", data)
			flags := unix.O_RDWR
			if opened == "by O_PATH alone" {
				flags = unix.O_PATH
			}
			fd, err := unix.Open(path, flags, 0)
			m.must(err)
			if opened == "with dirty data" {
				_, err := unix.Pwrite(fd, data, 50_000)
				m.must(err)
			}
			m.must(os.Remove(path))
			if flags == unix.O_PATH {
				var st unix.Stat_t
				m.must(unix.Fstat(fd, &st))
				if st.Nlink != 0 || st.Size != int64(len(data)) {
					t.Errorf("%s: %d links, %d bytes", opened, st.Nlink, st.Size)
				}
				again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR, 0)
				m.must(err)
				unix.Close(fd)
				fd = again
			}
			f := os.NewFile(uintptr(fd), "unlinked")
			_, err = f.WriteAt([]byte("tail"), 1<<20)
			m.must(err)
			m.must(f.Sync())
			m.must(f.Chmod(0o600))
			m.must(f.Truncate(1<<20 + 2))
			m.must(unix.Futimes(fd, []unix.Timeval{{Sec: 1}, {Sec: 2}}))
			st := fstat(t, f)
			if st.Nlink != 0 || st.Size != 1<<20+2 || st.Mode&0o777 != 0o600 || st.Mtim.Sec != 2 {
				t.Errorf("%s: %+v", opened, st)
			}
			got := make([]byte, 50_000)
			_, err = f.ReadAt(got, 0)
			m.must(err)
			same(t, opened, got, data[:50_000])
			m.must(f.Close())
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", opened, err)
			}
		}
		m.stop()
		if n := m.host(); len(n) != 0 {
			t.Errorf("left on the host: %q", n)
		}
		m.start()
	})
}

func TestAppendFromSeveralHandles(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("log", nil)
		var fs [3]*os.File
		for i := range fs {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			m.must(err)
			defer f.Close()
			fs[i] = f
		}
		var want []byte
		for i := range 3000 {
			line := fmt.Appendf(nil, "%d from %d\n", i, i%3)
			_, err := fs[i%3].Write(line)
			m.must(err)
			want = append(want, line...)
		}
		m.want(path, want)
		for _, f := range fs {
			m.must(f.Close())
		}
		m.remount()
		m.want(path, want)
	})
}

func TestParallelAppend(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("log", nil)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				for range 500 {
					if _, err := f.WriteString(strings.Repeat(string(rune('a'+g)), 99) + "\n"); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		got, err := os.ReadFile(path)
		m.must(err)
		lines := strings.Split(strings.TrimSuffix(string(got), "\n"), "\n")
		for _, l := range lines {
			if l != strings.Repeat(l[:1], 99) {
				t.Fatalf("torn line %q", l)
			}
		}
		if len(lines) != 2000 {
			t.Errorf("%d lines", len(lines))
		}
	})
}

func TestMmap(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		want := patterned(64 << 10)
		path := m.write("file", want)
		m.must(runChild(t, uint32(os.Geteuid()), "mmap", path))
		copy(want[5000:], "shared")
		copy(want[9000:], "written")
		copy(want[20000:], "unsynced")
		m.want(path, want)
		m.remount()
		m.want(path, want)
	})
}

// Dirty pages that only the kernel knows are data.

// truncation cuts and extends a file by f and checks every byte.

func TestLocks(t *testing.T) {
	m := mount(t, options{})
	path := m.write("file", []byte("x"))
	m.must(runChild(t, uint32(os.Geteuid()), "lock", path))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	m.must(err)
	defer f.Close()
	m.must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
	if err := runChild(t, uint32(os.Geteuid()), "lock", path); err == nil || !strings.Contains(err.Error(), "flock: resource temporarily unavailable") {
		t.Errorf("flock: %v", err)
	}
	m.must(unix.Flock(int(f.Fd()), unix.LOCK_UN))
	m.must(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 15}))
	if err := runChild(t, uint32(os.Geteuid()), "lock", path); err == nil || !strings.Contains(err.Error(), "fcntl: resource temporarily unavailable") {
		t.Errorf("fcntl: %v", err)
	}
	m.must(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: 0, Len: 15}))
	m.must(runChild(t, uint32(os.Geteuid()), "lock", path))
}

// A write only handle of an uncached file: the kernel reads pages that it is to change in part.

func TestWriteOnlyHandle(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		want := patterned(100_000)
		path := m.write("file", want)
		m.remount()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		m.must(err)
		for _, off := range []int64{10, 4090, 50_000, 99_990, 120_000} {
			_, err := f.WriteAt([]byte("0123456789abcdef"), off)
			m.must(err)
			if end := int(off) + 16; end > len(want) {
				want = append(want, make([]byte, end-len(want))...)
			}
			copy(want[off:], "0123456789abcdef")
		}
		m.must(f.Close())
		m.want(path, want)
		m.remount()
		m.want(path, want)
	})
}

// Random reads, writes and truncates of one file against a model, with remounts in between.

func TestAgainstModel(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		path := m.write("file", nil)
		var model []byte
		for round := range 6 {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			m.must(err)
			for range 150 {
				off := r.IntN(600_000)
				n := 1 + r.IntN(1<<uint(r.IntN(18)))
				switch r.IntN(10) {
				case 0:
					m.must(f.Truncate(int64(off)))
					model = append(model[:min(off, len(model))], make([]byte, max(0, off-len(model)))...)
				case 1:
					m.must(f.Sync())
				case 2, 3, 4:
					got := make([]byte, n)
					k, err := f.ReadAt(got, int64(off))
					if err != nil && err != io.EOF {
						t.Fatal(err)
					}
					same(t, "read", got[:k], model[min(off, len(model)):min(off+n, len(model))])
				case 5:
					m.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n)))
					clear(model[min(off, len(model)):min(off+n, len(model))])
				default:
					data := make([]byte, n)
					for i := range data {
						data[i] = byte(r.Uint32())
					}
					_, err := f.WriteAt(data, int64(off))
					m.must(err)
					if off+n > len(model) {
						model = append(model, make([]byte, off+n-len(model))...)
					}
					copy(model[off:], data)
				}
			}
			m.must(f.Close())
			m.want(path, model)
			if round%2 == 1 {
				m.remount()
				m.want(path, model)
			}
		}
	})
}

// What is damaged on the host is an error, never other bytes, and only where it is damaged.

// A copy of a file under another of its names is refused while the first is known.

// O_TRUNC truncates whatever else a file is opened for, and it lasts.
func TestTruncateOpensReadOnly(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		empty := func(when string) {
			t.Helper()
			if n := lstat(t, m.path("f")).Size; n != 0 {
				t.Errorf("%d bytes %s", n, when)
			}
		}
		m.write("f", patterned(100_000))
		m.remount()
		m.must(m.open("f", os.O_RDONLY|os.O_TRUNC).Close())
		empty("at once")
		m.remount()
		empty("after a remount")
		f := m.open("f", os.O_RDWR)
		_, err := f.WriteAt([]byte("new"), 3)
		m.must(err)
		m.must(f.Close())
		m.want(m.path("f"), []byte("\x00\x00\x00new"))
	})
}

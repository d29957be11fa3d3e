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

	"github.com/cofferfs/coffer/internal/event"
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
		m.must(runChild(t, 0, "mmap", path))
		copy(want[5000:], "shared")
		copy(want[9000:], "written")
		copy(want[20000:], "unsynced")
		m.want(path, want)
		m.remount()
		m.want(path, want)
	})
}

func TestSparse(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		const far = 1 << 30
		f, err := os.Create(m.path("sparse"))
		m.must(err)
		defer f.Close()
		data := patterned(8192)
		_, err = f.WriteAt(data, far)
		m.must(err)
		m.must(f.Sync())
		st := fstat(t, f)
		if st.Size != far+8192 || st.Blocks > 256 {
			t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
		}
		for _, c := range []struct {
			off    int64
			whence int
			want   int64
		}{{0, unix.SEEK_DATA, 0}, {0, unix.SEEK_HOLE, far + 8192}} {
			// While it is open for writing, all is data: no data may be called a hole.
			got, err := unix.Seek(int(f.Fd()), c.off, c.whence)
			if err != nil || got != c.want {
				t.Errorf("seek %d from %d while writing: %d, %v; want %d", c.whence, c.off, got, err, c.want)
			}
		}
		m.must(f.Close())
		m.remount()
		f, err = os.Open(m.path("sparse"))
		m.must(err)
		defer f.Close()
		for _, c := range []struct {
			off    int64
			whence int
			want   int64
			err    error
		}{
			{0, unix.SEEK_DATA, far, nil}, {0, unix.SEEK_HOLE, 0, nil}, {far, unix.SEEK_HOLE, far + 8192, nil},
			{far + 100, unix.SEEK_DATA, far + 100, nil}, {far + 8192, unix.SEEK_DATA, 0, unix.ENXIO}, {far + 8192, unix.SEEK_HOLE, 0, unix.ENXIO},
		} {
			got, err := unix.Seek(int(f.Fd()), c.off, c.whence)
			if err != c.err || err == nil && got != c.want {
				t.Errorf("seek %d from %d: %d, %v; want %d, %v", c.whence, c.off, got, err, c.want, c.err)
			}
		}
		got := make([]byte, 12288)
		_, err = f.ReadAt(got, far-4096)
		m.must(err)
		same(t, "data behind a hole", got, append(make([]byte, 4096), data...))
	})
}

// Dirty pages that only the kernel knows are data.
func TestSeekDataOnDirtyPages(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		f, err := os.Create(m.path("file"))
		m.must(err)
		defer f.Close()
		for _, n := range []int64{10_000, 100_000, 1_000_000} {
			_, err := f.WriteAt(patterned(4096), n)
			m.must(err)
			fd := int(f.Fd())
			end := n + 4096
			if got, err := unix.Seek(fd, n, unix.SEEK_DATA); err != nil || got != n {
				t.Errorf("SEEK_DATA at fresh data: %d, %v", got, err)
			}
			if got, err := unix.Seek(fd, n, unix.SEEK_HOLE); err != nil || got != end {
				t.Errorf("SEEK_HOLE: %d, %v; want %d", got, err, end)
			}
			if _, err := unix.Seek(fd, end, unix.SEEK_DATA); err != unix.ENXIO {
				t.Errorf("SEEK_DATA at the end: %v", err)
			}
		}
		got := make([]byte, 4096)
		_, err = f.ReadAt(got, 100_000)
		m.must(err)
		same(t, "after the notification", got, patterned(4096))
	})
}

// truncation cuts and extends a file by f and checks every byte.
func TestTruncate(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		full := patterned(300_000)
		for _, by := range []string{"path", "handle"} {
			path := m.write("file-"+by, full)
			want := bytes.Clone(full)
			var f *os.File
			if by == "handle" {
				var err error
				f, err = os.OpenFile(path, os.O_RDWR, 0)
				m.must(err)
				defer f.Close()
			}
			for _, size := range []int{299_999, 250_000, 131_072, 131_073, 70_000, 65_536, 65_535, 5000, 4096, 4095, 200_000, 1, 0, 3000, 100, 8192, 1 << 20, 0, 50_000} {
				if f != nil {
					m.must(f.Truncate(int64(size)))
				} else {
					m.must(os.Truncate(path, int64(size)))
				}
				if size <= len(want) {
					want = want[:size]
				} else {
					want = append(bytes.Clone(want), make([]byte, size-len(want))...)
				}
				if st := lstat(t, path); st.Size != int64(size) {
					t.Fatalf("by %s: size %d, want %d", by, st.Size, size)
				}
				m.want(path, want)
				// New bytes behind the boundary must not bring old ones back.
				if size > 0 && size < 300_000 && f != nil {
					_, err := f.WriteAt([]byte{0xee}, int64(size)+10)
					m.must(err)
					want = append(bytes.Clone(want), append(make([]byte, 10), 0xee)...)
					m.want(path, want)
				}
			}
			if f != nil {
				m.must(f.Close())
			}
			m.remount()
			m.want(path, want)
			m.write("file-"+by, full)
			g, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
			m.must(err)
			if st := fstat(t, g); st.Size != 0 {
				t.Errorf("O_TRUNC left %d bytes", st.Size)
			}
			_, err = g.WriteAt([]byte("x"), 10_000)
			m.must(err)
			m.must(g.Close())
			m.want(path, append(make([]byte, 10_000), 'x'))
		}
		path := m.write("largest", nil)
		if err := os.Truncate(path, 1<<60); !errors.Is(err, unix.EFBIG) {
			t.Errorf("truncate to 1 EiB: %v", err)
		}
		m.must(os.Truncate(path, 10))
		// Beyond what the host's filesystem can have, and up to what it can.
		for _, size := range []int64{60 << 40, 10 << 40, 1 << 40, 10 << 30} {
			was := lstat(t, path).Size
			err := os.Truncate(path, size)
			if err != nil {
				size = was
			}
			if err != nil && !errors.Is(err, unix.EFBIG) {
				t.Errorf("truncate to %d: %v", size, err)
			}
			m.remount()
			if st := lstat(t, path); st.Size != size {
				t.Errorf("size %d, want %d", st.Size, size)
			}
		}
	})
}

func TestFallocate(t *testing.T) {
	const keep, punch, zero = unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	bothModes(t, func(t *testing.T, m *mounted) {
		want := patterned(200_000)
		path := m.write("file", want)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		m.must(err)
		defer f.Close()
		for _, c := range []struct {
			mode     uint32
			off, len int64
		}{
			{punch | keep, 4096, 4096}, {punch | keep, 10_000, 30_000}, {punch | keep, 199_000, 5000}, {punch | keep, 500_000, 10},
			{zero, 50_000, 100}, {zero | keep, 199_990, 100}, {zero, 199_990, 110}, {0, 0, 1000}, {0, 200_000, 5000}, {keep, 0, 1 << 20},
			{zero, 300_000, 1000},
		} {
			m.must(unix.Fallocate(int(f.Fd()), c.mode, c.off, c.len))
			end := c.off + c.len
			if c.mode&(punch|zero) != 0 {
				for i := c.off; i < min(end, int64(len(want))); i++ {
					want[i] = 0
				}
			}
			if c.mode&keep == 0 && end > int64(len(want)) {
				want = append(want, make([]byte, end-int64(len(want)))...)
			}
			if st := fstat(t, f); st.Size != int64(len(want)) {
				t.Fatalf("mode %d at %d: size %d, want %d", c.mode, c.off, st.Size, len(want))
			}
			m.want(path, want)
		}
		for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE} {
			if err := unix.Fallocate(int(f.Fd()), mode, 0, 4096); err != unix.EOPNOTSUPP {
				t.Errorf("mode %d: %v", mode, err)
			}
		}
		m.must(f.Close())
		m.remount()
		m.want(path, want)
	})
}

func TestLocks(t *testing.T) {
	m := mount(t, options{})
	path := m.write("file", []byte("x"))
	m.must(runChild(t, 0, "lock", path))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	m.must(err)
	defer f.Close()
	m.must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
	if err := runChild(t, 0, "lock", path); err == nil || !strings.Contains(err.Error(), "flock: resource temporarily unavailable") {
		t.Errorf("flock: %v", err)
	}
	m.must(unix.Flock(int(f.Fd()), unix.LOCK_UN))
	m.must(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 15}))
	if err := runChild(t, 0, "lock", path); err == nil || !strings.Contains(err.Error(), "fcntl: resource temporarily unavailable") {
		t.Errorf("fcntl: %v", err)
	}
	m.must(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: 0, Len: 15}))
	m.must(runChild(t, 0, "lock", path))
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

func TestDirectIO(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		want := patterned(1 << 20)
		path := m.write("file", want)
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
		m.must(err)
		defer f.Close()
		page, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		m.must(err)
		defer unix.Munmap(page)
		_, err = f.ReadAt(page, 64<<10)
		m.must(err)
		same(t, "direct read", page, want[64<<10:128<<10])
		for i := range page {
			page[i] = byte(i)
		}
		_, err = f.WriteAt(page, 128<<10)
		m.must(err)
		copy(want[128<<10:], page)
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
func TestDamage(t *testing.T) {
	for _, o := range []options{{wantErrors: true}, {writeThrough: true, wantErrors: true}} {
		t.Run(o.String(), func(t *testing.T) {
			m := mount(t, o)
			want := patterned(200_000)
			path := m.write("file", want)
			m.stop()
			host := m.host()[0]
			b, err := os.ReadFile(host)
			m.must(err)
			b[len(b)-100] ^= 1
			m.must(os.WriteFile(host, b, 0o644))
			m.start()
			got := make([]byte, 100_000)
			f, err := os.Open(path)
			m.must(err)
			defer f.Close()
			if _, err := f.ReadAt(got[:1], 199_950); !errors.Is(err, unix.EIO) {
				t.Errorf("damaged frame: %v", err)
			}
			m.must(f.Close())
			m.stop()
			m.must(os.Truncate(host, int64(len(b))/2))
			m.start()
			if st := lstat(t, path); st.Size == 0 {
				t.Error("a file that was cut looks empty")
			}
			if _, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
				t.Errorf("cut file: %v", err)
			}
			m.must(os.Truncate(host, 0))
			m.stop()
			m.start()
			if _, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
				t.Errorf("file cut to nothing: %v", err)
			}
			m.must(os.Remove(path))
		})
	}
}

// A copy of a file under another of its names is refused while the first is known.
func TestDuplicate(t *testing.T) {
	m := mount(t, options{wantErrors: true})
	path := m.write("one", []byte("data"))
	m.must(os.Link(path, m.path("two")))
	m.stop()
	host := m.host()
	b, err := os.ReadFile(host[1])
	m.must(err)
	m.must(os.Remove(host[1]))
	m.must(os.WriteFile(host[1], b, 0o644))
	m.start()
	failed := 0
	for _, name := range []string{"one", "two"} {
		if _, err := os.ReadFile(m.path(name)); errors.Is(err, unix.EIO) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if failed != 1 || m.findings.count(event.Duplicate) == 0 {
		t.Errorf("%d of 2 refused, %d events", failed, m.findings.count(event.Duplicate))
	}
}

package integration

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// copyAll copies as cp does: until 0 says that the source has ended.
func copyAll(t *testing.T, src, dst *os.File, off, at int64, n int) (total int) {
	t.Helper()
	for total < n {
		k, err := unix.CopyFileRange(int(src.Fd()), &off, int(dst.Fd()), &at, n-total, 0)
		if err != nil {
			t.Fatalf("copy_file_range: %v", err)
		}
		if k == 0 {
			break
		}
		total += k
	}
	return total
}

func (m *mounted) open(name string, flags int) *os.File {
	m.t.Helper()
	f, err := os.OpenFile(m.path(name), flags, 0o644)
	m.must(err)
	m.t.Cleanup(func() { f.Close() })
	return f
}

// No data goes through the kernel, and the copy is right, over other data, at any offset and within one file.
func TestCopyFileRange(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		data, old := patterned(3_000_000), bytes.Repeat([]byte{0xaa}, 2_000_000)
		m.write("src", data)
		m.write("dst", old)
		m.remount()
		src, dst := m.open("src", os.O_RDONLY), m.open("dst", os.O_RDWR)
		m.take()
		const off, at, n = 12_345, 1_234_567, 1_500_001
		if got := copyAll(t, src, dst, off, at, n); got != n {
			t.Errorf("copied %d of %d", got, n)
		}
		if n := m.take(); n["READ"]+n["WRITE"] > 0 {
			t.Errorf("went through the kernel: %s", show(n))
		}
		want := append(bytes.Clone(old[:at]), data[off:off+n]...)
		m.want(dst.Name(), want)
		if got := copyAll(t, src, dst, int64(len(data))-1000, 0, 5000); got != 1000 { // the end
			t.Errorf("copied %d of 1000", got)
		}
		copy(want, data[len(data)-1000:])
		if got := copyAll(t, src, dst, int64(len(data)), 0, 5000); got != 0 {
			t.Errorf("copied %d behind the end", got)
		}
		if got := copyAll(t, dst, dst, 100, 2_000_000, 200_000); got != 200_000 {
			t.Errorf("copied %d within the file", got)
		}
		copy(want[2_000_000:], want[100:200_100])
		m.want(dst.Name(), want)
		a, b := int64(0), int64(500)
		if _, err := unix.CopyFileRange(int(dst.Fd()), &a, int(dst.Fd()), &b, 1000, 0); err != unix.EINVAL {
			t.Errorf("overlapping: %v", err)
		}
		m.must(errors.Join(src.Close(), dst.Close()))
		m.remount()
		m.want(dst.Name(), want)
	})
}

// What only the kernel knows yet is copied: dirty pages, and a size that lies far behind the range.
func TestCopyOfDirtyPages(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		src, dst := m.open("src", os.O_RDWR|os.O_CREATE), m.open("dst", os.O_RDWR|os.O_CREATE)
		data := patterned(100_000)
		_, err := src.WriteAt(data, 1<<20)
		m.must(err)
		_, err = src.WriteAt([]byte("end"), 4<<20)
		m.must(err)
		_, err = dst.WriteAt([]byte("dirty too"), 2<<20-4)
		m.must(err)
		if got := copyAll(t, src, dst, 0, 0, 1<<20); got != 1<<20 { // only a hole, and nothing of it was written back
			t.Errorf("copied %d bytes of a hole", got)
		}
		if got := copyAll(t, src, dst, 1<<20, 1<<20, 1<<20); got != 1<<20 {
			t.Errorf("copied %d bytes", got)
		}
		want := make([]byte, 2<<20+5)
		copy(want[1<<20:], data)
		copy(want[2<<20:], "y too")
		m.want(dst.Name(), want)
		_, err = src.WriteAt([]byte("changed"), 1<<20+5)
		m.must(err)
		copyAll(t, src, dst, 1<<20, 1<<20, 1000)
		copy(want[1<<20+5:], "changed")
		m.want(dst.Name(), want)
		m.must(errors.Join(src.Close(), dst.Close()))
		m.remount()
		m.want(dst.Name(), want)
	})
}

func TestCopyKeepsHoles(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		const far = 1 << 30
		src, dst := m.open("src", os.O_RDWR|os.O_CREATE), m.open("dst", os.O_RDWR|os.O_CREATE)
		_, err := src.WriteAt(patterned(8192), far)
		m.must(err)
		m.must(src.Truncate(2 * far))
		m.take()
		if got := copyAll(t, src, dst, 0, 0, 2*far); got != 2*far {
			t.Errorf("copied %d", got)
		}
		m.must(dst.Sync())
		if st := fstat(t, dst); st.Size != 2*far || st.Blocks > 256 {
			t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
		}
		got := make([]byte, 16384)
		_, err = dst.ReadAt(got, far-4096)
		m.must(err)
		same(t, "around the data", got, append(append(make([]byte, 4096), patterned(8192)...), make([]byte, 4096)...))
	})
}

// A copy is a write: it sets the mtime, and takes suid bits away.
func TestCopyAttributes(t *testing.T) {
	needRoot(t)
	for _, o := range []options{{allowOther: true}, {allowOther: true, writeThrough: true}} {
		t.Run(o.String(), func(t *testing.T) {
			m := mount(t, o)
			m.write("src", patterned(10_000))
			dst := m.write("dst", patterned(20_000))
			past := time.Unix(1_000_000_000, 0)
			m.must(os.Chtimes(dst, past, past))
			m.must(unix.Chmod(dst, 0o6777))
			m.must(runChild(t, nobody, "copy", m.path("src"), dst))
			if mode := modeOf(t, dst); mode != 0o777 {
				t.Errorf("mode %o", mode)
			}
			for range 2 {
				if st := lstat(t, dst); st.Mode&0o7777 != 0o777 || st.Size != 20_000 || st.Mtim.Sec == past.Unix() {
					t.Errorf("mode %o, %d bytes, mtime %v", st.Mode, st.Size, st.Mtim)
				}
				m.remount()
			}
		})
	}
}

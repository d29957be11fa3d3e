package integration

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

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

// TestTruncate cuts and extends, by path and by handle, to sizes around those of frames, segments and groups: what was cut off never comes back.
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
		for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE, unix.FALLOC_FL_UNSHARE_RANGE} {
			if err := unix.Fallocate(int(f.Fd()), mode, 0, 4096); err != unix.EOPNOTSUPP {
				t.Errorf("mode %d: %v", mode, err)
			}
		}
		m.must(f.Close())
		m.remount()
		m.want(path, want)
	})
}

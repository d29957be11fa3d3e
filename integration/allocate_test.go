package integration

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// onSmallHost moves the vault to a host of some MiB for the time of a test.
func (m *mounted) onSmallHost(size string, test func()) {
	m.t.Helper()
	m.stop()
	small := m.t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size="+size); err != nil {
		m.t.Skipf("cannot mount a small host filesystem: %v", err)
	}
	defer unix.Unmount(small, unix.MNT_DETACH)
	m.must(os.CopyFS(small, os.DirFS(m.vault)))
	home := m.vault
	m.vault = small
	m.start()
	test()
	m.stop() // before the host goes
	m.vault = home
	m.start()
}

// What fallocate was granted can be written when nothing else can, and what there is no room for is refused at once.
func TestFallocateReserves(t *testing.T) {
	for _, o := range []options{{wantErrors: true}, {writeThrough: true, wantErrors: true}} {
		t.Run(o.String(), func(t *testing.T) {
			m := mount(t, o)
			m.onSmallHost("16m", func() { // half of it is for the journal
				data := patterned(4 << 20)
				f := m.open("reserved", os.O_RDWR|os.O_CREATE)
				if err := unix.Fallocate(int(f.Fd()), 0, 0, 32<<20); err != unix.ENOSPC {
					t.Errorf("32 MiB on 16: %v", err)
				}
				if st := fstat(t, f); st.Size != 0 {
					t.Errorf("grown to %d by what failed", st.Size)
				}
				m.must(unix.Fallocate(int(f.Fd()), 0, 0, int64(len(data))))
				if st := fstat(t, f); st.Size != int64(len(data)) || st.Blocks < int64(len(data))/512 {
					t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
				}
				if err := os.WriteFile(m.path("filler"), make([]byte, 32<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
					t.Fatalf("the host is not full: %v", err)
				}
				_, err := f.WriteAt(data, 0)
				m.must(err)
				m.must(f.Sync())
				m.want(f.Name(), data)
				m.must(f.Close())
				m.must(os.Remove(m.path("filler")))
				m.remount()
				m.want(f.Name(), data)
			})
		})
	}
}

// A file that grows by fallocate keeps what is written back behind it at the same time.
func TestFallocateBesideWrites(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		const rounds, step = 100, 32 << 10
		f := m.open("file", os.O_RDWR|os.O_CREATE)
		want := make([]byte, rounds*step)
		var wg sync.WaitGroup
		wg.Go(func() {
			for range rounds {
				if err := f.Sync(); err != nil {
					t.Errorf("sync: %v", err)
				}
			}
		})
		for i := range rounds {
			end := int64(i+1) * step
			_, err := f.WriteAt([]byte("written"), end-7)
			m.must(err)
			copy(want[end-7:], "written")
			m.must(unix.Fallocate(int(f.Fd()), 0, end-step, step/2))
		}
		wg.Wait()
		m.want(f.Name(), want)
		m.must(f.Close())
		m.remount()
		m.want(m.path("file"), want)
	})
}

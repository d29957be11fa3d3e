package integration

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// What the programs found, without them.

// The mtime that stat shows is the one that is kept. Under write-back it is the kernel's, which sends it only when it has changed: a WRITE
// that arrives later must not make the file younger. (git saw files as changed after a remount.)
func TestMtimeIsKept(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		want := map[string]unix.Timespec{}
		for i := range 200 {
			name := fmt.Sprint("f", i)
			m.write(name, []byte("one"))
			switch i % 4 {
			case 1:
				m.must(os.WriteFile(m.path(name), []byte("two"), 0)) // O_TRUNC
			case 2:
				f, err := os.OpenFile(m.path(name), os.O_WRONLY|os.O_APPEND, 0)
				m.must(err)
				_, err = f.WriteString("more")
				m.must(errors.Join(err, f.Sync(), f.Close()))
			case 3:
				m.must(os.Truncate(m.path(name), 2))
			}
		}
		for i := range 200 {
			name := fmt.Sprint("f", i)
			want[name] = lstat(t, m.path(name)).Mtim
		}
		m.remount()
		wrong := 0
		for name, ts := range want {
			if got := lstat(t, m.path(name)).Mtim; got != ts {
				if wrong++; wrong <= 3 {
					t.Errorf("%s: mtime %d.%09d, was %d.%09d", name, got.Sec, got.Nsec, ts.Sec, ts.Nsec)
				}
			}
		}
		if wrong > 0 {
			t.Errorf("%d of %d files changed their mtime", wrong, len(want))
		}
	})
}

// A file that is new, or has just grown, is looked at while its last handle goes: what the host said of it before its flush is not its size.
// (Lock files that scripts made with O_CREAT|O_EXCL were reported as damaged.)
func TestStatWhileClosing(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		var now atomic.Value // the file that is open
		now.Store(m.write("first", nil))
		stop := make(chan struct{})
		var others sync.WaitGroup
		for range 3 {
			others.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					_ = os.Chmod(now.Load().(string), 0o600) // its reply has size and times
				}
			})
		}
		for i := range times(1000, 20000) {
			path := m.path(fmt.Sprint("f", i))
			f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o644)
			m.must(err)
			now.Store(path)
			m.must(f.Close()) // its RELEASE flushes
		}
		close(stop)
		others.Wait()
		for i := range times(1000, 20000) {
			if st := lstat(t, m.path(fmt.Sprint("f", i))); st.Size != 0 {
				t.Fatalf("f%d: %d bytes", i, st.Size)
			}
		}
	})
}

// Mapped pages are written back late in both modes: SEEK_DATA knows of them as long as somebody may write.
func TestSeekDataOfMappedPages(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		b := p.background(p.dir, "python3", "-c", `
import mmap, os
fd = os.open('mapped', os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20); os.close(fd)
m[500000:500004] = b'data'
print('mapped', flush=True); input()
`)
		b.expect("mapped")
		f, err := os.Open(p.path("mapped"))
		p.must(err)
		defer f.Close()
		if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); err != nil || at > 500000 {
			t.Errorf("data at %d, %v", at, err)
		}
		b.say("end")
		b.end()
		f.Close()
		p.checkRemount()
	}, "python3")
}

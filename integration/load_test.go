package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory of many files: each is found, listed once, renamed and removed.
func TestManyFilesInDirectory(t *testing.T) {
	count := times(3000, 100_000)
	m := mount(t, options{})
	name := func(i int) string { return m.path("d", fmt.Sprintf("file-%06d", i)) }
	m.must(os.Mkdir(m.path("d"), 0o755))
	for i := range count {
		m.must(os.WriteFile(name(i), fmt.Append(nil, i), 0o600))
	}
	m.remount()
	seen := map[string]bool{}
	for _, n := range listing(t, m.path("d")) {
		if seen[n] {
			t.Errorf("%s is listed twice", n)
		}
		seen[n] = true
	}
	if len(seen) != count {
		t.Errorf("%d names, want %d", len(seen), count)
	}
	for i := 0; i < count; i += 97 {
		m.want(name(i), fmt.Append(nil, i))
		m.must(os.Rename(name(i), name(i)+".moved"))
		m.want(name(i)+".moved", fmt.Append(nil, i))
	}
	if err := os.Remove(m.path("d")); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("rmdir: %v", err)
	}
	m.must(os.RemoveAll(m.path("d")))
	m.stop()
	if n := len(m.host()); n != 0 {
		t.Errorf("%d files left on the host", n)
	}
	m.start()
}

// Many files are open at once, some without a name, and each keeps its own content.
func TestManyOpenFiles(t *testing.T) {
	const count = 2000
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur < 2*count+200 { // ours, and the host's
		t.Skipf("this process may open %d files only, %v", lim.Cur, err)
	}
	m := mount(t, options{})
	content := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "file %d\n", i), 1+i%1000) }
	files := make([]*os.File, count)
	for i := range files {
		f, err := os.OpenFile(m.path(fmt.Sprint(i)), os.O_RDWR|os.O_CREATE, 0o600)
		m.must(err)
		defer f.Close()
		_, err = f.Write(content(i))
		m.must(err)
		if i%3 == 0 {
			m.must(os.Remove(f.Name()))
		}
		files[i] = f
	}
	for i, f := range files {
		want := content(i)
		got := make([]byte, len(want))
		_, err := f.ReadAt(got, 0)
		m.must(err)
		same(t, f.Name(), got, want)
		m.must(f.Close())
	}
	m.remount()
	for i := range files {
		if i%3 != 0 {
			m.want(m.path(fmt.Sprint(i)), content(i))
		}
	}
	if n := len(listing(t, m.dir)); n != count*2/3 {
		t.Errorf("%d names", n)
	}
}

// 24 writers of one file, each with a handle of its own and its own records between those of the others.
func TestParallelWriters(t *testing.T) {
	const writers, record = 24, 5000 // no multiple of a page or frame: neighbours share them
	rounds := times(20, 400)
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("file", nil)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				buf := bytes.Repeat([]byte{byte('a' + w)}, record)
				for r := range rounds {
					off := int64(r*writers+w) * record
					if _, err := f.WriteAt(buf, off); err != nil {
						t.Errorf("write: %v", err)
					}
					if r%8 == w%8 {
						if err := f.Sync(); err != nil {
							t.Errorf("sync: %v", err)
						}
					}
					got := make([]byte, record)
					if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, buf) {
						t.Errorf("writer %d does not read what it wrote, %v", w, err)
					}
				}
				if err := f.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
		wg.Wait()
		var want []byte
		for range rounds {
			for w := range writers {
				want = append(want, bytes.Repeat([]byte{byte('a' + w)}, record)...)
			}
		}
		m.want(path, want)
		m.remount()
		m.want(path, want)
	})
}

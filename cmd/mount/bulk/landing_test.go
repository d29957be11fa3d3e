package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// smallFiles are files to export; that with number bad cannot be read.
func smallFiles(n, bad int) (jobs []Job, contents [][]byte) {
	for i := range n {
		data := bytes.Repeat([]byte{byte(i)}, 100*i)
		f := &fakeFile{st: plain.Stat{Mode: unix.S_IFREG | 0o600, Size: int64(len(data)), Nlink: 1, Object: fmt.Sprint(i), Mtime: unix.Timespec{Sec: 5}}, data: data, failAt: 1 << 40}
		if i == bad {
			f.failAt = 0
		}
		jobs, contents = append(jobs, Job{f, fmt.Sprint(i)}), append(contents, data)
	}
	return jobs, contents
}

// wholeFiles counts the files in dir, each of which must be whole and have a final name.
func wholeFiles(t *testing.T, dir string, contents [][]byte) (n int) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		var i int
		if _, err := fmt.Sscan(e.Name(), &i); err != nil {
			t.Errorf("%s is left", e.Name())
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || !bytes.Equal(got, contents[i]) {
			t.Errorf("%s: %d bytes, %v", e.Name(), len(got), err)
		}
	}
	return len(all)
}

// TestExportTogether: small files that become durable together all get their names, whatever becomes of another one.
func TestExportTogether(t *testing.T) {
	noLeaks(t)
	const n, bad = 300, 70
	dir := t.TempDir()
	jobs, contents := smallFiles(n, bad)
	var mu sync.Mutex
	var told []error
	e := &Export{Damage: func(error) bool { return false }, Failed: func(_ string, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err)
	}}
	if err := e.Run(context.Background(), dir, jobs); err != nil {
		t.Fatal(err)
	}
	if s := e.Summary(); len(told) != 1 || !errors.Is(told[0], errPulled) || s.Files != n-1 || s.Failed != 1 {
		t.Errorf("told %v, %+v", told, s)
	}
	if got := wholeFiles(t, dir, contents); got != n-1 {
		t.Errorf("%d files, of %d", got, n-1)
	}
	if most := e.landing.most; most < fewFiles { // a host that is not known, or one that lets a process open few files
		t.Skipf("%d files become durable at a time here", most)
	}
}

// TestExportTogetherInterrupted: what waits when an export is interrupted gets its names, and counts.
func TestExportTogetherInterrupted(t *testing.T) {
	noLeaks(t)
	for _, after := range []int{1, 20, 150} {
		dir := t.TempDir()
		jobs, contents := smallFiles(200, -1)
		ctx, cancel := context.WithCancel(context.Background())
		jobs[after].Node = cancelling{jobs[after].Node.(*fakeFile), cancel}
		e := &Export{Damage: func(error) bool { return false }, Failed: func(path string, err error) { t.Error(path, err) }}
		if err := e.Run(ctx, dir, jobs); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		got := wholeFiles(t, dir, contents)
		if s := e.Summary(); int64(got) != s.Files || got == len(jobs) || got < after-workers {
			t.Errorf("after %d: %d files, %+v", after, got, s)
		}
	}
}

// cancelling interrupts the export that opens it.
type cancelling struct {
	*fakeFile
	cancel func()
}

func (c cancelling) Child(string) (plain.Node, error) { return c, nil }
func (c cancelling) Open() (plain.File, error)        { c.cancel(); return c.fakeFile.Open() }

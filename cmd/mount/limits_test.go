package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A daemon that may open no more files says so of the system, not of the program that asks, keeps what it has open, and goes on when some are closed.
func TestFileLimitReached(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	pid := b.daemon(mp)
	have, err := os.ReadDir(procPath(pid, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	var was unix.Rlimit
	if all := systemFileLimit(); all > 0 {
		// If this may be done for it, it could have done it itself.
		err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: all, Max: all}, &was)
		if err == nil && was.Max != all {
			t.Errorf("the daemon may open %d files, the system lets it %d", was.Max, all)
		}
	}
	most := uint64(len(have) + 40)
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return filepath.Join(mp, fmt.Sprint("file", i)) }
	var open []*os.File
	for err == nil && len(open) < 100 {
		var f *os.File
		if f, err = os.Create(name(len(open))); err == nil {
			open = append(open, f)
		}
	}
	if !errors.Is(err, unix.ENFILE) || len(open) < 20 {
		t.Fatalf("after %d files: %v", len(open), err)
	}
	for i, f := range open {
		if _, err := fmt.Fprint(f, "content ", i); err != nil {
			t.Errorf("write: %v", err)
		}
	}
	for _, f := range open {
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Errorf("sync and close: %v", err)
		}
	}
	writeFile(t, filepath.Join(mp, "after"), "more")
	for i := range open {
		if got := readFile(t, name(i)); got != fmt.Sprint("content ", i) {
			t.Errorf("file %d holds %q", i, got)
		}
	}
	b.ok("", "umount", mp)
}

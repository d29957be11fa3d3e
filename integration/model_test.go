package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTreeModel does random operations on a mount and on a directory of the host, which is the model: both must answer alike and, after remounts and
// in between, hold the same tree. A failure prints the seed; COFFER_SEED repeats it.
func TestTreeModel(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		seed := uint64(time.Now().UnixNano())
		if s := os.Getenv("COFFER_SEED"); s != "" {
			if _, err := fmt.Sscan(s, &seed); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("COFFER_SEED=%d", seed)
		rng := rand.New(rand.NewPCG(seed, 1))
		model := t.TempDir()
		rounds := 6
		if os.Getenv("COFFER_LONG") != "" {
			rounds = 60
		}
		var history []string
		done := 0
		for round := range rounds {
			for range 150 {
				what, op := randomOp(rng)
				history = append(history, what)
				got, want := errno(op(m.dir)), errno(op(model))
				if want == nil {
					done++
				}
				if got != want {
					t.Fatalf("%s: %v on the mount, %v in the model; after\n%s", what, got, want, strings.Join(history[max(0, len(history)-40):], "\n"))
				}
			}
			if round%2 == 1 {
				m.remount()
			}
			got, want := describe(t, m.dir), describe(t, model)
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || got[i] != want[i] {
					t.Fatalf("round %d: the trees differ at line %d:\n%.200q\n%.200q", round, i, at(got, i), at(want, i))
				}
			}
		}
		if done < len(history)/50 {
			t.Errorf("only %d of %d operations succeeded: nothing was tested", done, len(history))
		}
	})
}

func at(all []string, i int) string {
	if i < len(all) {
		return all[i]
	}
	return "(nothing)"
}

func errno(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// randomPath is one of few, so that operations meet; one part in eight is a long name.
func randomPath(rng *rand.Rand) string {
	var parts []string
	for range 1 + rng.IntN(3)*rng.IntN(2) {
		p := string(rune('a' + rng.IntN(3)))
		if rng.IntN(8) == 0 {
			p = strings.Repeat(p, 200)
		}
		parts = append(parts, p)
	}
	return filepath.Join(parts...)
}

// randomOp returns an operation to be done below a root, and what it is called.
func randomOp(rng *rand.Rand) (what string, op func(root string) error) {
	p, q := randomPath(rng), randomPath(rng)
	off, data := int64(rng.IntN(200_000)), make([]byte, 1+rng.IntN(20_000))
	if rng.IntN(2) == 0 {
		off, data = off%5000, data[:1+(len(data)-1)%3000]
	}
	fill := rng.Uint32()
	for i := range data {
		data[i] = byte(fill>>(i%4*8)) + byte(i)
	}
	mode := fs.FileMode(0o600 | rng.IntN(0o200))
	with := func(root string, flags int, fn func(f *os.File) error) error {
		f, err := os.OpenFile(filepath.Join(root, p), flags, 0o644)
		if err != nil {
			return err
		}
		return errors.Join(fn(f), f.Close())
	}
	write := func(f *os.File) error { _, err := f.WriteAt(data, off); return err }
	join := filepath.Join
	switch rng.IntN(13) {
	case 0, 1:
		return fmt.Sprintf("write %d at %d of %.20s", len(data), off, p), func(r string) error { return with(r, os.O_RDWR|os.O_CREATE, write) }
	case 2:
		return fmt.Sprintf("append %d to %.20s", len(data), p), func(r string) error {
			return with(r, os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.Write(data); return err })
		}
	case 3:
		return fmt.Sprintf("replace %.20s by %d", p, len(data)), func(r string) error { return with(r, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, write) }
	case 4:
		return fmt.Sprintf("truncate %.20s to %d", p, off), func(r string) error { return os.Truncate(join(r, p), off) }
	case 5:
		return fmt.Sprintf("punch %d at %d of %.20s", len(data), off, p), func(r string) error {
			return with(r, os.O_RDWR, func(f *os.File) error {
				return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(len(data)))
			})
		}
	case 6:
		return fmt.Sprintf("unlink, write and close %.20s", p), func(r string) error {
			return with(r, os.O_RDWR, func(f *os.File) error { return errors.Join(unix.Unlink(join(r, p)), write(f), f.Sync()) })
		}
	case 7:
		return fmt.Sprintf("rename %.20s to %.20s", p, q), func(r string) error { return unix.Rename(join(r, p), join(r, q)) }
	case 8:
		return fmt.Sprintf("link %.20s to %.20s", p, q), func(r string) error { return unix.Link(join(r, p), join(r, q)) }
	case 9:
		return fmt.Sprintf("symlink %.20s", p), func(r string) error { return unix.Symlink("nowhere/"+q, join(r, p)) }
	case 10:
		return fmt.Sprintf("mkdir %.20s", p), func(r string) error { return unix.Mkdir(join(r, p), 0o755) }
	case 11:
		return fmt.Sprintf("rmdir %.20s", p), func(r string) error { return unix.Rmdir(join(r, p)) }
	}
	return fmt.Sprintf("chmod %.20s %o, mtime %d", p, mode, off), func(r string) error {
		if st, err := os.Lstat(join(r, p)); err == nil && !st.Mode().IsRegular() {
			return nil
		}
		return errors.Join(os.Chmod(join(r, p), mode), os.Chtimes(join(r, p), time.Time{}, time.Unix(off, 123456789)))
	}
}

// describe lists a tree: path, type, mode, links, size, target and content of each object, and its mtime where chmod set one.
func describe(t *testing.T, root string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s mode %o links %d", strings.TrimPrefix(path, root), st.Mode, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			line += fmt.Sprintf(" size %d %q", st.Size, target)
			if err != nil {
				return err
			}
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			line += fmt.Sprintf(" size %d", st.Size)
			if st.Mtim.Nsec == 123456789 {
				line += fmt.Sprintf(" mtime %d", st.Mtim.Sec)
			}
			line += " " + string(b)
			if err != nil {
				return err
			}
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

package disk_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// walked walks over all directories, and answers their paths.
func walked(t *testing.T, root disk.Dir, each func(path string, err error)) (paths []string) {
	t.Helper()
	err := disk.Walk(root, "", func(d disk.Dir, at string, err error) (below []disk.Below[string], _ error) {
		if each != nil {
			each(at, err)
		}
		if err != nil {
			return nil, nil
		}
		paths = append(paths, at)
		return below, d.List(func(name string, _ uint64, typ uint8) error {
			if typ == unix.DT_DIR {
				below = append(below, disk.Below[string]{Name: name, At: at + "/" + name})
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	return paths
}

// deep makes levels of directories, each with the next one, one before it and one behind it, and answers their paths.
func deep(t *testing.T, root disk.Dir, levels int) (paths []string) {
	t.Helper()
	d, at := root, ""
	paths = []string{at}
	for range levels {
		for _, name := range []string{"a", "m", "z"} {
			if err := d.Mkdir(name, 0o700); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, at+"/"+name)
		}
		next, err := d.OpenDir("m")
		if err != nil {
			t.Fatal(err)
		}
		if d != root {
			d.Close()
		}
		d, at = next, at+"/m"
	}
	d.Close()
	return paths
}

func TestWalkDeep(t *testing.T) {
	const levels, most = 1000, 40
	m := disktest.NewMemory()
	root := m.Root()
	defer root.Close()
	want := deep(t, root, levels)
	got := walked(t, root, nil)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%d directories, want %d", len(got), len(want))
	}
	if now, highest := m.Handles(); now != 1 || highest > most {
		t.Errorf("%d are left open, and %d were at once", now-1, highest)
	}
}

// What cannot be opened again is told for each directory that is missed by it, and the walk goes on.
func TestWalkMoved(t *testing.T) {
	m := disktest.NewMemory()
	root := m.Root()
	defer root.Close()
	const levels = 100
	deep(t, root, levels)
	var missed []string
	moved := false
	got := walked(t, root, func(path string, err error) {
		if err != nil {
			missed = append(missed, path)
			return
		}
		if strings.Count(path, "/m") == levels && !moved {
			moved = true
			if err := root.Rename("m", root, "moved", 0); err != nil {
				t.Fatal(err)
			}
		}
	})
	if len(missed) == 0 || len(missed)+len(got) != 3*levels+1 {
		t.Errorf("%d were visited and %d missed, of %d", len(got), len(missed), 3*levels+1)
	}
	if n, _ := m.Handles(); n != 1 {
		t.Errorf("%d are left open", n-1)
	}
}

func TestWalkEnds(t *testing.T) {
	m := disktest.NewMemory()
	root := m.Root()
	defer root.Close()
	deep(t, root, 100)
	end := errors.New("enough")
	for n := range 150 {
		visits := 0
		err := disk.Walk(root, 0, func(d disk.Dir, at int, err error) (below []disk.Below[int], _ error) {
			if visits++; visits > n {
				return nil, end
			}
			return below, d.List(func(name string, _ uint64, _ uint8) error {
				below = append(below, disk.Below[int]{Name: name})
				return nil
			})
		})
		if !errors.Is(err, end) || visits != n+1 {
			t.Errorf("%v after %d visits", err, visits)
		}
		if k, _ := m.Handles(); k != 1 {
			t.Fatalf("%d are left open", k-1)
		}
	}
}

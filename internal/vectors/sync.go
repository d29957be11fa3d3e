package vectors

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Sync makes sure that the files in dir whose names start with prefix are
// exactly the vectors in want, by file name. With update it writes them and
// removes the others; without, it fails the test for each that is missing,
// superfluous or different, because what was built no longer is what was
// committed. It returns the paths of the vectors, for Run.
func Sync(t testing.TB, dir, prefix string, want map[string]*Vector, update bool) (paths []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if want[filepath.Base(f)] != nil {
			continue
		}
		if !update {
			t.Errorf("%s: nothing builds this vector", f)
		} else if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !strings.HasPrefix(name, prefix) {
			t.Fatalf("vector %s does not start with %s", name, prefix)
		}
		path := filepath.Join(dir, name)
		paths = append(paths, path)
		if update {
			if err := Write(path, want[name]); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if s, err := want[name].format(); err != nil || s != string(got) {
			t.Errorf("%s differs from what is built now (%v); if that is meant, run the test with -update", path, err)
		}
	}
	return paths
}

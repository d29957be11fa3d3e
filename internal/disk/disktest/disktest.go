package disktest

import (
	"errors"
	"io"
	"io/fs"
	"sort"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
)

// TestDir runs the suite. newRoot answers a new empty directory that the test closes.
func TestDir(t *testing.T, newRoot func(t *testing.T) disk.Dir) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, d disk.Dir)
	}{
		{"create_open", testCreateOpen},
		{"read_write", testReadWrite},
		{"truncate_punch", testTruncatePunch},
		{"allocate", testAllocate},
		{"not_regular", testNotRegular},
		{"bad_component", testBadComponent},
		{"directories", testDirectories},
		{"list", testList},
		{"list_concurrent", testListConcurrent},
		{"removed_directory", testRemoved},
		{"symlink", testSymlink},
		{"link", testLink},
		{"tmpfile", testTmpfile},
		{"rename", testRename},
		{"rename_flags", testRenameFlags},
		{"unlink", testUnlink},
		{"special_files", testSpecial},
		{"attributes", testAttributes},
		{"birth_time", testBirthTime},
		{"path_only", testPathOnly},
		{"xattrs", testXattrs},
		{"xattrs_of_links", testXattrsOfLinks},
		{"long_name", testLongName},
		{"deep", testDeep},
		{"sync_and_statfs", testSync},
		{"direct", testDirect},
		{"close", testClose},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newRoot(t)
			t.Cleanup(func() { d.Close() })
			c.run(t, d)
		})
	}
}

// fails checks class and shape of an error: a *fs.PathError whose Path is the name given.
func fails(t *testing.T, err error, want error, path string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		t.Fatalf("error is a %T, want *fs.PathError", err)
	}
	if pe.Path != path {
		t.Fatalf("path of the error is %q, want %q", pe.Path, path)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, d disk.Dir, name, content string) {
	t.Helper()
	f, err := d.Create(name, 0o600)
	ok(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	ok(t, err)
	ok(t, f.Close())
}

func read(t *testing.T, d disk.Dir, name string) string {
	t.Helper()
	f, err := d.Open(name, disk.ReadOnly)
	ok(t, err)
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	ok(t, err)
	return string(b)
}

func list(t *testing.T, d disk.Dir) string {
	t.Helper()
	var s []string
	ok(t, d.List(func(name string, _ uint64, _ uint8) error { s = append(s, name); return nil }))
	sort.Strings(s)
	return strings.Join(s, " ")
}

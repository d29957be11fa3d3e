package integration

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// listed is what listing sent to read names.
func listed(n map[string]int) int { return n["READDIR"] + n["READDIRPLUS"] }

// A directory that was listed is listed again without asking for its names, until one changes: and then as it is.
func TestListingIsKept(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		m.must(os.MkdirAll(m.path("d", "sub"), 0o755))
		want := []string{"sub"}
		for i := range 400 {
			name := fmt.Sprintf("file-%03d", i)
			m.write("d/"+name, nil)
			want = append(want, name)
		}
		m.remount()
		check := func(what string) {
			t.Helper()
			got := listing(t, m.path("d"))
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %d names, want %d", what, len(got), len(want))
			}
		}
		check("first")
		for _, name := range want {
			lstat(t, m.path("d", name))
		}
		for _, c := range []struct {
			what string
			do   func()
		}{
			{"create", func() { m.write("d/new", nil); want = append(want, "new") }},
			{"remove", func() { m.must(os.Remove(m.path("d", "new"))); want = remove(want, "new") }},
			{"rename within", func() {
				m.must(os.Rename(m.path("d", "file-007"), m.path("d", "moved")))
				want = append(remove(want, "file-007"), "moved")
			}},
			{"rename out", func() { m.must(os.Rename(m.path("d", "moved"), m.path("out"))); want = remove(want, "moved") }},
			{"rename in", func() { m.must(os.Rename(m.path("out"), m.path("d", "in"))); want = append(want, "in") }},
			{"link", func() { m.must(os.Link(m.path("d", "in"), m.path("d", "link"))); want = append(want, "link") }},
			{"symlink", func() { m.must(os.Symlink("in", m.path("d", "sym"))); want = append(want, "sym") }},
			{"rmdir", func() { m.must(os.Remove(m.path("d", "sub"))); want = remove(want, "sub") }},
			{"mkdir", func() { m.must(os.Mkdir(m.path("d", "dir"), 0o755)); want = append(want, "dir") }},
		} {
			c.do()
			check(c.what) // asks
			m.take()
			check(c.what + ", again")
			if n := m.take(); listed(n) > 0 {
				t.Errorf("%s, listed again: %s", c.what, show(n))
			}
		}
	})
}

func remove(names []string, name string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return n == name })
}

// Where the kernel has forgotten what a directory holds, it is not to look up each name of a listing that it kept.
func TestListingOfForgottenNames(t *testing.T) {
	const limit, files = 200, 2000
	m := mount(t, options{maxNodes: limit})
	if !m.server.KernelSettings().SupportsNotify(fuse.NOTIFY_PRUNE) {
		t.Skip("this kernel cannot be asked to forget (Linux 6.18 can)")
	}
	m.must(os.Mkdir(m.path("d"), 0o755))
	for i := range files {
		m.write(fmt.Sprintf("d/%04d", i), nil)
	}
	walk := func() map[string]int {
		m.take()
		for _, name := range listing(t, m.path("d")) {
			lstat(t, m.path("d", name))
		}
		return m.take()
	}
	walk()
	for try := 0; m.fs.Nodes() > files/4; try++ {
		if try == 6000 {
			t.Fatalf("the kernel still knows %d of %d files", m.fs.Nodes(), files)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := walk(); listed(n) == 0 {
		t.Errorf("the names were not asked for: %s", show(n))
	}
}

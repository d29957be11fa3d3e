package dirs

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
)

// Behind answers what follows in either order, files alone, and nothing that is not loaded.
func TestBehind(t *testing.T) {
	const files = 100
	v := newVault(t)
	d := v.Root()
	var all []Entry
	for i := range files {
		all = append(all, v.create(d, fmt.Sprintf("%03d", i*37%1000)))
		if i%10 == 0 {
			v.mkdir(d, fmt.Sprintf("%03d-dir", i*37%1000))
		}
	}
	for _, o := range []Order{BySeq, ByName} {
		if o == ByName {
			slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
		}
		for i, e := range all {
			for _, n := range []int{1, 3, files} {
				next, first := d.Behind(e, o, n)
				if want := all[i+1 : min(files, i+1+n)]; !slices.Equal(next, want) || first != (i == 0) {
					t.Fatalf("order %v: behind file %d: %v, %v, want %v", o, i, next, first, want)
				}
			}
		}
	}
	v.mount()
	if next, first := v.Root().Behind(all[0], ByName, 1); next != nil || first {
		t.Errorf("of a directory that is not loaded: %v, %v", next, first)
	}
}

// fetchDir and fetchFile note what is fetched.
type fetchDir struct {
	disk.Dir
	opened, fetched *[]string
}

type fetchFile struct {
	disk.File
	name string
	in   fetchDir
}

func (d fetchDir) Open(name string, a disk.Access) (disk.File, error) {
	f, err := d.Dir.Open(name, a)
	if err == nil {
		*d.opened = append(*d.opened, name)
		f = fetchFile{f, name, d}
	}
	return f, err
}

func (f fetchFile) Lacks(off, n int64) bool { return !slices.Contains(*f.in.fetched, f.name) }

func (f fetchFile) Fetch(off, n int64) {
	*f.in.fetched = append(*f.in.fetched, fmt.Sprint(f.name, off, n), f.name)
}

// Fetch is of the host file of the entry. One that is gone, or never was, is no finding.
func TestFetch(t *testing.T) {
	var opened, fetched []string
	v := newVault(t)
	v.mount(func(c *Config) { c.Root = fetchDir{c.Root, &opened, &fetched} })
	d := v.Root()
	e := v.create(d, "file")
	host := d.HostPath(e)[0]
	if !d.Fetch(e, 100) || !slices.Equal(opened, []string{host}) || !slices.Equal(fetched, []string{fmt.Sprint(host, 0, 100), host}) {
		t.Errorf("opened %v, fetched %v", opened, fetched)
	}
	if d.Fetch(e, 100) {
		t.Error("what was fetched was not in memory")
	}
	_, err := d.Unlink("file")
	ok(t, err)
	if d.Fetch(e, 100) {
		t.Error("a file was fetched that is gone")
	}
	v.quiet()
}

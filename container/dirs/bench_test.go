package dirs

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

const benchNames = 10000

// benchVault is a vault with 10,000 files in its root.
func benchVault(b *testing.B) (v *vault, all []Entry) {
	v = newVault(b)
	for i := range benchNames {
		f, e, err := v.Root().CreateFile(fmt.Sprintf("file-%05d.txt", i), 0o600, -1, -1)
		ok(b, err)
		ok(b, f.Close())
		all = append(all, e)
	}
	return v, all
}

// BenchmarkCreate creates and removes 10,000 files, in turns.
func BenchmarkCreate(b *testing.B) {
	v := newVault(b)
	root := v.Root()
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("file-%05d.txt", i%benchNames)
		if i%(2*benchNames) >= benchNames {
			if _, err := root.Unlink(name); err != nil {
				b.Fatal(err)
			}
			continue
		}
		f, _, err := root.CreateFile(name, 0o600, -1, -1)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

func BenchmarkLookup(b *testing.B) {
	v, all := benchVault(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := v.Root().Lookup(all[i%len(all)].Name); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStat seals the host name and asks the host.
func BenchmarkStat(b *testing.B) {
	v, all := benchVault(b)
	var st unix.Stat_t
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := &all[i%len(all)]
		if err := v.Root().Stat(e.Name, e.ID, &st); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHostName is what sealing costs of it.
func BenchmarkHostName(b *testing.B) {
	v, all := benchVault(b)
	root := v.Root()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := &all[i%len(all)]
		root.hostName(e.Name, root.links[e.Name])
	}
}

// BenchmarkLoad reads 10,000 names from the host; BenchmarkEntries copies a loaded map.
func BenchmarkLoad(b *testing.B) {
	v, _ := benchVault(b)
	root := v.Root()
	b.ReportAllocs()
	for b.Loop() {
		root.mu.Lock()
		root.dropMap()
		root.mu.Unlock()
		if _, err := root.Lookup("none"); err != unix.ENOENT {
			b.Fatal(err)
		}
	}
}

func BenchmarkEntries(b *testing.B) {
	v, _ := benchVault(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Root().Entries(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRenameOver(b *testing.B) {
	v := newVault(b)
	root := v.Root()
	v.create(root, "a")
	v.create(root, "b")
	for b.Loop() {
		b.StopTimer()
		f, _, err := root.CreateFile("new", 0o600, -1, -1)
		ok(b, err)
		f.Close()
		b.StartTimer()
		if _, _, err := v.Rename(root, "new", root, "b", 0); err != nil {
			b.Fatal(err)
		}
	}
}

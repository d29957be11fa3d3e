package disktest_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

func TestNamesInOrder(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	a, b := mkdir(t, d, "a"), mkdir(t, d, "b")
	ok(t, d.SyncAll())
	ok(t, a.Symlink("x", "1"))
	ok(t, b.Symlink("x", "2"))
	ok(t, a.Rename("1", b, "3", 0))
	ok(t, a.Symlink("x", "4"))
	names := func(d disk.Dir) string {
		return strings.Join(nameList(t, d, "a"), " ") + "|" + strings.Join(nameList(t, d, "b"), " ")
	}
	inOrder := disktest.Loss{Data: disktest.DropData, Names: disktest.NamesInOrder}
	byDirectory := disktest.LoseNames
	wantSeen(t, seen(m, inOrder, 100, names), "|", "1|", "1|2", "|2 3", "4|2 3")
	// The rename is one change, and needs what was before it in both directories.
	wantSeen(t, seen(m, byDirectory, 300, names), "|", "1|", "1|2", "|2", "|2 3", "4|2 3")
	wantSeen(t, seen(m, disktest.LoseAll, 10, names), "|")
	wantSeen(t, seen(m, disktest.LoseNothing, 10, names), "4|2 3")
	ok(t, b.Symlink("x", "5"))
	ok(t, a.Symlink("x", "6"))
	ok(t, a.Sync()) // takes along what the rename did in b and what it builds on, but not the name 5
	wantSeen(t, seen(m, disktest.LoseAll, 10, names), "4 6|2 3")
	wantSeen(t, seen(m, byDirectory, 100, names), "4 6|2 3", "4 6|2 3 5")
	wantSeen(t, seen(m, inOrder, 100, names), "4 6|2 3 5")
	ok(t, b.Unlink("3"))
	wantSeen(t, seen(m, inOrder, 100, names), "4 6|2 3 5", "4 6|2 5")
	ok(t, d.SyncAll())
	wantSeen(t, seen(m, disktest.LoseAll, 10, names), "4 6|2 5")
}

func nameList(t testing.TB, d disk.Dir, dir string) (all []string) {
	t.Helper()
	sub, err := d.OpenDir(dir)
	ok(t, err)
	defer sub.Close()
	ok(t, sub.List(func(name string, _ uint64, _ uint8) error { all = append(all, name); return nil }))
	return all
}

// Where chance has no part in a loss, every seed leaves the same; where it has, not.
func TestChance(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", strings.Repeat("0", 2*4096))
	ok(t, f.Sync())
	ok(t, d.SyncAll())
	for i := range 4 {
		_, err := f.WriteAt([]byte(strings.Repeat(fmt.Sprint(i+1), 3000)), int64(i)*3000)
		ok(t, err)
		ok(t, create(t, d, fmt.Sprint(i), "x").Close())
	}
	for _, l := range append(disktest.PowerCuts(), disktest.Killed) {
		left := seen(m, l, 100, func(d disk.Dir) string { return fmt.Sprint(inodes(t, d)) })
		if (len(left) > 1) != l.Chance() {
			t.Errorf("%v: %d outcomes, chance %v", l, len(left), l.Chance())
		}
	}
}

// A name in a directory whose own name is lost is lost.
func TestLostDirectory(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	a := mkdir(t, d, "a")
	f := create(t, a, "f", "x")
	ok(t, f.Sync())
	ok(t, a.Sync())
	if got := tree(t, m.Cut(disktest.LoseAll, newRNG(1)).Root()); got != "" {
		t.Errorf("left: %s", got)
	}
	ok(t, d.Sync())
	c := m.Cut(disktest.LoseAll, newRNG(1)).Root()
	if got := nameList(t, c, "a"); len(got) != 1 {
		t.Errorf("names %q", got)
	}
}

// Moves and links, however they are lost, never lose an object that was stable, and never tie directories to a knot.
func TestNothingStableIsLost(t *testing.T) {
	seeds := 400
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		rng := newRNG(seed)
		m := disktest.NewMemory()
		d := m.Root()
		dirs := []disk.Dir{d}
		for i := range 6 {
			dirs = append(dirs, mkdir(t, dirs[rng.IntN(len(dirs))], fmt.Sprintf("d%d", i)))
		}
		for i := range 6 {
			ok(t, create(t, dirs[rng.IntN(len(dirs))], fmt.Sprintf("f%d", i), fmt.Sprint(i)).Close())
		}
		ok(t, d.SyncAll())
		want := inodes(t, d)
		for range 40 {
			from, to := dirs[rng.IntN(len(dirs))], dirs[rng.IntN(len(dirs))]
			var list []string
			ok(t, from.List(func(name string, _ uint64, _ uint8) error { list = append(list, name); return nil }))
			if len(list) == 0 {
				continue
			}
			name := list[rng.IntN(len(list))]
			fresh := fmt.Sprintf("n%d", rng.IntN(1000))
			switch rng.IntN(7) {
			case 0: // to a new directory, that is moved into later
				if from.Mkdir(fresh, 0o700) == nil {
					sub, err := from.OpenDir(fresh)
					ok(t, err)
					dirs = append(dirs, sub)
				}
			case 1: // new directories go again when they are empty
				_ = from.Rmdir(name)
			case 2: // a move by link and unlink
				if from.Link(name, to, fresh) == nil {
					ok(t, from.Unlink(name))
				}
			case 3: // a move by link and another file in the old place
				if from.Link(name, to, fresh) == nil {
					ok(t, create(t, from, fresh+"x", "new").Close())
					ok(t, from.Rename(fresh+"x", from, name, 0))
				}
			case 4:
				ok(t, from.Sync())
			default:
				_ = from.Rename(name, to, fresh, unix.RENAME_NOREPLACE) // EINVAL where it would go below itself
			}
		}
		for _, l := range disktest.PowerCuts() {
			c := m.Cut(l, newRNG(seed+1)).Root()
			got := inodes(t, c)
			for ino, what := range want {
				if what != "directory" && got[ino] != what {
					t.Fatalf("seed %d, %v: object %d is %q, want %q", seed, l, ino, got[ino], what)
				}
			}
		}
	}
}

// inodes answers the objects below d and what they hold.
func inodes(t testing.TB, d disk.Dir) map[uint64]string {
	all := map[uint64]string{}
	var walk func(d disk.Dir, depth int)
	walk = func(d disk.Dir, depth int) {
		if depth > 50 {
			t.Fatal("a knot")
		}
		ok(t, d.List(func(name string, ino uint64, typ uint8) error {
			if typ != unix.DT_DIR {
				all[ino] = content(t, d, name)
				return nil
			}
			if _, twice := all[ino]; twice {
				t.Fatalf("directory %d has two names", ino)
			}
			all[ino] = "directory"
			sub, err := d.OpenDir(name)
			ok(t, err)
			defer sub.Close()
			walk(sub, depth+1)
			return nil
		}))
	}
	walk(d, 0)
	return all
}

// What is written past the page cache is stable, and nothing else: not what was written before, but where it lay under it.
func TestDirect(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", strings.Repeat("0", 4*512))
	ok(t, f.Sync())
	ok(t, d.SyncAll())
	direct, err := d.OpenDirect("f")
	ok(t, err)
	put := func(f io.WriterAt, c byte, unit, units int) {
		t.Helper()
		b := disk.DirectBuffer(512 * units)
		for i := range b {
			b[i] = c
		}
		_, err := f.WriteAt(b, int64(unit)*512)
		ok(t, err)
	}
	units := func(d disk.Dir) (s string) {
		f, err := d.Open("f", disk.ReadOnly)
		ok(t, err)
		defer f.Close()
		b := make([]byte, 1)
		for off := int64(0); ; off += 512 {
			if _, err := f.ReadAt(b, off); err != nil {
				return s
			}
			s += string(b)
		}
	}
	put(f, '1', 0, 3)
	put(direct, '2', 1, 1)
	sectors := disktest.Loss{Data: disktest.Sectors512}
	wantSeen(t, seen(m, disktest.LoseAll, 10, units), "0200")
	wantSeen(t, seen(m, sectors, 200, units), "0200", "0210", "1200", "1210")
	put(f, '3', 1, 2)
	wantSeen(t, seen(m, disktest.LoseAll, 10, units), "0200")
	put(direct, '4', 2, 1)
	wantSeen(t, seen(m, disktest.LoseAll, 10, units), "0240")
	wantSeen(t, seen(m, sectors, 300, units), "0240", "0340", "1240", "1340")
	ok(t, f.Truncate(3*512))
	put(direct, '5', 0, 1) // the length before it is not stable, so that the host may have it nowhere
	wantSeen(t, seen(m, disktest.LoseAll, 10, units), "0240")
	ok(t, f.Datasync())
	put(direct, '6', 3, 1) // beyond the length
	wantSeen(t, seen(m, disktest.LoseAll, 10, units), "534")
}

package disktest_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

func TestMemoryConforms(t *testing.T) {
	disktest.TestDir(t, func(*testing.T) disk.Dir { return disktest.NewMemory().Root() })
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRNG(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 7)) }

func create(t testing.TB, d disk.Dir, name, content string) disk.File {
	t.Helper()
	f, err := d.Create(name, 0o600)
	ok(t, err)
	put(t, f, content, 0)
	return f
}

func put(t testing.TB, f disk.File, content string, off int64) {
	t.Helper()
	_, err := f.WriteAt([]byte(content), off)
	ok(t, err)
}

// content answers what a file holds, and "-" where there is none.
func content(t testing.TB, d disk.Dir, name string) string {
	t.Helper()
	f, err := d.Open(name, disk.ReadOnly)
	if errors.Is(err, syscall.ENOENT) {
		return "-"
	}
	ok(t, err)
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	ok(t, err)
	return string(b)
}

// tree answers everything below d: a line for each object.
func tree(t testing.TB, d disk.Dir) string {
	t.Helper()
	var out strings.Builder
	var walk func(d disk.Dir, path string)
	walk = func(d disk.Dir, path string) {
		ok(t, d.List(func(name string, ino uint64, typ uint8) error {
			var st unix.Stat_t
			ok(t, d.Stat(name, &st))
			fmt.Fprintf(&out, "%s%s %d %o %d:%d links %d size %d times %v %v", path, name, ino, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim, st.Ctim)
			switch typ {
			case unix.DT_REG:
				fmt.Fprintf(&out, " %08x", crc32.ChecksumIEEE([]byte(content(t, d, name))))
			case unix.DT_LNK:
				target, err := d.Readlink(name)
				ok(t, err)
				fmt.Fprintf(&out, " -> %s", target)
			}
			out.WriteByte('\n')
			if typ == unix.DT_DIR {
				sub, err := d.OpenDir(name)
				ok(t, err)
				defer sub.Close()
				walk(sub, path+name+"/")
			}
			return nil
		}))
	}
	walk(d, "")
	return out.String()
}

func mkdir(t testing.TB, d disk.Dir, name string) disk.Dir {
	t.Helper()
	ok(t, d.Mkdir(name, 0o700))
	sub, err := d.OpenDir(name)
	ok(t, err)
	return sub
}

// eachCut calls fn for some cuts of m under every loss.
func eachCut(t *testing.T, m *disktest.Memory, losses []disktest.Loss, fn func(t *testing.T, d disk.Dir)) {
	for _, l := range losses {
		t.Run(l.String(), func(t *testing.T) {
			for seed := range 40 {
				fn(t, m.Cut(l, newRNG(seed)).Root())
			}
		})
	}
}

// seen runs cuts under one loss and answers how often each outcome came.
func seen(m *disktest.Memory, l disktest.Loss, cuts int, outcome func(d disk.Dir) string) map[string]int {
	all := map[string]int{}
	for seed := range cuts {
		all[outcome(m.Cut(l, newRNG(seed)).Root())]++
	}
	return all
}

func wantSeen(t *testing.T, got map[string]int, want ...string) {
	t.Helper()
	if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, slices.Sorted(slices.Values(want))) {
		t.Errorf("outcomes %v, want %q", got, want)
	}
}

// What was synced survives whatever else is lost, whichever call synced it.
func TestSyncedSurvives(t *testing.T) {
	old, now := strings.Repeat("o", 10000), strings.Repeat("n", 9000)
	for _, c := range []struct {
		name string
		sync func(d disk.Dir, f disk.File) error
	}{
		{"fdatasync", func(d disk.Dir, f disk.File) error { return f.Datasync() }},
		{"fsync", func(d disk.Dir, f disk.File) error { return f.Sync() }},
		{"syncfs", func(d disk.Dir, f disk.File) error { return d.SyncAll() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := disktest.NewMemory()
			d := m.Root()
			f := create(t, d, "f", old)
			ok(t, d.SyncAll())
			ok(t, f.Truncate(100))
			put(t, f, now, 0)
			ok(t, f.Chmod(0o640))
			ok(t, f.Truncate(8000))
			ok(t, f.Punch(4096, 100))
			ok(t, c.sync(d, f))
			want := now[:4096] + strings.Repeat("\x00", 100) + now[4196:8000]
			eachCut(t, m, disktest.PowerCuts(), func(t *testing.T, d disk.Dir) {
				if got := content(t, d, "f"); got != want {
					t.Fatalf("%d bytes that are not what was synced", len(got))
				}
				var st unix.Stat_t
				ok(t, d.Stat("f", &st))
				if st.Mode&0o777 != 0o640 { // a new length takes them along
					t.Fatalf("mode %o", st.Mode)
				}
			})
			// What is written later touches none of it.
			put(t, f, "later", 8000)
			eachCut(t, m, disktest.PowerCuts(), func(t *testing.T, d disk.Dir) {
				if got := content(t, d, "f"); !strings.HasPrefix(got, want) {
					t.Fatal("an unsynced append changed what was synced")
				}
			})
		})
	}
}

func TestAttributesNeedFsync(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", "same length")
	ok(t, d.SyncAll())
	mode := func(d disk.Dir) string {
		var st unix.Stat_t
		ok(t, d.Stat("f", &st))
		return fmt.Sprintf("%o", st.Mode&0o777)
	}
	ok(t, f.Chmod(0o611))
	put(t, f, "SAME LENGTH", 0)
	ok(t, f.Datasync())
	wantSeen(t, seen(m, disktest.LoseAll, 1, mode), "600")
	wantSeen(t, seen(m, disktest.LoseNothing, 1, mode), "611")
	wantSeen(t, seen(m, disktest.LoseSectors512, 40, mode), "600", "611")
	ok(t, f.Sync())
	wantSeen(t, seen(m, disktest.LoseAll, 1, mode), "611")
	ok(t, d.ChmodSelf(0o711))
	rootMode := func(d disk.Dir) string {
		var st unix.Stat_t
		ok(t, d.StatSelf(&st))
		return fmt.Sprintf("%o", st.Mode&0o777)
	}
	wantSeen(t, seen(m, disktest.LoseAll, 1, rootMode), "755")
	ok(t, d.Sync())
	wantSeen(t, seen(m, disktest.LoseAll, 1, rootMode), "711")
}

func TestUnsyncedGoes(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", "old")
	ok(t, d.SyncAll())
	put(t, f, "new and longer", 0)
	g := create(t, d, "g", "synced without its name")
	ok(t, g.Sync())
	both := func(d disk.Dir) string { return content(t, d, "f") + ", " + content(t, d, "g") }
	wantSeen(t, seen(m, disktest.LoseAll, 1, both), "old, -")
	wantSeen(t, seen(m, disktest.LoseNothing, 1, both), "new and longer, synced without its name")
	ok(t, d.Sync())
	wantSeen(t, seen(m, disktest.LoseAll, 1, both), "old, synced without its name")
	h := create(t, d, "h", "named without its data")
	ok(t, d.Sync())
	defer h.Close()
	wantSeen(t, seen(m, disktest.LoseAll, 1, func(d disk.Dir) string { return content(t, d, "h") }), "")
}

// Death of the process loses nothing, and makes nothing stable.
func TestKilled(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", "old")
	ok(t, d.SyncAll())
	put(t, f, "new", 0)
	create(t, d, "g", "also new")
	gone := create(t, d, "gone", strings.Repeat("x", 100000))
	ok(t, d.Unlink("gone"))
	put(t, gone, "still open", 0)
	var before, after unix.Statfs_t
	ok(t, d.Statfs(&before))
	k := m.Cut(disktest.Killed, newRNG(1))
	both := func(d disk.Dir) string { return content(t, d, "f") + ", " + content(t, d, "g") }
	if got := both(k.Root()); got != "new, also new" {
		t.Fatal(got)
	}
	ok(t, k.Root().Statfs(&after))
	if after.Bfree-before.Bfree != 25 {
		t.Errorf("%d blocks came free with the last handle of a file without a name, want 25", after.Bfree-before.Bfree)
	}
	wantSeen(t, seen(k, disktest.LoseAll, 1, both), "old, -")
	h, err := k.Root().Open("f", disk.ReadWrite)
	ok(t, err)
	ok(t, h.Datasync())
	wantSeen(t, seen(k, disktest.LoseAll, 1, both), "new, -")
	if got := both(d); got != "new, also new" {
		t.Fatalf("the disk that was cut goes on with %s", got)
	}
}

// Each sector is what a number of the writes to it left, and not a mixture of them; sectors differ.
func TestSectors(t *testing.T) {
	const size = 8 * 4096
	for _, c := range []struct {
		loss disktest.Loss
		unit int
	}{{disktest.LoseSectors512, 512}, {disktest.LoseSectors4K, 4096}} {
		m := disktest.NewMemory()
		d := m.Root()
		f := create(t, d, "f", strings.Repeat("a", size))
		ok(t, d.SyncAll())
		put(t, f, strings.Repeat("b", size), 0)
		put(t, f, strings.Repeat("c", size-100), 100)
		last := strings.Repeat("a", size)
		mixed, all := false, map[string]bool{}
		for seed := range 100 {
			got := content(t, m.Cut(c.loss, newRNG(seed)).Root(), "f")
			if len(got) != size {
				t.Fatalf("%d bytes", len(got))
			}
			for at := 0; at < size; at += c.unit {
				sector := got[at:][:c.unit]
				rest := strings.TrimLeft(sector, sector[c.unit-1:]) // of the first sector, 100 bytes were written once
				if rest != "" && (at != 0 || strings.Trim(sector[:100], "b") != "" || strings.Trim(sector[100:], "c") != "") {
					t.Fatalf("sector at %d is a mixture", at)
				}
				all[sector[c.unit-1:]] = true
				mixed = mixed || at%4096 != 0 && sector[c.unit-1] != got[at-1]
			}
			last = got
		}
		if mixed != (c.unit == 512) {
			t.Errorf("unit %d: sectors of a page differ: %v", c.unit, mixed)
		}
		wantSeen(t, map[string]int{strings.Join(slices.Sorted(maps.Keys(all)), ""): 1}, "abc")
		if again := content(t, m.Cut(c.loss, newRNG(99)).Root(), "f"); again != last {
			t.Error("the same seed cuts another way")
		}
	}
}

// All up to some point is there and nothing after it, over files and names; a write at that point is torn by the sector.
func TestTornPrefix(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	var files []disk.File
	for i := range 4 {
		files = append(files, create(t, d, fmt.Sprint(i), strings.Repeat("-", 2048)))
	}
	ok(t, d.SyncAll())
	for i := range 8 {
		put(t, files[i%4], strings.Repeat(fmt.Sprint(i), 1024), int64(i/4*1024))
		ok(t, d.Symlink("x", fmt.Sprintf("after%d", i)))
	}
	got := seen(m, disktest.LoseTail, 400, func(d disk.Dir) string {
		var s string
		for i := range 8 {
			b := content(t, d, fmt.Sprint(i%4))[i/4*1024:][:1024]
			s += b[:1] + b[1023:]
			if _, err := d.Readlink(fmt.Sprintf("after%d", i)); err == nil {
				s += "s"
			}
		}
		return strings.ReplaceAll(s, "-", "")
	})
	var want []string
	whole := ""
	for i := range 8 {
		n := fmt.Sprint(i)
		want = append(want, whole, whole+n, whole+n+n)
		whole += n + n + "s"
	}
	wantSeen(t, got, append(want, whole)...)
}

func TestSizesAhead(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", strings.Repeat("o", 6000))
	ok(t, d.SyncAll())
	put(t, f, strings.Repeat("n", 5000), 3000)
	g := create(t, d, "g", "new")
	defer g.Close()
	r := m.Cut(disktest.LoseDataNotSizes, newRNG(1)).Root()
	if got := content(t, r, "f"); got != strings.Repeat("o", 6000)+strings.Repeat("\x00", 2000) {
		t.Errorf("%d bytes", len(got))
	}
	if got := content(t, r, "g"); got != "\x00\x00\x00" {
		t.Errorf("%q", got)
	}
	var st unix.Stat_t
	ok(t, r.Stat("f", &st))
	var live unix.Stat_t
	ok(t, d.Stat("f", &live))
	if st.Ctim != live.Ctim {
		t.Error("a new length came without the time of its change")
	}
}

// A file that is cut and written again is never seen with new data among the old.
func TestTruncateThenWrite(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", strings.Repeat("o", 4096))
	ok(t, d.SyncAll())
	ok(t, f.Truncate(0))
	put(t, f, strings.Repeat("n", 3072), 0)
	for _, l := range disktest.PowerCuts() {
		for seed := range 100 {
			got := content(t, m.Cut(l, newRNG(seed)).Root(), "f")
			if strings.Contains(got, "o") && got != strings.Repeat("o", 4096) {
				t.Fatalf("%v: old and new: %d bytes", l, len(got))
			}
		}
	}
}

func TestSparse(t *testing.T) {
	m := disktest.NewMemory()
	f, err := m.Root().Create("f", 0o600)
	ok(t, err)
	put(t, f, "far", 8<<40)
	put(t, f, "near", 10)
	var st unix.Stat_t
	ok(t, f.Stat(&st))
	if st.Size != 8<<40+3 || st.Blocks != 16 {
		t.Fatalf("size %d, %d blocks", st.Size, st.Blocks)
	}
	_, err = f.WriteAt([]byte("x"), 1<<44)
	if !errors.Is(err, syscall.EFBIG) {
		t.Fatal(err)
	}
	c, err := m.Cut(disktest.LoseNothing, newRNG(1)).Root().Open("f", disk.ReadWrite)
	ok(t, err)
	put(t, c, "copy", 8<<40)
	ok(t, c.Punch(0, 100))
	b := make([]byte, 3)
	for _, at := range []struct {
		off  int64
		want string
	}{{8 << 40, "far"}, {10, "nea"}} {
		if _, err := f.ReadAt(b, at.off); err != nil || string(b) != at.want {
			t.Errorf("a cut disk wrote into the one it was made of: %q, %v", b, err)
		}
	}
	ok(t, f.Truncate(1<<20))
	ok(t, f.Stat(&st))
	if st.Blocks != 8 {
		t.Errorf("%d blocks", st.Blocks)
	}
}

func TestClockAndBirth(t *testing.T) {
	m := disktest.NewMemory()
	now := int64(5e9)
	m.SetClock(func() int64 { now++; return now })
	f := create(t, m.Root(), "f", "x")
	birth, err := f.BirthTime()
	ok(t, err)
	var st unix.Stat_t
	ok(t, f.Stat(&st))
	if birth != 5e9+1 || st.Mtim.Nano() != 5e9+2 || st.Ctim.Nano() != 5e9+2 {
		t.Errorf("born %d, changed %d, %d", birth, st.Mtim.Nano(), st.Ctim.Nano())
	}
	ok(t, f.Utimes(&[2]unix.Timespec{{Nsec: unix.UTIME_NOW}, {Sec: 1, Nsec: 2}}))
	ok(t, f.Stat(&st))
	if st.Atim.Nano() != 5e9+3 || st.Mtim.Nano() != 1e9+2 {
		t.Errorf("times %d, %d", st.Atim.Nano(), st.Mtim.Nano())
	}
	g, err := m.Cut(disktest.LoseNothing, newRNG(1)).Root().Open("f", disk.ReadOnly)
	ok(t, err)
	if again, err := g.BirthTime(); err != nil || again != birth {
		t.Errorf("born %d after a cut, %v", again, err)
	}
}

// Objects that nothing leads to are given up, or a long test would fill the machine.
func TestRemovedAreForgotten(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	var before, after unix.Statfs_t
	ok(t, d.Statfs(&before))
	for range 5000 {
		ok(t, create(t, d, "f", "x").Close())
		ok(t, d.Unlink("f"))
		ok(t, d.Sync())
	}
	ok(t, d.Statfs(&after))
	if n := before.Ffree - after.Ffree; n > 500 || after.Bfree != before.Bfree {
		t.Errorf("%d inodes and %d blocks are left", n, before.Bfree-after.Bfree)
	}
}

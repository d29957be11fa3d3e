package disktest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// step makes some host call; whether it succeeds depends on what was before.
func step(rng *rand.Rand, dirs []disk.Dir, files map[string]disk.File) {
	d := dirs[rng.IntN(len(dirs))]
	name, other := fmt.Sprint(rng.IntN(12)), fmt.Sprint(rng.IntN(12))
	switch rng.IntN(14) {
	case 0, 1:
		if f, err := d.Create(name, 0o644); err == nil {
			files[name] = f
		}
	case 2:
		_ = d.Rename(name, dirs[rng.IntN(len(dirs))], other, uint(rng.IntN(3)))
	case 3:
		_ = d.Link(name, dirs[rng.IntN(len(dirs))], other)
	case 4:
		_ = d.Unlink(name)
	case 5:
		_ = d.Chmod(name, uint32(rng.IntN(0o1000)))
	case 6:
		_ = d.Sync()
	case 7:
		_ = d.Symlink("somewhere", name)
	}
	f := files[name]
	if f == nil {
		return
	}
	switch rng.IntN(12) {
	case 0:
		_ = f.Datasync()
	case 1:
		_ = f.Sync()
	case 2:
		_ = f.Truncate(rng.Int64N(10000))
	case 3:
		_ = f.Punch(rng.Int64N(9000), rng.Int64N(9000))
	case 4:
		_ = f.Close() // what follows fails
	case 5:
		_ = f.Utimes(&[2]unix.Timespec{{Sec: rng.Int64N(100)}, {Sec: rng.Int64N(100)}})
	default:
		_, _ = f.WriteAt([]byte(strings.Repeat(other, 1+rng.IntN(6000))), rng.Int64N(8000))
	}
}

// A disk made of the first k recorded operations is cut as the disk itself was when it had seen k: for every loss, faults and all.
func TestCutAt(t *testing.T) {
	losses := append(disktest.PowerCuts(), disktest.Killed)
	seeds := 6
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		rng := newRNG(seed)
		m := disktest.NewMemory()
		now := int64(1e18)
		m.SetClock(func() int64 { now += 1000; return now })
		root := m.Root()
		dirs := []disk.Dir{root, mkdir(t, root, "a"), mkdir(t, root, "b")}
		files := map[string]disk.File{}
		for range 50 {
			step(rng, dirs, files)
		}
		m.Record()
		m.SetSpace(200_000)
		m.SetFault(func(disktest.Call) error {
			switch rng.IntN(40) {
			case 0:
				return syscall.EIO
			case 1:
				return &disktest.Short{Keep: rng.IntN(3000), Err: syscall.ENOSPC}
			}
			return nil
		})
		var want []string // by number of operations
		for i := range 250 {
			step(rng, dirs, files)
			if m.Ops() >= len(want) {
				want = append(want, make([]string, m.Ops()+1-len(want))...)
			}
			l := losses[m.Ops()%len(losses)]
			if i%3 == 0 || want[m.Ops()] == "" {
				want[m.Ops()] = cutTree(t, m.Cut(l, newRNG(i%7)), newRNG(i%7)) + fmt.Sprint(i%7)
			}
		}
		compared := 0
		for k, w := range want {
			if w == "" {
				continue // two operations in one step
			}
			compared++
			s := int(w[len(w)-1] - '0')
			if got := cutTree(t, m.CutAt(k, losses[k%len(losses)], newRNG(s)), newRNG(s)) + fmt.Sprint(s); got != w {
				t.Fatalf("seed %d, %d of %d operations, %v: got\n%s\nwant\n%s", seed, k, m.Ops(), losses[k%len(losses)], got, w)
			}
		}
		if compared < 100 {
			t.Errorf("only %d points were compared", compared)
		}
	}
}

// cutTree answers what is on a disk and what is left of it by one more cut.
func cutTree(t *testing.T, m *disktest.Memory, rng *rand.Rand) string {
	return tree(t, m.Root()) + "then\n" + tree(t, m.Cut(disktest.LoseSectors512, rng).Root())
}

func TestRecordAnew(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	create(t, d, "before", "x")
	m.Record()
	if err := d.Unlink("none"); !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	var st unix.Stat_t
	ok(t, d.StatSelf(&st))
	if m.Ops() != 0 {
		t.Errorf("%d operations of a refused call and a stat", m.Ops())
	}
	create(t, d, "f", "x")
	ok(t, d.Sync())
	if m.Ops() != 3 {
		t.Errorf("%d operations", m.Ops())
	}
	for k, want := range []string{"-", "", "x", "x"} {
		if got := content(t, m.CutAt(k, disktest.LoseNothing, newRNG(1)).Root(), "f"); got != want {
			t.Errorf("after %d: %q, want %q", k, got, want)
		}
	}
	for k, want := range []string{"-", "-", "-", ""} {
		if got := content(t, m.CutAt(k, disktest.LoseAll, newRNG(1)).Root(), "f"); got != want {
			t.Errorf("after %d and a loss of all: %q, want %q", k, got, want)
		}
	}
	m.Record()
	if m.Ops() != 0 {
		t.Errorf("%d operations in a new log", m.Ops())
	}
}

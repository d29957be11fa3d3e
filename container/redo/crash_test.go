package redo

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/journal"
)

var testSeed = flag.Int("seed", 0, "the first seed of random tests")

// workload is a vault whose journal has a bit of everything, and what a replay makes of it.
type workload struct {
	*lab
	spots []spot
	want  []string // contents of the spots
	mtime []unix.Timespec
}

func newWorkload(t testing.TB) *workload {
	l := newLab(t)
	w := &workload{lab: l}
	d := l.mkdir(rootSpot, "d")
	p, q, r := l.file(rootSpot, "p", 'o', 3*block), l.file(d, "q", 'o', 2*block), l.file(d, "r", 'o', block)
	gone := l.file(d, "gone", 'o', block)
	put := func(s spot, length int64, sec int64, letters string, freed []Range, pairs ...int64) {
		h := s.images(pairs...)
		h.Length, h.Freed, h.Timed, h.Mtime = length, freed, true, unix.Timespec{Sec: sec}
		l.put(h, letters)
	}
	put(p, 3*block, 1, "ab", nil, 0, 2*block, 2*block, block)
	put(q, 4*block, 2, "a", nil, 3*block, block)
	put(gone, 4*block, 3, "a", nil, 0, block)
	put(p, 2*block+9, 4, "c", []Range{{0, block}}, 2*block, 9)
	put(r, 300*block, 5, "ab", nil, 0, 290*block, 299*block, block)
	put(q, -1, 6, "", nil)
	w.spots = []spot{p, l.rename(q, rootSpot, names.File, "moved"), r}
	ok(t, l.in(l.m, d.path).Unlink(gone.path[1]))
	w.want = []string{"[4096 o 4096 a 9 c]", "[8192 o 4096 0 4096 a]", "[1187840 a 36864 0 4096 b]"}
	w.mtime = []unix.Timespec{{Sec: 4}, {Sec: 6}, {Sec: 5}}
	return w
}

// check compares m with what a replay makes.
func (w *workload) check(m *disktest.Memory, why string) {
	w.t.Helper()
	for i, s := range w.spots {
		if got := letters(w.read(m, s)); got != w.want[i] {
			w.t.Fatalf("%s: file %d holds %s, want %s", why, i, got, w.want[i])
		}
		if got := w.stat(m, s).Mtim; got != w.mtime[i] {
			w.t.Fatalf("%s: mtime of file %d is %v, want %v", why, i, got, w.mtime[i])
		}
	}
}

// again replays on m, which has to end as the first replay would have.
func (w *workload) again(m *disktest.Memory, why string) {
	w.t.Helper()
	if _, err := Replay(w.config(m)); err != nil {
		w.t.Fatalf("%s: %v", why, err)
	}
	w.check(m, why)
	if left := w.pieces(m); len(left) > 0 {
		w.t.Fatalf("%s: pieces %v are left", why, left)
	}
	w.check(m.Cut(disktest.LoseAll, newRNG(1)), why+", cut after the replay")
}

// A cut at any point of a replay, and the death of the process with a cut in the second replay: the next one ends in the same bytes.
func TestCutDuringReplay(t *testing.T) {
	w := newWorkload(t)
	w.stop()
	w.m.Record()
	w.replay()
	w.check(w.m, "uncut")
	ops := w.m.Ops()
	if ops < 15 {
		t.Fatalf("only %d operations", ops)
	}
	losses := append(disktest.PowerCuts(), disktest.Killed)
	for k := range ops + 1 {
		for _, loss := range losses {
			m := w.m.CutAt(k, loss, newRNG(*testSeed+k))
			w.again(m, fmt.Sprintf("seed %d: cut after %d operations, %v", *testSeed, k, loss))
		}
	}
	for k := 0; k <= ops; k++ { // twice
		m := w.m.CutAt(k, disktest.Killed, newRNG(k))
		m.Record()
		_, err := Replay(w.config(m))
		ok(t, err)
		n := newRNG(*testSeed + k).IntN(m.Ops() + 1)
		w.again(m.CutAt(n, disktest.LoseSectors512, newRNG(k)), fmt.Sprintf("seed %d: killed after %d operations, cut after %d more", *testSeed, k, n))
	}
}

// The journal was never synced, and the process died: it is in the host's memory only. A cut during the replay leaves all files as they
// were, or a journal that says what they were to become.
func TestCutAfterKill(t *testing.T) {
	w := newWorkload(t)
	ok(t, w.m.Root().SyncAll()) // but the journal
	w.want, w.spots = w.want[:1], w.spots[:1]
	w.mtime = w.mtime[:1]
	h := w.spots[0].images(0, block)
	h.Length, h.Timed, h.Mtime = 3*block, true, unix.Timespec{Sec: 9}
	w.put(h, "z")
	w.want[0], w.mtime[0] = "[4096 z 4096 a 9 c 4087 o]", unix.Timespec{Sec: 9}
	ok(t, w.j.Close(false))
	// Bytes 2*block+9 and on were voided by the shorter length, and are as the host has them.
	m := w.m.Cut(disktest.Killed, newRNG(0))
	m.Record()
	_, err := Replay(w.config(m))
	ok(t, err)
	w.check(m, "uncut")
	for k := range m.Ops() + 1 {
		for _, loss := range []disktest.Loss{disktest.LoseSectors4K, disktest.LoseTail, disktest.LoseNothing, disktest.LoseAll} {
			for seed := range 4 {
				c := m.CutAt(k, loss, newRNG(*testSeed+seed))
				_, err := Replay(w.config(c))
				ok(t, err)
				switch got := letters(w.read(c, w.spots[0])); got {
				case w.want[0]:
				case "[12288 o]", "[4096 o 4096 a 9 c]", "[8192 a 4096 b]": // a prefix of the journal was kept
					if k > 1 { // the syncs of the only piece
						t.Fatalf("seed %d: cut after %d operations, %v: the journal was lost", *testSeed+seed, k, loss)
					}
				default:
					t.Fatalf("seed %d: cut after %d operations, %v: file holds %s", *testSeed+seed, k, loss, got)
				}
			}
		}
	}
}

// Each host call fails once: the replay says so and concludes nothing, and the next one does it.
func TestFaultDuringReplay(t *testing.T) {
	w := newWorkload(t)
	w.stop()
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		for n := 0; ; n++ {
			m := w.m.Cut(disktest.LoseNothing, newRNG(0))
			c := w.config(m)
			m.SetFault(disktest.FailCall(n, &disktest.Short{Keep: 700, Err: errno}))
			_, err := Replay(c)
			struck := m.Struck()
			m.SetFault(nil)
			if !struck {
				if err != nil || n < 20 {
					t.Fatalf("%d calls, %v", n, err)
				}
				break
			}
			if !errors.Is(err, errno) {
				t.Fatalf("call %d failed, and the replay answers %v", n, err)
			}
			w.again(m, fmt.Sprintf("%v at call %d", errno, n))
		}
	}
}

// Random logs: replay and view against an oracle that goes through the transactions backwards, block by block.
func TestRandomLogs(t *testing.T) {
	for seed := range 60 {
		rng := newRNG(*testSeed + seed)
		l := newLab(t)
		l.t = seeded{t, *testSeed + seed}
		var all []spot
		for i := range 3 {
			all = append(all, l.file(rootSpot, fmt.Sprint(i), 'o', rng.IntN(12*block)))
		}
		logs := map[keys.ObjectID][]logged{}
		for range 1 + rng.IntN(40) {
			p := all[rng.IntN(len(all))]
			x := randomTransaction(rng, p)
			_, err := l.j.Append(journal.Entry{Head: x.head.Append(nil), Bulk: x.images})
			ok(l.t, err)
			logs[p.id] = append(logs[p.id], x)
		}
		l.stop()
		var want []string
		for _, p := range all {
			want = append(want, oracle(l.read(l.m, p), logs[p.id]))
		}
		view, err := Load(l.config(l.m))
		ok(l.t, err)
		for i, p := range all {
			f := l.wrap(view, p)
			if got := readAll(l.t, f); got != want[i] {
				l.t.Fatalf("view of file %d shows %d bytes that are not the %d wanted", i, len(got), len(want[i]))
			}
			for range 20 { // any part of it
				off, b := rng.IntN(len(want[i])+2), bytes.Repeat([]byte{0xee}, rng.IntN(3*block))
				n, err := f.ReadAt(b, int64(off))
				part := want[i][min(off, len(want[i])):]
				part = part[:min(len(part), len(b))]
				if string(b[:n]) != part || (err != nil) != (n < len(b)) || err != nil && err != io.EOF {
					l.t.Fatalf("view of file %d: %d bytes at %d are wrong, or %v", i, len(b), off, err)
				}
			}
		}
		view.Close()
		l.replay()
		for i, p := range all {
			if got := l.read(l.m, p); got != want[i] {
				l.t.Fatalf("file %d has %d bytes that are not the %d wanted", i, len(got), len(want[i]))
			}
		}
	}
}

// seeded says its seed where it fails.
type seeded struct {
	testing.TB
	seed int
}

func (s seeded) Fatal(args ...any) {
	s.Helper()
	s.TB.Fatal(append([]any{fmt.Sprintf("seed %d:", s.seed)}, args...)...)
}

func (s seeded) Fatalf(format string, args ...any) { s.Helper(); s.Fatal(fmt.Sprintf(format, args...)) }

type logged struct {
	head   Head
	images [][]byte
}

func randomTransaction(rng *rand.Rand, p spot) logged {
	x := logged{head: Head{ID: p.id, Path: p.path, Length: -1}}
	if rng.IntN(3) == 0 {
		x.head.Length = rng.Int64N(12 * block)
	}
	for range rng.IntN(3) {
		x.head.Freed = append(x.head.Freed, Range{rng.Int64N(12) * block, (1 + rng.Int64N(4)) * block})
	}
	for off := rng.Int64N(6) * block; off < 12*block; off += (1 + rng.Int64N(4)) * block {
		n := 1 + rng.Int64N(3*block)
		x.head.Images = append(x.head.Images, Range{off, n})
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		x.images = append(x.images, b)
		off += n / block * block
	}
	for off := rng.Int64N(12 * block); off < 12*block && rng.IntN(4) > 0; off += rng.Int64N(3 * block) {
		n := min(1+rng.Int64N(block), block-off%block)
		x.head.Patches = append(x.head.Patches, Range{off, n})
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		x.images = append(x.images, b)
		off += n
	}
	return x
}

// oracle answers what the log makes of a host file, byte by byte.
func oracle(host string, log []logged) string {
	const none = -1
	logged, final := slices.Repeat([]int{none}, 30*block), int64(-1)
	void := func(from, to int64) {
		for i := from; i < min(to, int64(len(logged))); i++ {
			logged[i] = none
		}
	}
	for _, x := range log {
		for _, r := range x.head.Freed {
			void(r.Off, r.End())
		}
		for i, r := range slices.Concat(x.head.Images, x.head.Patches) {
			if i < len(x.head.Images) {
				void(r.Off, (r.End()+block-1)/block*block)
			}
			for k, b := range x.images[i] {
				logged[r.Off+int64(k)] = int(b)
			}
			if final >= 0 {
				final = max(final, r.End())
			}
		}
		if x.head.Length >= 0 {
			final = x.head.Length
			void(final, int64(len(logged)))
		}
	}
	out := []byte(host)
	resize := func(n int) { out = append(out, make([]byte, max(0, n-len(out)))...) }
	if final >= 0 {
		resize(int(final))
		out = out[:final]
	}
	for i, b := range logged {
		if b != none {
			resize(i + 1)
			out[i] = byte(b)
		}
	}
	return string(out)
}

// A View asks nothing of the host that changes it, and refuses what would.
func TestViewWritesNothing(t *testing.T) {
	w := newWorkload(t)
	w.stop()
	w.m.Record()
	view, err := Load(w.config(w.m))
	ok(t, err)
	defer view.Close()
	for i, s := range w.spots {
		f := w.wrap(view, s)
		var st unix.Stat_t
		ok(t, f.Stat(&st))
		if got := readAll(t, f); letters(got) != w.want[i] || st.Size != int64(len(got)) || st.Mtim != w.mtime[i] {
			t.Errorf("view of file %d shows %s, %d bytes, %v", i, letters(got), st.Size, st.Mtim)
		}
		_, werr := f.WriteAt([]byte("x"), 0)
		for what, err := range map[string]error{
			"write": werr, "truncate": f.Truncate(0), "punch": f.Punch(0, block), "allocate": f.Allocate(0, block), "chmod": f.Chmod(0o600),
			"chown": f.Chown(-1, -1), "utimes": f.Utimes(new([2]unix.Timespec)), "setxattr": f.Setxattr("user.x", nil, 0), "removexattr": f.Removexattr("user.x"),
		} {
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %v", what, err)
			}
		}
		ok(t, f.Datasync())
		ok(t, f.Sync())
		if _, err := f.ReadAt(make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read at -1: %v", err)
		}
		ok(t, f.Close())
	}
	if n := w.m.Ops(); n != 0 {
		t.Errorf("%d operations that change the host", n)
	}
	other := w.file(rootSpot, "other", 'x', 5)
	if f := w.wrap(view, other); readAll(t, f) != "xxxxx" || f.Truncate(3) == nil {
		t.Error("a file that the journal does not speak of") // it was opened for reading
	}
	w.again(w.m, "after the view")
}

package bulk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// noLeaks fails a test that leaves goroutines.
func noLeaks(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
}

// TestImportInterrupted cancels an import at random writes until one comes through: each ends soon, leaves nothing running and nothing half that shows, and the
// next goes on.
func TestImportInterrupted(t *testing.T) {
	noLeaks(t)
	m, mk := newDisk(t)
	dir, files := sourceTree(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := 0; ; round++ {
		if round > 100 {
			t.Fatalf("seed %d: it never comes through", seed)
		}
		o, err := openDisk(m, mk)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		left := rng.IntN(10 + 5*round)
		m.SetTrace(func(op, name string, _ int64, _ int) {
			if op == "write" && strings.HasSuffix(name, partSuffix) {
				if left--; left == 0 {
					cancel()
				}
			}
		})
		err = o.importer(func(path string, err error) { t.Errorf("seed %d: %s: %v", seed, path, err) }).Run(ctx, o.tree.Root(), []Source{{Path: dir}})
		m.SetTrace(nil)
		through := ctx.Err() == nil
		cancel()
		if through != (err == nil) || !through && !errors.Is(err, context.Canceled) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := errors.Join(o.check(files, through), o.close(true)); err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
		if through {
			t.Logf("%d interruptions", round)
			return
		}
	}
}

// TestImportDiskGone lets every host call from a random one on fail: the run ends with the host's error, and nothing goes on behind it.
func TestImportDiskGone(t *testing.T) {
	noLeaks(t)
	base, mk := newDisk(t)
	dir, files := sourceTree(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 40; n < 400; n += 7 {
		m := base.Cut(disktest.LoseNothing, rng)
		o, err := openDisk(m, mk)
		if err != nil {
			t.Fatal(err)
		}
		m.SetFault(disktest.FailFrom(n, unix.EIO))
		var told error
		err = o.importer(func(path string, err error) { told = errors.Join(told, fmt.Errorf("%s: %w", path, err)) }).Run(context.Background(), o.tree.Root(), []Source{{Path: dir}})
		if !m.Struck() {
			break
		}
		if !errors.Is(errors.Join(err, told), unix.EIO) {
			t.Errorf("call %d: answered %v, told %v", n, err, told)
		}
		_ = o.close(false) // nothing can be written any more
		m.SetFault(nil)
		if _, err := again(m.Cut(disktest.Killed, rng), mk, dir, files, nil); err != nil {
			t.Errorf("call %d: %v", n, err)
		}
	}
}

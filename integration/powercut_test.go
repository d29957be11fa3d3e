package integration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/event"
)

// copyOf answers what is promised now and what may be there, for the state of the disk between the calls of pause and copyOf.
func (l *files) copyOf() *files {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := newFiles(l.who, l.closes)
	c.acks = l.acks
	for name, x := range l.all {
		y := &faultFile{size: maybe[int64]{since: slices.Clone(x.size.since)}, pages: maps.Clone(x.pages)}
		for i, p := range y.pages {
			y.pages[i] = &maybe[uint64]{since: slices.Clone(p.since)}
		}
		c.all[name] = y
	}
	l.hold = false
	return c
}

// pause has promises not count for a while.
func (l *files) pause() { l.model(func() { l.hold = true }) }

func (l *database) copyOf() *database {
	c := &database{journal: l.journal, env: l.env}
	c.acked.Store(l.acked.Load())
	return c
}

// Power cuts on real filesystems: an image that holds one with the vault is copied by a reflink, which is atomic, while the daemon works on it. A copy is
// what a cut leaves of a disk whose cache survives; the filesystem's own unwritten pages are lost. What had been synced before has to be in it.
func TestPowerCutHost(t *testing.T) {
	needFUSE(t)
	if os.Geteuid() != 0 {
		t.Skip("only root makes loop devices")
	}
	need(t, "sqlite3")
	for _, mkfs := range []string{"mkfs.ext4 -q -F", "mkfs.xfs -q -f", "mkfs.btrfs -q -f"} {
		name := strings.TrimPrefix(strings.Fields(mkfs)[0], "mkfs.")
		t.Run(name, func(t *testing.T) {
			if name != "ext4" {
				longTier(t, "the quick tier has one filesystem")
			}
			outer := t.TempDir()
			mountImage("mkfs.xfs", "-q", "-m", "reflink=1")(t, outer)
			c := &cutHost{t: t, outer: outer, host: t.TempDir(), dir: t.TempDir(), env: cleanEnv(t)}
			c.must(os.WriteFile(c.image(-1), nil, 0o600))
			c.must(os.Truncate(c.image(-1), 600<<20))
			c.run(append(strings.Fields(mkfs), c.image(-1))...)
			c.work(times(5, 20))
		})
	}
}

type cutHost struct {
	t     *testing.T
	outer string // where the images are
	host  string // where one of them is mounted
	dir   string // where the vault is mounted
	env   []string
}

func (c *cutHost) image(n int) string { return filepath.Join(c.outer, fmt.Sprint("image", n)) }

// inside is a directory that only the mount has: when that is gone nobody goes on in the directory under it.
func (c *cutHost) inside() string { return filepath.Join(c.dir, "inside") }

func (c *cutHost) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cutHost) run(args ...string) {
	c.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// on runs fn while an image is mounted.
func (c *cutHost) on(n int, fn func()) {
	c.t.Helper()
	c.run("mount", "-o", "loop", c.image(n), c.host)
	defer c.run("umount", c.host)
	fn()
}

// work takes copies under load, then looks at each.
func (c *cutHost) work(copies int) {
	c.t.Helper()
	kept := make([][]loader, copies)
	vaultDir := filepath.Join(c.host, "vault")
	c.on(-1, func() {
		c.must(os.Mkdir(vaultDir, 0o700))
		_, err := vault.Create(vaultDir, vault.Options{KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}, passphrase)
		c.must(err)
		d := startDaemon(c.t, vaultDir, c.dir)
		c.must(os.Mkdir(c.inside(), 0o700))
		d.stop()
		d = startDaemon(c.t, vaultDir, c.dir)
		dbs := []*database{{journal: "DELETE", env: c.env}, {journal: "WAL", env: c.env}}
		writers := []*files{newFiles("a", false), newFiles("b", false), newFiles("c", false)}
		var ready, done sync.WaitGroup
		for _, l := range []loader{dbs[0], dbs[1], writers[0], writers[1], writers[2]} {
			ready.Add(1)
			done.Go(func() { l.run(c.inside(), ready.Done) })
		}
		ready.Wait()
		for end := time.Now().Add(time.Minute); dbs[0].acked.Load() == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		for n := range kept {
			time.Sleep(300 * time.Millisecond)
			for _, l := range dbs {
				kept[n] = append(kept[n], l.copyOf())
			}
			for _, l := range writers {
				l.pause()
			}
			c.must(reflink(c.image(-1), c.image(n)))
			for _, l := range writers {
				kept[n] = append(kept[n], l.copyOf())
			}
		}
		d.kill()
		done.Wait()
	})
	acks := 0
	for n, loaders := range kept {
		c.on(n, func() { acks = c.check(n, vaultDir, loaders) })
		c.must(os.Remove(c.image(n)))
	}
	c.t.Logf("%d copies, %d acknowledged before the last", copies, acks)
	if acks == 0 {
		c.t.Error("nothing was acknowledged: the test tests nothing")
	}
}

func (c *cutHost) check(n int, vaultDir string, loaders []loader) (acks int) {
	c.t.Helper()
	d := startDaemon(c.t, vaultDir, c.dir)
	for _, l := range loaders {
		k, err := l.check(c.inside())
		if err != nil {
			c.t.Errorf("copy %d: %v", n, err)
		}
		acks += k
	}
	d.stop()
	for line := range strings.Lines(d.out.String()) {
		if strings.HasPrefix(line, string(event.Damage)) || strings.Contains(line, "level=ERROR") {
			c.t.Errorf("copy %d: %s", n, line)
		}
	}
	return acks
}

func reflink(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())), dst.Close())
}

package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/fs"
	"github.com/cofferfs/coffer/internal/event"
)

// childDaemon serves a vault at a mountpoint until it is unmounted, or killed. Findings go to standard error.
func childDaemon(dir, mountpoint string) error {
	cfg, err := vault.ReadConfig(dir)
	if err != nil {
		return err
	}
	mk, err := cfg.Unlock(passphrase)
	if err != nil {
		return err
	}
	events := func(e event.Event) { fmt.Fprintf(os.Stderr, "%s %s %s %v\n", e.Kind, e.Object, e.Note, e.Err) }
	v, err := vault.Open(dir, cfg, mk, vault.OpenOptions{Mountpoint: mountpoint, Events: events})
	if err != nil {
		return err
	}
	mk.Destroy()
	s, err := fs.NewStack(v, fs.StackConfig{WriteBack: true, JournalSize: 32 << 20, Events: events, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	server, err := fs.Mount(s.FS, fs.MountOptions{Mountpoint: mountpoint})
	if err != nil {
		return errors.Join(err, s.Close())
	}
	fmt.Println("ready")
	server.Wait()
	return s.Close()
}

// daemon is a process that serves a vault.
type daemon struct {
	t   *testing.T
	dir string // mountpoint
	cmd *exec.Cmd
	out bytes.Buffer // standard error; to be read once the process is gone
}

func newDaemon(t *testing.T, vaultDir, dir string) *daemon {
	d := &daemon{t: t, dir: dir, cmd: exec.Command("/proc/self/exe", vaultDir, dir)}
	d.cmd.Dir, d.cmd.Stderr = "/", &d.out
	d.cmd.Env = append(os.Environ(), childEnv+"=daemon")
	return d
}

func startDaemon(t *testing.T, vaultDir, dir string) *daemon {
	t.Helper()
	d := newDaemon(t, vaultDir, dir)
	stdout, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		_ = d.cmd.Wait()
		t.Fatalf("the daemon does not start: %v\n%s", err, d.out.String())
	}
	return d
}

// kill is kill -9.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	detach(d.dir) // first: what it asked of its own mount while it began nobody answers any more, and it would never be gone
	_ = d.cmd.Wait()
}

// detach takes a mount away, whoever uses it.
func detach(dir string) {
	if os.Geteuid() == 0 {
		_ = unix.Unmount(dir, unix.MNT_FORCE)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	} else {
		_ = exec.Command("fusermount3", "-uz", dir).Run()
	}
}

// stop unmounts and waits for the daemon, which must have nothing to complain about.
func (d *daemon) stop() {
	d.t.Helper()
	err := unix.EBUSY
	for try := 0; err == unix.EBUSY && try < 300; try++ {
		if out, uerr := exec.Command("umount", d.dir).CombinedOutput(); uerr == nil {
			err = 0
		} else {
			d.t.Logf("%s", out)
			time.Sleep(100 * time.Millisecond)
		}
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("daemon: %v\n%s", err, d.out.String())
	}
}

// loader writes to the mount until it is gone, and remembers what was acknowledged.
type loader interface {
	run(dir string, ready func())  // ready: it has begun
	check(dir string) (int, error) // after a remount; how much was acknowledged
}

// files is a loader that writes, closes and syncs files of its own.
type files struct {
	rng *rand.Rand
	who string

	mu     sync.Mutex // guards what follows; never held over a system call
	all    map[string]*faultFile
	stamp  uint64
	acks   int
	closes bool // a close promises something
	hold   bool // nothing is promised just now
}

func newFiles(who string, closes bool) *files {
	return &files{rng: rand.New(rand.NewPCG(rand.Uint64(), 0)), who: who, all: map[string]*faultFile{}, closes: closes}
}

// model changes what may be found.
func (l *files) model(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *files) promise(x *faultFile) {
	l.model(func() {
		if !l.hold {
			x.promise()
		}
		l.acks++
	})
}

func (l *files) run(dir string, ready func()) {
	ready()
	for l.step(dir) == nil {
	}
}

func (l *files) step(dir string) error {
	name := fmt.Sprintf("%s-%d", l.who, l.rng.IntN(6))
	path := filepath.Join(dir, name)
	x := l.all[name]
	if x == nil {
		x = newFaultFile(0)
		l.model(func() { l.all[name] = x })
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for range 1 + l.rng.IntN(5) {
		if l.rng.IntN(6) == 0 {
			to := l.rng.Int64N(60)
			l.model(func() { x.truncated(to, errUnsure) }) // it may be there before the call is over
			err = f.Truncate(to * page)
			l.model(func() { x.truncated(to, err) })
		} else {
			l.stamp++
			first, n := l.rng.Int64N(50), 1+l.rng.Int64N(4)
			l.model(func() { x.wrote(first, n, l.stamp, errUnsure) })
			_, err = f.WriteAt(bytes.Repeat(stampedPage(l.stamp), int(n)), first*page)
			l.model(func() { x.wrote(first, n, l.stamp, err) })
		}
		if err == nil && l.rng.IntN(3) == 0 {
			if err = f.Sync(); err == nil {
				l.promise(x)
			}
		}
		if err != nil {
			_ = f.Close()
			return err
		}
	}
	if err = f.Close(); err == nil && l.closes { // close(2) hands over, for the death of the daemon
		l.promise(x)
	}
	return err
}

func (l *files) check(dir string) (int, error) {
	for name, x := range l.all {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) && len(x.size.since) > 0 && x.size.since[0] == 0 { // its first close was cut off
			delete(l.all, name)
			continue
		}
		if err != nil {
			return l.acks, err
		}
		st, err := f.Stat()
		if err == nil {
			err = x.compareBytes(st.Size(), true, func(off int64) ([]byte, error) {
				b := make([]byte, page)
				_, err := f.ReadAt(b, off)
				return b, err
			})
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return l.acks, fmt.Errorf("%s: %w", name, err)
		}
		l.all[name].doubt()
	}
	return l.acks, nil
}

// database is a loader that inserts rows with sqlite3.
type database struct {
	journal string
	env     []string
	acked   atomic.Int64
}

func (l *database) sqlite(dir string) *exec.Cmd {
	c := exec.Command("sqlite3", "-bail", "-cmd", ".timeout 10000", filepath.Join(dir, l.journal+".db"))
	c.Dir, c.Env = "/", l.env
	return c
}

func (l *database) run(dir string, ready func()) {
	c := l.sqlite(dir)
	in, err := c.StdinPipe()
	if err != nil {
		panic(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := c.Start(); err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(out)
	fmt.Fprintf(in, "PRAGMA journal_mode=%s; PRAGMA synchronous=EXTRA; CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, data BLOB); SELECT 'ready';\n", l.journal)
	for lines.Scan() && lines.Text() != "ready" {
	}
	ready()
	for n := l.acked.Load() + 1; ; n++ {
		fmt.Fprintf(in, "INSERT OR REPLACE INTO t VALUES(%d, randomblob(500)); SELECT %d;\n", n, n)
		if !lines.Scan() || lines.Text() != fmt.Sprint(n) {
			break
		}
		l.acked.Store(n)
	}
	_ = in.Close()
	_ = c.Process.Kill()
	_ = c.Wait()
}

func (l *database) check(dir string) (int, error) {
	acked := l.acked.Load()
	if acked == 0 {
		return 0, nil
	}
	c := l.sqlite(dir)
	c.Stdin = strings.NewReader(fmt.Sprintf("PRAGMA integrity_check; SELECT count(*) FROM t WHERE n <= %d;", acked))
	out, err := c.CombinedOutput()
	if want := fmt.Sprintf("ok\n%d\n", acked); err != nil || string(out) != want {
		return int(acked), fmt.Errorf("sqlite, %s: %w: %q, want %q", l.journal, err, out, want)
	}
	return int(acked), nil
}

// repository is a loader that commits with git.
type repository struct {
	env     []string
	n       int
	commits []string
}

func (l *repository) git(dir string, args ...string) (string, error) {
	c := exec.Command("git", append([]string{"-C", filepath.Join(dir, "repo"), "-c", "gc.auto=0"}, args...)...)
	c.Dir, c.Env = "/", l.env
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (l *repository) run(dir string, ready func()) {
	repo := filepath.Join(dir, "repo")
	err := os.MkdirAll(repo, 0o700)
	if err == nil {
		_, err = l.git(dir, "init", "-q")
	}
	ready()
	for ; err == nil; l.n++ {
		err = os.WriteFile(filepath.Join(repo, fmt.Sprint("file", l.n%20)), fmt.Appendln(nil, l.n, rand.Uint64()), 0o600)
		if err == nil {
			_, err = l.git(dir, "add", "-A")
		}
		if err == nil {
			_, err = l.git(dir, "commit", "-q", "-m", strconv.Itoa(l.n))
		}
		var id string
		if err == nil {
			id, err = l.git(dir, "rev-parse", "HEAD")
		}
		if err == nil {
			l.commits = append(l.commits, id)
		}
	}
}

func (l *repository) check(dir string) (int, error) {
	if len(l.commits) == 0 {
		return 0, os.RemoveAll(filepath.Join(dir, "repo"))
	}
	// A git that dies leaves its locks, whatever lies below.
	locks, err := filepath.Glob(filepath.Join(dir, "repo/.git/*.lock"))
	more, merr := filepath.Glob(filepath.Join(dir, "repo/.git/refs/heads/*.lock"))
	for _, lock := range append(locks, more...) {
		err = errors.Join(err, os.Remove(lock))
	}
	if err = errors.Join(err, merr); err != nil {
		return 0, err
	}
	if out, err := l.git(dir, "fsck", "--full", "--strict"); err != nil || strings.Contains(out, "error") || strings.Contains(out, "missing") {
		return len(l.commits), fmt.Errorf("%w: %s", err, out)
	}
	last := l.commits[len(l.commits)-1]
	log, err := l.git(dir, "rev-list", "HEAD")
	if err == nil && strings.Count(log, "\n")+1 < len(l.commits) || !strings.Contains(log, last) {
		err = fmt.Errorf("the history has lost %s", last)
	}
	return len(l.commits), err
}

// kill -9 of the daemon at random moments under load: what was closed or synced is there, git and sqlite find all that they had committed.
func TestKill(t *testing.T) {
	needFUSE(t)
	need(t, "git")
	need(t, "sqlite3")
	vaultDir, dir := t.TempDir(), t.TempDir()
	if _, err := vault.Create(vaultDir, vault.Options{KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}, passphrase); err != nil {
		t.Fatal(err)
	}
	env := cleanEnv(t)
	loaders := []loader{&repository{env: env}, &database{journal: "DELETE", env: env}, &database{journal: "WAL", env: env}}
	for i := range 3 {
		loaders = append(loaders, newFiles(fmt.Sprint("writer", i), true))
	}
	// All of it happens below a directory that only the mount has: when that is gone nobody goes on in the directory under it.
	inside := filepath.Join(dir, "inside")
	d := startDaemon(t, vaultDir, dir)
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Error(err)
	}
	d.stop()
	replays, kills, acks := 0, 0, 0
	end := time.Now().Add(time.Duration(times(15, 600)) * time.Second)
	for ; time.Now().Before(end) || kills < 20 && (replays == 0 || acks == 0); kills++ { // a slow machine may need more
		d := startDaemon(t, vaultDir, dir)
		var ready, done sync.WaitGroup
		ready.Add(len(loaders))
		for _, l := range loaders {
			done.Go(func() { l.run(inside, ready.Done) })
		}
		ready.Wait()
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
		d.kill()
		done.Wait()

		if rand.IntN(2) == 0 { // once more, perhaps while it replays
			d = newDaemon(t, vaultDir, dir)
			if err := d.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			d.kill()
		}
		d = startDaemon(t, vaultDir, dir)
		acks = 0
		for _, l := range loaders {
			n, err := l.check(inside)
			if err != nil {
				t.Errorf("after kill %d: %v", kills, err)
			}
			acks += n
		}
		d.stop()
		if strings.Contains(d.out.String(), "replay") {
			replays++
		}
		for line := range strings.Lines(d.out.String()) {
			if strings.HasPrefix(line, string(event.Damage)) || strings.Contains(line, "level=ERROR") {
				t.Errorf("after kill %d: %s", kills, line)
			}
		}
		if t.Failed() {
			t.Fatalf("daemon says:\n%s", d.out.String())
		}
	}
	t.Logf("%d kills, %d replays, %d acknowledged in all", kills, replays, acks)
	if replays == 0 || acks == 0 {
		t.Error("nothing was replayed, or nothing written: the test tests nothing")
	}
}

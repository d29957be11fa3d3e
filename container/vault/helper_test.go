package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// testKDF is the cheapest that Argon2 has.
var testKDF = KDF{Time: 1, MemoryKiB: 8, Threads: 1}

var testPass = []byte("correct horse battery staple")

// changePassphrase does what coffer passwd does.
func changePassphrase(path string, old, fresh []byte, k KDF) error {
	c, err := ReadConfig(path)
	if err != nil {
		return err
	}
	mk, s, err := c.UnlockWith(Passphrase(old))
	if err != nil {
		return err
	}
	defer mk.Destroy()
	if s, err = c.NewPassphrase(mk, s, fresh, k); err != nil {
		return err
	}
	return ReplaceSlot(path, mk, s)
}

// TestMain lets the test binary stand in for the program: as a key derivation process, and as a mount that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "test-kdf-worker":
			if err := RunKDFWorker(os.Stdin, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		case "test-hold":
			holdVault(os.Args[2])
		}
	}
	os.Exit(m.Run())
}

// holdVault opens the vault for writing, draws a link sequence, says so and waits for its end.
func holdVault(path string) {
	cfg, err := ReadConfig(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	mk, err := cfg.Unlock(testPass)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	v, err := Open(path, cfg, mk, OpenOptions{Mountpoint: "/mnt/held"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	seq, err := v.NextSeq()
	fmt.Println("held", seq, err)
	time.Sleep(10 * time.Minute) // it is killed before
	os.Exit(1)
}

func newVault(t testing.TB) (path, recovery string) {
	t.Helper()
	path = t.TempDir()
	recovery, err := Create(path, Options{KDF: testKDF}, testPass)
	if err != nil {
		t.Fatal(err)
	}
	return path, recovery
}

func unlock(t testing.TB, path string, pass []byte) (*Config, *keys.MasterKey) {
	t.Helper()
	cfg, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	mk, err := cfg.Unlock(pass)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mk.Destroy)
	return cfg, mk
}

func open(t testing.TB, path string, o OpenOptions) *Vault {
	t.Helper()
	v, err := tryOpen(t, path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.CloseUnclean() })
	return v
}

func tryOpen(t testing.TB, path string, o OpenOptions) (*Vault, error) {
	t.Helper()
	cfg, mk := unlock(t, path, testPass)
	return Open(path, cfg, mk, o)
}

func next(t testing.TB, v *Vault) uint64 {
	t.Helper()
	seq, err := v.NextSeq()
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func closeVault(t testing.TB, v *Vault) {
	t.Helper()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func coffer(path, name string) string { return filepath.Join(path, cofferDir, name) }

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// eventLog collects events.
type eventLog struct {
	mu   sync.Mutex
	list []event.Event
}

func (l *eventLog) sink(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
}

func (l *eventLog) has(k event.Kind) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		if e.Kind == k {
			return true
		}
	}
	return false
}

// errCrash is what a host call answers once the machine is gone.
var errCrash = errors.New("crashed")

// How a crash leaves what was written and not synced.
type crashMode int

const (
	crashKill crashMode = iota // the process died: all of it is there
	crashCut                   // power was cut: none of it is there
	crashTorn                  // power was cut: of the last write, half is there
)

// crasher counts the changing host calls of the disks made by it and lets none through from call number at on. Reads go on, so
// that the software can come to its end.
type crasher struct {
	mode  crashMode
	at    int  // -1: never, as far as this test goes
	erofs bool // refuse everything, from the first call on
	once  bool // calls after the failed one go through: an error, not a crash

	mu      sync.Mutex
	calls   int
	crashed bool
	undo    []func() // newest last
}

// step is asked before each change.
func (c *crasher) step() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.erofs {
		c.calls++
		return syscall.EROFS
	}
	if c.crashed {
		return errCrash
	}
	c.calls++
	if c.calls-1 != c.at {
		return nil
	}
	c.crashed = !c.once
	if c.mode != crashKill {
		for i := len(c.undo) - 1; i >= 0; i-- {
			c.undo[i]()
		}
	}
	return errCrash
}

func (c *crasher) root(t testing.TB, path string) disk.Dir {
	t.Helper()
	root, err := disk.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &crashDir{root, c}
}

func (c *crasher) open(t testing.TB, path string) (root, dir disk.Dir) {
	t.Helper()
	root = c.root(t, path)
	dir, err := root.OpenDir(cofferDir)
	if err != nil {
		t.Fatal(err)
	}
	return root, dir
}

type crashDir struct {
	disk.Dir
	c *crasher
}

func (d *crashDir) OpenDir(name string) (disk.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &crashDir{sub, d.c}, nil
}

func (d *crashDir) Open(name string, a disk.Access) (disk.File, error) {
	if d.c.erofs && a == disk.ReadWrite {
		return nil, &fs.PathError{Op: "open", Path: name, Err: d.c.step()}
	}
	f, err := d.Dir.Open(name, a)
	if err != nil {
		return nil, err
	}
	return &crashFile{f, d.c}, nil
}

func (d *crashDir) Create(name string, mode uint32) (disk.File, error) {
	if err := d.c.step(); err != nil {
		return nil, err
	}
	f, err := d.Dir.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return &crashFile{f, d.c}, nil
}

func (d *crashDir) Mkdir(name string, mode uint32) error {
	if err := d.c.step(); err != nil {
		return err
	}
	return d.Dir.Mkdir(name, mode)
}

func (d *crashDir) Rename(name string, dst disk.Dir, dstName string, flags uint) error {
	if err := d.c.step(); err != nil {
		return err
	}
	return d.Dir.Rename(name, dst.(*crashDir).Dir, dstName, flags)
}

func (d *crashDir) Unlink(name string) error {
	if err := d.c.step(); err != nil {
		return err
	}
	return d.Dir.Unlink(name)
}

func (d *crashDir) Rmdir(name string) error {
	if err := d.c.step(); err != nil {
		return err
	}
	return d.Dir.Rmdir(name)
}

func (d *crashDir) Sync() error {
	if err := d.c.step(); err != nil {
		return err
	}
	return d.Dir.Sync()
}

func (d *crashDir) SyncAll() error {
	if err := d.c.step(); err != nil {
		return err
	}
	return d.Dir.SyncAll()
}

type crashFile struct {
	disk.File
	c *crasher
}

// unsynced lets a crash take back what f is about to do. It runs on the real file by its descriptor in /proc, since f may be
// closed by then.
func (f *crashFile) unsynced(off int64, n int) error {
	var st unix.Stat_t
	if err := f.File.Stat(&st); err != nil {
		return err
	}
	old := make([]byte, n)
	k, _ := f.File.ReadAt(old, off)
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.c.undo = append(f.c.undo, func() {
		// A file that was closed unsynced stays as it is: the test's own choice of what survives.
		_, _ = f.File.WriteAt(old[:k], off)
		_ = f.File.Truncate(st.Size)
	})
	return nil
}

func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.c.step(); err != nil {
		if f.c.mode == crashTorn && !f.c.erofs {
			_, _ = f.File.WriteAt(p[:len(p)/2], off)
		}
		return 0, err
	}
	if err := f.unsynced(off, len(p)); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *crashFile) Truncate(size int64) error {
	if err := f.c.step(); err != nil {
		return err
	}
	if err := f.unsynced(size, 4096); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *crashFile) Datasync() error {
	if err := f.c.step(); err != nil {
		return err
	}
	f.c.mu.Lock()
	f.c.undo = nil // of other files too: the tests write one at a time
	f.c.mu.Unlock()
	return f.File.Datasync()
}

func (f *crashFile) Sync() error { return f.Datasync() }

package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/fs"
	"github.com/cofferfs/coffer/internal/event"
)

var passphrase = []byte("correct horse")

// options say how a test mounts its vault.
type options struct {
	writeThrough bool // without the kernel's write-back cache
	readOnly     bool
	allowOther   bool
	acl          bool
	noXattr      bool
	words        []string
	vault        string // host directory; a temporary one where empty
	maxNodes     int    // inodes before the kernel is asked to forget
	wantErrors   bool   // what is logged is part of the test
}

func (o options) String() string {
	if o.writeThrough {
		return "writethrough"
	}
	return "writeback"
}

// mounted is a vault in a temporary directory, mounted in this process. What is logged as a warning or worse fails the test, unless
// the test says that it wants that.
type mounted struct {
	t       testing.TB
	options options
	vault   string // host directory
	dir     string // mount point
	*counter
	findings *findings

	v      *vault.Vault
	stack  *fs.Stack
	engine *container.Engine
	cache  *cache.Cache
	tree   *dirs.Tree
	fs     *fs.FS
	server *fuse.Server
}

// mount makes a vault and mounts it. It is unmounted when the test ends.
func mount(t testing.TB, o options) *mounted {
	t.Helper()
	needFUSE(t)
	m := &mounted{t: t, options: o, vault: o.vault, dir: t.TempDir(), findings: &findings{t: t}}
	if m.vault == "" {
		m.vault = t.TempDir()
	}
	_, err := vault.Create(m.vault, vault.Options{KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}, passphrase)
	m.must(err)
	if o.allowOther {
		// Others must get through the directories above, too.
		for d := m.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			m.must(os.Chmod(d, 0o755))
		}
	}
	m.start()
	t.Cleanup(func() {
		if m.server != nil {
			m.stop()
		}
		if !o.wantErrors {
			m.findings.none()
		}
	})
	return m
}

// needFUSE skips where nothing can be mounted: root mounts directly, others by the setuid program fusermount3.
func needFUSE(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("fusermount3"); err != nil {
			t.Skipf("cannot mount: %v", err)
		}
		return
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	f.Close()
}

func (m *mounted) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// start opens the vault's layers and mounts them.
func (m *mounted) start() {
	m.t.Helper()
	cfg, err := vault.ReadConfig(m.vault)
	m.must(err)
	mk, err := cfg.Unlock(passphrase)
	m.must(err)
	defer mk.Destroy()
	m.v, err = vault.Open(m.vault, cfg, mk, vault.OpenOptions{ReadOnly: m.options.readOnly, Mountpoint: m.dir, Events: m.findings.event})
	m.must(err)
	m.stack, err = fs.NewStack(m.v, fs.StackConfig{
		WriteBack: !m.options.writeThrough, ACL: m.options.acl, MaxNodes: m.options.maxNodes, Events: m.findings.event, Log: slog.New(m.findings),
	})
	m.must(err)
	m.engine, m.cache, m.tree, m.fs = m.stack.Engine, m.stack.Cache, m.stack.Tree, m.stack.FS
	m.counter = &counter{}
	m.server, err = fs.Mount(m.fs, fs.MountOptions{
		Mountpoint: m.dir, AllowOther: m.options.allowOther, NoXAttrs: m.options.noXattr, Options: m.options.words,
		Wrap: func(raw fuse.RawFileSystem) fuse.RawFileSystem { m.counter.RawFileSystem = raw; return m.counter },
	})
	m.must(err)
	m.must(m.server.WaitMount()) // the tests work in their own mount
}

// stop unmounts and closes everything.
func (m *mounted) stop() {
	m.t.Helper()
	err := m.server.Unmount()
	for try := 0; errors.Is(err, unix.EBUSY) && try < 600; try++ {
		time.Sleep(50 * time.Millisecond)
		err = m.server.Unmount()
	}
	server := m.server
	m.server = nil
	if err != nil { // the test has failed with files open: it would wait for itself
		m.t.Errorf("unmount: %v", err)
		detach(m.dir)
		return
	}
	server.Wait()
	if n := m.fs.Panics(); n > 0 {
		m.t.Errorf("%d requests panicked", n)
	}
	if err := m.stack.Close(); err != nil {
		m.t.Errorf("close: %v", err)
	}
}

// remount unmounts and mounts again, with nothing cached anywhere.
func (m *mounted) remount() {
	m.t.Helper()
	m.stop()
	m.start()
}

func (m *mounted) path(elem ...string) string {
	return filepath.Join(append([]string{m.dir}, elem...)...)
}

// host returns the host files of the vault, .coffer left out.
func (m *mounted) host() (files []string) {
	m.t.Helper()
	err := filepath.WalkDir(m.vault, func(path string, e os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.Name() == ".coffer":
			return filepath.SkipDir
		case e.Type().IsRegular():
			files = append(files, path)
		}
		return nil
	})
	m.must(err)
	return files
}

// bothModes runs a test with and without the kernel's write-back cache.
func bothModes(t *testing.T, test func(t *testing.T, m *mounted)) {
	for _, o := range []options{{}, {writeThrough: true}} {
		t.Run(o.String(), func(t *testing.T) { test(t, mount(t, o)) })
	}
}

// findings collects what the layers report and what fs logs.
type findings struct {
	t testing.TB

	mu    sync.Mutex // guards what follows
	lines []string
	kinds map[event.Kind]int
}

func (f *findings) event(e event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kinds == nil {
		f.kinds = map[event.Kind]int{}
	}
	f.kinds[e.Kind]++
	if e.Kind != event.Info {
		f.lines = append(f.lines, fmt.Sprintf("event %s %s: %s %v", e.Kind, e.Object, e.Note, e.Err))
	}
}

func (f *findings) count(k event.Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kinds[k]
}

// none fails the test for each finding.
func (f *findings) none() {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lines {
		f.t.Errorf("found: %s", l)
	}
}

// findings is the log's handler as well.
func (f *findings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (f *findings) WithAttrs([]slog.Attr) slog.Handler           { return f }
func (f *findings) WithGroup(string) slog.Handler                { return f }
func (f *findings) Handle(_ context.Context, r slog.Record) error {
	line := "log: " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, line)
	return nil
}

// needRoot skips what only root may do.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may do this")
	}
}

package integration

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/fs"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
)

// crashStack is every layer of a mounted vault but the kernel, on a disk in memory.
type crashStack struct {
	*fs.Stack
	notes *notes
}

// newCrashDisk answers a disk with a new vault, all of it stable, and what opens it.
func newCrashDisk(p vault.Params) (*disktest.Memory, *keys.MasterKey, error) {
	m := disktest.NewMemory()
	root := m.Root()
	defer root.Close()
	if _, err := vault.CreateDir(root, vault.Options{Params: p, KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}, passphrase); err != nil {
		return nil, nil, err
	}
	cfg, err := vault.ReadConfigDir(root)
	if err != nil {
		return nil, nil, err
	}
	mk, err := cfg.Unlock(passphrase)
	return m.Cut(disktest.LoseAll, rand.New(rand.NewPCG(0, 0))), mk, err
}

// openCrash opens the vault on root, which it takes over.
func openCrash(root disk.Dir, mk *keys.MasterKey, writeBack bool) (*crashStack, error) {
	return openCrashAs(root, mk, writeBack, false)
}

func openCrashAs(root disk.Dir, mk *keys.MasterKey, writeBack, readOnly bool) (*crashStack, error) {
	cfg, err := vault.ReadConfigDir(root)
	if err != nil {
		root.Close()
		return nil, err
	}
	s := &crashStack{notes: &notes{}}
	v, err := vault.OpenDir(root, cfg, mk, vault.OpenOptions{Mountpoint: "/crash", Events: s.notes.event, ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	s.Stack, err = fs.NewStack(v, fs.StackConfig{WriteBack: writeBack, Workers: 1, JournalSize: 32 << 20, Events: s.notes.event, Log: slog.New(s.notes)})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// abandon gives up what the process holds of a stack whose disk is of no interest any more.
func (s *crashStack) abandon(m *disktest.Memory) {
	m.SetFault(disktest.FailFrom(0, unix.EIO))
	_ = s.Close()
}

// notes keeps what the layers say, for the report of a failure.
type notes struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (n *notes) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
}

func (n *notes) event(e event.Event) {
	n.add(fmt.Sprintf("event %s %s at %d: %s %v", e.Kind, e.Object, e.Offset, e.Note, e.Err))
}

func (n *notes) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (n *notes) WithAttrs([]slog.Attr) slog.Handler           { return n }
func (n *notes) WithGroup(string) slog.Handler                { return n }
func (n *notes) Handle(_ context.Context, r slog.Record) error {
	line := "log: " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	n.add(line)
	return nil
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.lines...)
}

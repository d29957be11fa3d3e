package vault

import (
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// memVault makes a vault on a disk in memory, and answers how to open it.
func memVault(t *testing.T) (m *disktest.Memory, openOn func(disk.Dir) (*Vault, error)) {
	t.Helper()
	m = disktest.NewMemory()
	if _, err := ReadConfigDir(m.Root()); !errors.Is(err, ErrNotVault) {
		t.Fatalf("config of an empty directory: %v", err)
	}
	if _, err := CreateDir(m.Root(), Options{KDF: testKDF}, testPass); err != nil {
		t.Fatal(err)
	}
	return m, func(root disk.Dir) (*Vault, error) {
		cfg, err := ReadConfigDir(root)
		if err != nil {
			return nil, err
		}
		mk, err := cfg.Unlock(testPass)
		if err != nil {
			return nil, err
		}
		defer mk.Destroy()
		return OpenDir(root, cfg, mk, OpenOptions{})
	}
}

// A vault needs no path: all of it goes through the directory that was given, and what Create and Open promise to be durable is.
func TestOpenDir(t *testing.T) {
	m, openOn := memVault(t)
	m = m.Cut(disktest.LoseAll, rand.New(rand.NewPCG(1, 1)))
	v, err := openOn(m.Root())
	if err != nil {
		t.Fatal(err)
	}
	first := next(t, v)
	m = m.Cut(disktest.LoseAll, rand.New(rand.NewPCG(2, 2)))
	if v, err = openOn(m.Root()); err != nil {
		t.Fatal(err)
	}
	if seq := next(t, v); seq <= first || !v.Unclean() {
		t.Errorf("link sequence %d after %d, unclean %v", seq, first, v.Unclean())
	}
	closeVault(t, v)
	if _, err := OpenDir(disktest.NewMemory().Root(), v.cfg, nil, OpenOptions{}); !errors.Is(err, ErrNotVault) {
		t.Errorf("open of an empty directory: %v", err)
	}
}

// The state says clean only when everything else on the host is durable, and not at all where that fails.
func TestCloseSyncsAll(t *testing.T) {
	m, openOn := memVault(t)
	v, err := openOn(m.Root())
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	m.SetTrace(func(op, name string, _ int64, _ int) { calls = append(calls, op+" "+name) })
	closeVault(t, v)
	m.SetTrace(nil)
	if all, state := slices.Index(calls, "syncfs "), slices.Index(calls, "write state"); all < 0 || state < all {
		t.Errorf("host calls of a close: %q", calls)
	}

	if v, err = openOn(m.Root()); err != nil {
		t.Fatal(err)
	}
	m.SetFault(func(c disktest.Call) error {
		if c.Op == "syncfs" {
			return syscall.EIO
		}
		return nil
	})
	wantErr(t, v.Close(), syscall.EIO)
	m.SetFault(nil)
	if v, err = openOn(m.Root()); err != nil {
		t.Fatal(err)
	}
	if !v.Unclean() {
		t.Error("a session that could not be made durable counts as clean")
	}
	closeVault(t, v)
}

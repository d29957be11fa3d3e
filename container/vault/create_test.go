package vault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
)

func TestCreate(t *testing.T) {
	path, recovery := newVault(t)
	cfg, mk := unlock(t, path, testPass)
	vmk, err := keys.DecodeRecovery(recovery)
	if err != nil || string(vmk) != string(mk.Bytes()) {
		t.Errorf("the recovery key is not the master key: %v", err)
	}
	for name, mode := range map[string]fs.FileMode{
		"": fs.ModeDir | 0o700, configName: 0o600, backupName: 0o600, stateName: 0o600, lockName: 0o600,
	} {
		fi, err := os.Stat(coffer(path, name))
		if err != nil || fi.Mode() != mode {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	list, err := os.ReadDir(coffer(path, ""))
	if err != nil || len(list) != 4 {
		t.Errorf(".coffer holds %v, %v", list, err)
	}
	if n := len(read(t, coffer(path, stateName))); n != stateSize {
		t.Errorf("state has %d bytes", n)
	}
	v, err := Open(path, cfg, mk, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if v.Params() != cfg.Params || v.GeometryID() != 9 || v.ReadOnly() || v.Config() != cfg || v.Ring().VaultID != cfg.VaultID {
		t.Error("accessors")
	}
	closeVault(t, v)
}

func TestCreateNotEmpty(t *testing.T) {
	path, _ := newVault(t)
	_, err := Create(path, Options{KDF: testKDF}, testPass)
	wantErr(t, err, ErrNotEmpty)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "x"), nil)
	before := snapshot(t, dir)
	_, err = Create(dir, Options{KDF: testKDF}, testPass)
	wantErr(t, err, ErrNotEmpty)
	if after := snapshot(t, dir); after != before {
		t.Error("the directory was changed")
	}
	_, err = Create(filepath.Join(dir, "missing"), Options{KDF: testKDF}, testPass)
	wantErr(t, err, fs.ErrNotExist)
	if _, err = Create(filepath.Join(dir, "x"), Options{KDF: testKDF}, testPass); err == nil {
		t.Error("a vault was made of a file")
	}
}

func TestCreateTwice(t *testing.T) {
	path := t.TempDir()
	var mu sync.Mutex
	made := 0
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, err := Create(path, Options{KDF: testKDF}, testPass)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case !errors.Is(err, ErrNotEmpty):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Fatalf("%d vaults were made of one directory", made)
	}
	closeVault(t, open(t, path, OpenOptions{}))
}

// A host call that fails leaves an empty directory; calls after it go through.
func TestCreateFails(t *testing.T) {
	mk := keys.NewMasterKey()
	defer mk.Destroy()
	p, err := Params{}.fileParams()
	if err != nil {
		t.Fatal(err)
	}
	cfg, ring, err := newConfig(mk, keys.RandomVaultID(), p, testKDF, nil, testPass)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Destroy()
	for n := 0; ; n++ {
		path := t.TempDir()
		c := &crasher{at: n, once: true}
		err := createOn(c.root(t, path), cfg, ring)
		if err == nil {
			if n < 15 {
				t.Fatalf("only %d host calls were counted", n)
			}
			closeVault(t, open(t, path, OpenOptions{}))
			return
		}
		wantErr(t, err, errCrash)
		if list, err := os.ReadDir(path); err != nil || len(list) != 0 {
			t.Fatalf("call %d failed: left %v, %v", n, list, err)
		}
	}
}

package vault

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"
)

// TestRestoreConfig: a backup comes back whatever became of the config since. Which slots that brings back and takes away is told, and a config that is not
// authentic is put aside.
func TestRestoreConfig(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"as it is": func(*testing.T, string) {},
		"passphrase changed": func(t *testing.T, path string) {
			if err := changePassphrase(path, testPass, newPass, testKDF); err != nil {
				t.Fatal(err)
			}
		},
		"lost":          func(t *testing.T, path string) { remove(t, coffer(path, configName), coffer(path, backupName)) },
		"lost with all": func(t *testing.T, path string) { os.RemoveAll(coffer(path, "")) },
		"damaged": func(t *testing.T, path string) {
			b := read(t, coffer(path, configName))
			b[len(b)-3] ^= 1
			write(t, coffer(path, configName), b)
		},
		"of another vault": func(t *testing.T, path string) {
			other, _ := newVault(t)
			for _, name := range []string{configName, backupName} {
				write(t, coffer(path, name), read(t, coffer(other, name)))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := newVault(t)
			addContainer(t, path, "a/b/c")
			cfg, err := ReadConfig(path)
			if err != nil {
				t.Fatal(err)
			}
			kept := cfg.File()
			there := read(t, coffer(path, configName))
			change(t, path)
			before, berr := os.ReadFile(coffer(path, configName))

			c, err := ParseConfig(kept)
			if err != nil {
				t.Fatal(err)
			}
			mk, err := c.Unlock(testPass)
			if err != nil {
				t.Fatal(err)
			}
			defer mk.Destroy()
			done, err := RestoreConfig(path, c, mk)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{configName, backupName} {
				if !bytes.Equal(read(t, coffer(path, name)), there) {
					t.Errorf("%s is not what it was", name)
				}
			}
			damaged, derr := os.ReadFile(coffer(path, damagedName))
			switch name {
			case "as it is":
				if len(done.Back)+len(done.Gone) > 0 || done.Unknown || derr == nil {
					t.Errorf("%+v", done)
				}
			case "passphrase changed":
				if len(done.Back) != 1 || len(done.Gone) != 1 || done.Back[0].ID != done.Gone[0].ID || done.Unknown {
					t.Errorf("%+v", done)
				}
				if _, err := c.Unlock(newPass); !errors.Is(err, ErrPassphrase) {
					t.Errorf("the newer passphrase: %v", err)
				}
			default:
				if !done.Unknown || len(done.Back) != 1 || (berr == nil) != (derr == nil) || !bytes.Equal(damaged, before) {
					t.Errorf("%+v, put aside: %v", done, derr)
				}
			}
			if name != "lost with all" {
				closeVault(t, open(t, path, OpenOptions{}))
			}
		})
	}
}

// TestRestoreConfigRefuses changes nothing where the config is not that of the vault.
func TestRestoreConfigRefuses(t *testing.T) {
	other, _ := newVault(t)
	c, mk := unlock(t, other, testPass)
	for name, make := range map[string]func(path string){
		"files":  func(path string) { addContainer(t, path, "c"); os.RemoveAll(coffer(path, configName)) },
		"config": func(string) {},
	} {
		path, _ := newVault(t)
		make(path)
		before, _ := os.ReadFile(coffer(path, configName))
		if _, err := RestoreConfig(path, c, mk); !errors.Is(err, ErrOtherVault) {
			t.Errorf("%s: %v", name, err)
		}
		after, _ := os.ReadFile(coffer(path, configName))
		if !bytes.Equal(before, after) {
			t.Errorf("%s: the config was changed", name)
		}
	}
	path, _ := newVault(t)
	mine, _ := unlock(t, path, testPass)
	if _, err := RestoreConfig(path, mine, mk); !errors.Is(err, ErrTampered) {
		t.Errorf("under another key: %v", err)
	}
	if _, err := RestoreConfig(path+"/nowhere", c, mk); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	b := mine.File()
	b[len(b)-70] ^= 1
	if _, err := ParseConfig(b); !errors.Is(err, ErrConfig) {
		t.Errorf("not a config: %v", err)
	}
}

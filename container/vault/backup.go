package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// File returns the bytes of the config file, MAC included: what is to be kept as a backup and given to ParseConfig.
func (c *Config) File() []byte { return c.file() }

// ParseConfig reads the bytes of a config file that was kept elsewhere. As with ReadConfig, nothing in it is authentic before Unlock. Errors wrap
// ErrConfig, ErrVersion or ErrFeature.
func ParseConfig(data []byte) (*Config, error) { return parseConfig(data) }

// Restored is what a restored config changed. A slot counts as another one where it was wrapped anew, as by a change of passphrase.
type Restored struct {
	Back []Slot // slots that open the vault again
	Gone []Slot // slots that do not open it any more
	// Unknown: the config that was there could not be used, so that there was nothing to compare with.
	Unknown bool
}

// RestoreConfig puts c, which mk unlocked, in the place of config and config.bak of the vault at path, durably and each of them at once; .coffer is made where it
// is missing. What stood there and is not authentic is kept as config.damaged, to be looked at and removed by hand. The vault may be mounted meanwhile.
//
// Errors: ErrTampered (c is not authentic under mk), ErrOtherVault (files or config that are there belong to another vault), ErrFeature, ErrInUse while
// another process does not stop changing the config, or the host's. Unless it fails while writing, the vault is as before then.
func RestoreConfig(path string, c *Config, mk *keys.MasterKey) (Restored, error) {
	ring := keys.NewRing(mk, c.VaultID)
	defer ring.Destroy()
	if err := c.authenticate(ring); err != nil {
		return Restored{}, err
	}
	if c.ROCompat != 0 {
		return Restored{}, fmt.Errorf("vault: restore config: ro-compat features %#x: %w", c.ROCompat, ErrFeature)
	}
	root, err := disk.OpenRoot(path)
	if err != nil {
		return Restored{}, fmt.Errorf("vault: restore config: %w", err)
	}
	defer root.Close()
	if err := belongs(root, c, mk); err != nil {
		return Restored{}, err
	}
	dir, err := makeCoffer(root)
	if err != nil {
		return Restored{}, fmt.Errorf("vault: restore config: %w", err)
	}
	defer dir.Close()
	l, err := waitConfig(path, dir)
	if err != nil {
		return Restored{}, err
	}
	defer l.close()

	now, err := readConfig(dir, configName)
	if err == nil {
		err = now.authenticate(ring)
	}
	if err != nil {
		if err := keepDamaged(dir); err != nil {
			return Restored{}, err
		}
		return Restored{Back: c.Slots, Unknown: true}, writeConfigs(dir, c)
	}
	return Restored{Back: without(c.Slots, now.Slots), Gone: without(now.Slots, c.Slots)}, writeConfigs(dir, c)
}

// belongs refuses the config of another vault. The files of the vault say what it is; where there are none, the config that is there does, if it can be read.
func belongs(root disk.Dir, c *Config, mk *keys.MasterKey) error {
	hit, err := findContainer(root, mk)
	switch {
	case err == nil && hit.vault == c.VaultID:
		return nil
	case err == nil, errors.Is(err, ErrRecoveryKey):
		return fmt.Errorf("vault: restore config: its files: %w", ErrOtherVault)
	case !errors.Is(err, ErrNoContainer):
		return err
	}
	now, err := ReadConfigDir(root)
	if err == nil && (now.VaultID != c.VaultID || now.Commitment != c.Commitment) {
		return fmt.Errorf("vault: restore config: its config: %w", ErrOtherVault)
	}
	if errors.Is(err, ErrVersion) || errors.Is(err, ErrFeature) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// makeCoffer opens .coffer, which it makes where it is missing.
func makeCoffer(root disk.Dir) (disk.Dir, error) {
	dir, err := root.OpenDir(cofferDir)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := root.Mkdir(cofferDir, cofferDirMode); err != nil {
		return nil, err
	}
	if err := root.Sync(); err != nil {
		return nil, err
	}
	return root.OpenDir(cofferDir)
}

// without are the slots of a that are not in b.
func without(a, b []Slot) (out []Slot) {
	for _, s := range a {
		if !slices.ContainsFunc(b, func(x Slot) bool { return x.ID == s.ID && x.Wrapped == s.Wrapped }) {
			out = append(out, s)
		}
	}
	return out
}

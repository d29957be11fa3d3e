package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// Options of Create. Zero fields stand for the defaults; Derive runs the key derivation, DeriveInProcess when nil.
type Options struct {
	Params Params
	KDF    KDF
	Derive Deriver
}

// Create makes the directory at path, which must exist and be empty, a vault that the passphrase opens, and returns its
// recovery key: the master key in a form to print, which nobody can show again without the passphrase, and nobody revoke. All is
// durable when it returns; when it fails, the directory is empty again. The passphrase is the caller's to wipe.
//
// Errors: ErrEmptyPassphrase, ErrParams, ErrKDF, ErrNotEmpty, or the host's.
func Create(path string, o Options, passphrase []byte) (recovery string, err error) {
	if len(passphrase) == 0 {
		return "", ErrEmptyPassphrase
	}
	params, err := o.Params.fileParams()
	if err != nil {
		return "", err
	}
	if o.KDF == (KDF{}) {
		o.KDF = DefaultKDF()
	}
	root, err := disk.OpenRoot(path)
	if err != nil {
		return "", fmt.Errorf("vault: create: %w", err)
	}
	defer root.Close()
	if err := checkEmpty(root); err != nil {
		return "", err
	}
	mk := keys.NewMasterKey()
	defer mk.Destroy()
	// The slow part comes before the first change on the host.
	c, ring, err := newConfig(mk, keys.RandomVaultID(), params, o.KDF, o.Derive, passphrase)
	if err != nil {
		return "", err
	}
	defer ring.Destroy()
	if err := createOn(root, c, ring); err != nil {
		return "", err
	}
	return keys.EncodeRecovery(mk.Bytes()), nil
}

// newConfig makes a config with one passphrase slot. The caller destroys the ring.
func newConfig(mk *keys.MasterKey, id keys.VaultID, p keys.FileParams, k KDF, derive Deriver, passphrase []byte) (*Config, *keys.Ring, error) {
	now := time.Now().UTC().Truncate(time.Second)
	slot, err := newSlot(mk, id, passphrase, k, derive, now)
	if err != nil {
		return nil, nil, err
	}
	ring := keys.NewRing(mk, id)
	c := &Config{VaultID: id, Commitment: ring.Commitment(), Params: p, Created: now, Slots: []Slot{slot}}
	if err := c.seal(ring); err != nil {
		ring.Destroy()
		return nil, nil, err
	}
	return c, ring, nil
}

// checkEmpty allows the names given.
func checkEmpty(root disk.Dir, but ...string) error {
	err := root.List(func(name string, _ uint64, _ uint8) error {
		if !slices.Contains(but, name) {
			return ErrNotEmpty
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("vault: create: %w", err)
	}
	return nil
}

// createOn writes .coffer. mkdir decides between two that create at once; config comes last, so that there is a vault only when
// there is all of it.
func createOn(root disk.Dir, c *Config, ring *keys.Ring) error {
	err := root.Mkdir(cofferDir, cofferDirMode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("vault: create: %w", ErrNotEmpty)
	}
	if err != nil {
		return fmt.Errorf("vault: create: %w", err)
	}
	if err := fillCoffer(root, c, ring); err != nil {
		return errors.Join(err, removeCoffer(root))
	}
	return nil
}

func fillCoffer(root disk.Dir, c *Config, ring *keys.Ring) error {
	if err := checkEmpty(root, cofferDir); err != nil {
		return err
	}
	dir, err := root.OpenDir(cofferDir)
	if err != nil {
		return fmt.Errorf("vault: create: %w", err)
	}
	defer dir.Close()
	if err := createState(dir, ring); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{lockName, nil}, {backupName, c.file()}, {configName, c.file()}} {
		if err := createFile(dir, f.name, f.data); err != nil {
			return fmt.Errorf("vault: create: %w", err)
		}
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("vault: create: %w", err)
	}
	if err := root.Sync(); err != nil {
		return fmt.Errorf("vault: create: %w", err)
	}
	return nil
}

// removeCoffer takes back what fillCoffer made. It names files and does not sweep: what somebody else put there stays.
func removeCoffer(root disk.Dir) error {
	dir, err := root.OpenDir(cofferDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{configName, backupName, lockName, stateName} {
		if err := dir.Unlink(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	dir.Close()
	return errors.Join(append(errs, root.Rmdir(cofferDir))...)
}

// ChangePassphrase rewraps the key slot that the old passphrase opens. config and config.bak are both replaced and durable when
// it returns, so that the old slot is in neither; on failure the old passphrase still opens the vault. A zero KDF keeps the
// slot's. The vault may be mounted meanwhile. It does not keep out who has the old slot and the old passphrase from before:
// the master key is the same.
//
// Errors: those of ReadConfig and Unlock; ErrKDF; ErrInUse while another process changes the config.
func ChangePassphrase(path string, old, passphrase []byte, k KDF, derive Deriver) error {
	if len(passphrase) == 0 || len(old) == 0 {
		return ErrEmptyPassphrase
	}
	root, dir, err := openDirs(path, disk.OpenRoot)
	if err != nil {
		return err
	}
	defer root.Close()
	defer dir.Close()
	l, err := lockConfig(path, dir)
	if err != nil {
		return err
	}
	defer l.close()
	c, err := readConfigs(dir) // with the lock held: nobody else changes it now
	if err != nil {
		return err
	}
	c.Derive = derive
	if c.ROCompat != 0 {
		return fmt.Errorf("vault: change passphrase: ro-compat features %#x: %w", c.ROCompat, ErrFeature)
	}
	mk, i, err := c.unlock(old)
	if err != nil {
		return err
	}
	defer mk.Destroy()
	slot := c.Slots[i]
	if k != (KDF{}) {
		slot.KDF = k
	}
	slot.Created = time.Now().UTC().Truncate(time.Second)
	if err := slot.wrap(mk, c.VaultID, passphrase, derive); err != nil {
		return err
	}
	slots := slices.Clone(c.Slots)
	slots[i] = slot
	return replaceSlots(dir, c, mk, slots)
}

// replaceSlots writes c with other slots. The caller holds the config lock. A config that c had to stand in for is kept as
// config.damaged.
func replaceSlots(dir disk.Dir, c *Config, mk *keys.MasterKey, slots []Slot) error {
	ring := keys.NewRing(mk, c.VaultID)
	defer ring.Destroy()
	n := &Config{VaultID: c.VaultID, Commitment: c.Commitment, Params: c.Params, ROCompat: c.ROCompat, Compat: c.Compat, Created: c.Created, Slots: slots}
	if err := n.seal(ring); err != nil {
		return err
	}
	if c.warning != nil {
		if err := keepDamaged(dir); err != nil {
			return err
		}
	}
	return writeConfigs(dir, n)
}

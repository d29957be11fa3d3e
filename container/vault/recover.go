package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// Recover gives the vault at path a new passphrase by its recovery key, and a new config where that is lost, damaged or not
// authentic. An authentic config (or config.bak) keeps all but its passphrase slots, which are replaced by one. Otherwise the
// vault is walked for a container that the recovery key opens, whose header has everything that a config holds; what stood in
// the place of config is kept as config.damaged, to be looked at and removed by hand. A zero KDF stands for DefaultKDF. A lost
// state is rebuilt by the next Open.
//
// Errors: those of keys.DecodeRecovery; ErrEmptyPassphrase; ErrRecoveryKey (the key is of another vault); ErrNoContainer
// (there is nothing to rebuild a config from); ErrVersion, ErrFeature (the config is of a newer program); or the host's. Unless
// it fails while writing, the vault is as before then.
func Recover(path, recoveryKey string, passphrase []byte, k KDF, derive Deriver) error {
	if len(passphrase) == 0 {
		return ErrEmptyPassphrase
	}
	vmk, err := keys.DecodeRecovery(recoveryKey)
	if err != nil {
		return err
	}
	mk, err := keys.MasterKeyFrom(vmk)
	clear(vmk)
	if err != nil {
		return err
	}
	defer mk.Destroy()
	if k == (KDF{}) {
		k = DefaultKDF()
	}
	root, err := disk.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("vault: recover: %w", err)
	}
	defer root.Close()
	c, good, err := recoverConfig(root, mk)
	if err != nil {
		return err
	}
	if c.ROCompat != 0 {
		return fmt.Errorf("vault: recover: ro-compat features %#x: %w", c.ROCompat, ErrFeature)
	}
	slot, err := newSlot(mk, c.VaultID, passphrase, k, derive, time.Now())
	if err != nil {
		return err
	}
	dir, err := makeCoffer(root)
	if err != nil {
		return fmt.Errorf("vault: recover: %w", err)
	}
	defer dir.Close()
	l, err := waitConfig(path, dir)
	if err != nil {
		return err
	}
	defer l.close()
	if len(c.Slots) > 0 { // with the lock held: another process may have changed them meanwhile
		if c, good, err = recoverConfig(root, mk); err != nil {
			return err
		}
	}
	if !good {
		c.warning = &FallbackError{Err: ErrConfig} // config is to be kept
	}
	slots := []Slot{slot}
	for _, s := range c.Slots {
		if s.Kind != KindPassphrase {
			slots = append(slots, s)
		}
	}
	return replaceSlots(dir, c, mk, slots)
}

// recoverConfig returns an authentic config, or one without slots made from a container. good tells that the file config
// itself was authentic.
func recoverConfig(root disk.Dir, mk *keys.MasterKey) (c *Config, good bool, err error) {
	otherKey := false // a config is well formed and the key does not belong to it
	dir, err := root.OpenDir(cofferDir)
	switch {
	case err == nil:
		defer dir.Close()
		for _, name := range []string{configName, backupName} {
			c, err := readConfig(dir, name)
			switch {
			case errors.Is(err, ErrVersion), errors.Is(err, ErrFeature), errors.Is(err, fs.ErrPermission):
				return nil, false, err
			case err != nil:
				continue
			}
			ring := keys.NewRing(mk, c.VaultID)
			err = c.authenticate(ring)
			ring.Destroy()
			if err == nil {
				return c, name == configName, nil
			}
			otherKey = true
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("vault: recover: %w", err)
	}
	p, err := findContainer(root, mk)
	if errors.Is(err, ErrNoContainer) && otherKey {
		err = fmt.Errorf("vault: recover: %w", ErrRecoveryKey)
	}
	if err != nil {
		return nil, false, err
	}
	ring := keys.NewRing(mk, p.vault)
	defer ring.Destroy()
	return &Config{VaultID: p.vault, Commitment: ring.Commitment(), Params: p.params, Created: time.Now()}, false, nil
}

// probe is what the header of an authentic container says of its vault.
type probe struct {
	vault  keys.VaultID
	params keys.FileParams
}

// findContainer walks the tree until a container proves authentic under mk.
func findContainer(root disk.Dir, mk *keys.MasterKey) (probe, error) {
	var hit probe
	errFound := errors.New("found")
	others := 0
	unread, err := walk(root, struct{}{}, func(d disk.Dir, up struct{}, name string, typ uint8) (struct{}, error) {
		if typ != unix.DT_REG {
			return up, nil
		}
		h, err := d.Open(name, disk.ReadOnly)
		if err != nil {
			return up, nil // gone, or not ours to read: the next one may do
		}
		defer h.Close()
		hit.vault, hit.params, err = container.Identify(h, mk)
		if errors.Is(err, container.ErrKey) {
			others++
		}
		if err != nil {
			return up, nil
		}
		return up, errFound
	})
	switch {
	case errors.Is(err, errFound):
		return hit, nil
	case err != nil:
		return probe{}, err
	case others > 0:
		return probe{}, fmt.Errorf("vault: recover: none of %d containers opens: %w", others, ErrRecoveryKey)
	case unread != nil:
		return probe{}, fmt.Errorf("vault: recover: %w: %w", ErrNoContainer, unread)
	}
	return probe{}, fmt.Errorf("vault: recover: %w", ErrNoContainer)
}

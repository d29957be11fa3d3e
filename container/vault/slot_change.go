package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// maxLabel is the longest label of a slot in bytes.
const maxLabel = 64

func thisSecond() time.Time { return time.Now().UTC().Truncate(time.Second) }

// CheckLabel says whether text may be a slot's label: nothing, or up to 64 bytes of UTF-8 that can be shown on one line.
func CheckLabel(text string) error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(text) > maxLabel || !utf8.ValidString(text) || slices.ContainsFunc([]rune(text), odd) {
		return fmt.Errorf("vault: %w", ErrLabel)
	}
	return nil
}

// AddSlot stores a slot that PassphraseSlot, KeyFileSlot or AgeSlot made for the vault at path with the same master key. It is
// in config and config.bak, durably, when AddSlot returns; on failure the config is as it was. The vault may be mounted meanwhile,
// and another process may change other slots.
//
// Errors: ErrLabel, ErrSlots (32 are there), ErrTampered (mk is not the vault's); ErrInUse while another process does not stop changing
// the config; those of ReadConfig.
func AddSlot(path string, mk *keys.MasterKey, s Slot) error {
	if err := CheckLabel(s.Label); err != nil {
		return err
	}
	return changeSlots(path, mk, func(c *Config) ([]Slot, error) {
		return append(slices.Clone(c.Slots), s), nil
	})
}

// ReplaceSlot stores a slot in place of the one that has its id, as AddSlot does; the old one is in neither file afterwards.
// ErrNoSlot says that it is gone.
func ReplaceSlot(path string, mk *keys.MasterKey, s Slot) error {
	return changeSlots(path, mk, func(c *Config) ([]Slot, error) {
		i := c.slot(s.ID)
		if i < 0 {
			return nil, fmt.Errorf("vault: %w", ErrNoSlot)
		}
		slots := slices.Clone(c.Slots)
		slots[i] = s
		return slots, nil
	})
}

// RemoveSlot removes a slot: when it returns, the slot is in no file of the vault, a config that was put aside as damaged
// included. Where it fails between two of them, a second call finishes. It does not undo what somebody has read before: the master
// key is the same. The vault may be mounted meanwhile.
//
// Errors: ErrNoSlot; ErrLastSlot (the recovery key is no slot); those of AddSlot.
func RemoveSlot(path string, mk *keys.MasterKey, id [8]byte) error {
	return withConfigLock(path, func(dir disk.Dir) error { return removeSlot(dir, mk, id) })
}

func removeSlot(dir disk.Dir, mk *keys.MasterKey, id [8]byte) error {
	c, err := authenticConfig(dir, mk)
	if err != nil {
		return err
	}
	slots, i := slices.Clone(c.Slots), c.slot(id)
	switch {
	case i < 0 && !lingers(dir, id):
		return fmt.Errorf("vault: %w", ErrNoSlot)
	case i >= 0 && len(slots) == 1:
		return fmt.Errorf("vault: %w", ErrLastSlot)
	case i >= 0:
		slots = slices.Delete(slots, i, i+1)
	}
	// What was put aside goes first: afterwards no call would know that there is something left to do. Nor is anything put aside now.
	if err := removeDamaged(dir); err != nil {
		return err
	}
	c.warning = nil
	return replaceSlots(dir, c, mk, slots)
}

// lingers tells whether a removal did not come to its end.
func lingers(dir disk.Dir, id [8]byte) bool {
	b, err := readConfig(dir, backupName)
	return err == nil && b.slot(id) >= 0
}

func removeDamaged(dir disk.Dir) error {
	err := dir.Unlink(damagedName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = dir.Sync()
	}
	if err != nil {
		return fmt.Errorf("vault: remove %s: %w", damagedName, err)
	}
	return nil
}

// slot returns the index of a slot, -1 where there is none.
func (c *Config) slot(id [8]byte) int {
	return slices.IndexFunc(c.Slots, func(s Slot) bool { return s.ID == id })
}

// changeSlots replaces the slots by what change makes of them, with the config lock held. Derivations come before: the lock is
// held for a moment only.
func changeSlots(path string, mk *keys.MasterKey, change func(*Config) ([]Slot, error)) error {
	return withConfigLock(path, func(dir disk.Dir) error {
		c, err := authenticConfig(dir, mk)
		if err != nil {
			return err
		}
		slots, err := change(c)
		if err != nil {
			return err
		}
		return replaceSlots(dir, c, mk, slots)
	})
}

func withConfigLock(path string, do func(dir disk.Dir) error) error {
	root, dir, err := openDirs(path, disk.OpenRoot)
	if err != nil {
		return err
	}
	defer root.Close()
	defer dir.Close()
	l, err := waitConfig(path, dir)
	if err != nil {
		return err
	}
	defer l.close()
	return do(dir)
}

// authenticConfig reads the config with the lock held: nobody else changes it now.
func authenticConfig(dir disk.Dir, mk *keys.MasterKey) (*Config, error) {
	c, err := readConfigs(dir)
	if err != nil {
		return nil, err
	}
	if c.ROCompat != 0 {
		return nil, fmt.Errorf("vault: change key slots: ro-compat features %#x: %w", c.ROCompat, ErrFeature)
	}
	ring := keys.NewRing(mk, c.VaultID)
	defer ring.Destroy()
	return c, c.authenticate(ring)
}

// Others hold the config lock for as long as two small files take to be synced.
const (
	configWait = 15 * time.Second
	configPoll = 10 * time.Millisecond
)

// waitConfig is lockConfig for one of several that change the config at once.
func waitConfig(path string, dir disk.Dir) (*lockFile, error) {
	for end := time.Now().Add(configWait); ; time.Sleep(configPoll) {
		l, err := lockConfig(path, dir)
		if err == nil || !errors.Is(err, ErrInUse) || time.Now().After(end) {
			return l, err
		}
	}
}

// NewPassphrase returns s, a passphrase slot of c, wrapped anew under another passphrase, which is not empty (ErrEmptyPassphrase); a zero KDF keeps the slot's.
func (c *Config) NewPassphrase(mk *keys.MasterKey, s Slot, fresh []byte, k KDF) (Slot, error) {
	if err := Passphrase(fresh).check(); err != nil {
		return s, err
	}
	if k != (KDF{}) {
		s.KDF = k
	}
	s.Created = thisSecond()
	return s, s.wrap(mk, c.VaultID, Passphrase(fresh), c.Derive)
}

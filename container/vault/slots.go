package vault

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

// Kinds of key slots.
const (
	KindPassphrase = "passphrase"
	KindKeyFile    = "keyfile"
	KindAge        = "age"
)

// slotLabels begin the associated data, so that no slot can be taken for one of another kind.
var slotLabels = map[string]string{KindPassphrase: "coffer slot v1", KindKeyFile: "coffer kfile v1", KindAge: "coffer age v1"}

// A slot's associated data (FORMAT.md section 9): what else the key-encrypting key depends on, so that no field of a slot can
// be changed or moved to another vault.
//
//	 0 16  label of the kind
//	16 16  vault id
//	32  8  slot id
//	40 32  salt
//	72  4  time          passphrase only, as are the next two
//	76  4  memory, KiB
//	80  4  threads
func (s *Slot) associatedData(id keys.VaultID) []byte {
	ad := make([]byte, 16, 84)
	copy(ad, slotLabels[s.Kind])
	ad = append(ad, id[:]...)
	ad = append(ad, s.ID[:]...)
	ad = append(ad, s.Salt[:]...)
	if s.Kind != KindPassphrase {
		return ad
	}
	ad = binary.LittleEndian.AppendUint32(ad, s.KDF.Time)
	ad = binary.LittleEndian.AppendUint32(ad, s.KDF.MemoryKiB)
	return binary.LittleEndian.AppendUint32(ad, uint32(s.KDF.Threads))
}

// emptySlot has a fresh id.
func emptySlot(kind string, now time.Time) Slot {
	s := Slot{Kind: kind, Created: now.UTC().Truncate(time.Second)}
	rand.Read(s.ID[:])
	return s
}

// newSlot wraps the master key under a passphrase, with a fresh salt and nonce.
func newSlot(mk *keys.MasterKey, id keys.VaultID, passphrase []byte, k KDF, derive Deriver, now time.Time) (Slot, error) {
	s := emptySlot(KindPassphrase, now)
	s.KDF = k
	return s, s.wrap(mk, id, Passphrase(passphrase), derive)
}

// wrap draws salt and nonce and fills in commitment and wrapped key. Id, kind, and what the kind derives from are set.
func (s *Slot) wrap(mk *keys.MasterKey, id keys.VaultID, secret Secret, derive Deriver) error {
	rand.Read(s.Salt[:])
	rand.Read(s.Nonce[:])
	return s.seal(mk, id, secret, derive)
}

// seal is wrap with salt and nonce set.
func (s *Slot) seal(mk *keys.MasterKey, id keys.VaultID, secret Secret, derive Deriver) error {
	a, err := secret.derive(s, derive)
	if err != nil {
		return err
	}
	defer clear(a)
	copy(s.Commitment[:], a[suite.KeySize:])
	_, err = suite.SealWithNonce(suite.XAES256GCM, a[:suite.KeySize], s.Nonce[:], s.Wrapped[:0], mk.Bytes(), s.associatedData(id))
	if err != nil {
		return fmt.Errorf("vault: wrap master key: %w", err)
	}
	return nil
}

// unwrap returns the master key. The secret's wrong error says that it is not the slot's, which a changed salt, KDF or
// commitment cannot be told from; ErrTampered that it is, but the wrapped key does not open.
func (s *Slot) unwrap(id keys.VaultID, secret Secret, derive Deriver) (*keys.MasterKey, error) {
	a, err := secret.derive(s, derive)
	if err != nil {
		return nil, err
	}
	defer clear(a)
	if !hmac.Equal(a[suite.KeySize:], s.Commitment[:]) {
		return nil, secret.wrong()
	}
	c, err := suite.New(suite.XAES256GCM, a[:suite.KeySize])
	if err != nil {
		return nil, fmt.Errorf("vault: unwrap master key: %w", err)
	}
	vmk := make([]byte, 0, keys.MasterKeySize)
	vmk, err = c.Open(vmk, s.Nonce[:], s.Wrapped[:], s.associatedData(id))
	if err != nil {
		return nil, fmt.Errorf("vault: unwrap master key: %w: %w", ErrTampered, err)
	}
	defer clear(vmk)
	return keys.MasterKeyFrom(vmk)
}

// Unlock is UnlockWith by a passphrase.
func (c *Config) Unlock(passphrase []byte) (*keys.MasterKey, error) {
	mk, _, err := c.UnlockWith(Passphrase(passphrase))
	return mk, err
}

// UnlockWith tries the secret on each key slot of its kind and returns the master key, which the caller destroys, and the slot
// that opened, once the whole config has proved authentic under it. For an age slot that proves less than for others: whoever
// knows the recipient can make a config of his own that the identity opens, so that the caller has to compare Commitment with
// what it remembers. Takes as long as the key derivation of each slot, or as a plugin's user.
//
// Errors: ErrEmptyPassphrase, ErrKeyFileSize; ErrPassphrase, ErrKeyFile, ErrIdentity (no slot opens); ErrTampered (a slot opens but
// the config is not what was written); ErrKDF (a slot needs more memory than this machine has); those of a plugin.
func (c *Config) UnlockWith(secret Secret) (*keys.MasterKey, Slot, error) {
	mk, i, err := c.unlock(secret)
	if err != nil {
		if c.differs && (errors.Is(err, secret.wrong()) || errors.Is(err, ErrTampered)) {
			err = fmt.Errorf("%w (config and config.bak differ: one of them may be damaged)", err)
		}
		return nil, Slot{}, err
	}
	return mk, c.Slots[i], nil
}

// unlock returns the index of the slot that opened.
func (c *Config) unlock(secret Secret) (*keys.MasterKey, int, error) {
	return OpenSlots(c.Slots, c.VaultID, secret, c.Derive, func(mk *keys.MasterKey) error {
		ring := keys.NewRing(mk, c.VaultID)
		defer ring.Destroy()
		return c.authenticate(ring)
	})
}

// OpenSlots tries the secret on each slot of its kind, wrapped for id, and returns the key, which the caller destroys, and the index of the slot that
// opened, once accept has found that the key is the one of what the slots belong to. A nil derive stands for DeriveInProcess. Errors: those of
// UnlockWith, and of accept.
func OpenSlots(slots []Slot, id keys.VaultID, secret Secret, derive Deriver, accept func(mk *keys.MasterKey) error) (*keys.MasterKey, int, error) {
	if err := secret.check(); err != nil {
		return nil, 0, err
	}
	failed := secret.wrong()
	for i := range slots {
		if slots[i].Kind != secret.kind() {
			continue
		}
		mk, err := slots[i].unwrap(id, secret, derive)
		switch {
		case err == nil:
			if err := accept(mk); err != nil {
				mk.Destroy()
				return nil, 0, err
			}
			return mk, i, nil
		case errors.Is(err, ErrKDF), errors.Is(err, ErrAgeFailed):
			failed = err // another slot may be within this machine's means
		case !errors.Is(err, secret.wrong()):
			return nil, 0, err
		}
	}
	return nil, 0, failed
}

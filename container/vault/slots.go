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

const slotLabel = "coffer slot v1"

// A slot's associated data (FORMAT.md section 9): what else the key-encrypting key depends on, so that no field of a slot can
// be changed or moved to another vault.
//
//	 0 16  "coffer slot v1"
//	16 16  vault id
//	32  8  slot id
//	40 32  salt
//	72  4  time
//	76  4  memory, KiB
//	80  4  threads
func (s *Slot) associatedData(id keys.VaultID) []byte {
	ad := make([]byte, 16, 84)
	copy(ad, slotLabel)
	ad = append(ad, id[:]...)
	ad = append(ad, s.ID[:]...)
	ad = append(ad, s.Salt[:]...)
	ad = binary.LittleEndian.AppendUint32(ad, s.KDF.Time)
	ad = binary.LittleEndian.AppendUint32(ad, s.KDF.MemoryKiB)
	return binary.LittleEndian.AppendUint32(ad, uint32(s.KDF.Threads))
}

// newSlot wraps the master key under a passphrase, with a fresh salt and nonce.
func newSlot(mk *keys.MasterKey, id keys.VaultID, passphrase []byte, k KDF, derive Deriver, now time.Time) (Slot, error) {
	s := Slot{Kind: kindPassphrase, Created: now.UTC().Truncate(time.Second), KDF: k}
	rand.Read(s.ID[:])
	return s, s.wrap(mk, id, passphrase, derive)
}

// wrap draws salt and nonce and fills in commitment and wrapped key. KDF, id and kind are set.
func (s *Slot) wrap(mk *keys.MasterKey, id keys.VaultID, passphrase []byte, derive Deriver) error {
	rand.Read(s.Salt[:])
	rand.Read(s.Nonce[:])
	return s.seal(mk, id, passphrase, derive)
}

// seal is wrap with salt and nonce set.
func (s *Slot) seal(mk *keys.MasterKey, id keys.VaultID, passphrase []byte, derive Deriver) error {
	a, err := s.derive(passphrase, derive)
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

// derive returns KEK ‖ commitment. Parameters are checked here, whoever set them.
func (s *Slot) derive(passphrase []byte, derive Deriver) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, ErrEmptyPassphrase
	}
	if err := s.KDF.checkMachine(); err != nil {
		return nil, fmt.Errorf("vault: key slot: %w", err)
	}
	if derive == nil {
		derive = DeriveInProcess
	}
	a, err := derive(passphrase, s.Salt[:], s.KDF)
	if err != nil {
		return nil, err
	}
	if len(a) != derivedSize {
		clear(a)
		return nil, errors.New("vault: key derivation: wrong length")
	}
	return a, nil
}

// unwrap returns the master key. ErrPassphrase says that the passphrase is not the slot's, which a changed salt, KDF or
// commitment cannot be told from; ErrTampered that it is, but the wrapped key does not open.
func (s *Slot) unwrap(id keys.VaultID, passphrase []byte, derive Deriver) (*keys.MasterKey, error) {
	a, err := s.derive(passphrase, derive)
	if err != nil {
		return nil, err
	}
	defer clear(a)
	if !hmac.Equal(a[suite.KeySize:], s.Commitment[:]) {
		return nil, ErrPassphrase
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

// Unlock tries the passphrase on each key slot and returns the master key, which the caller destroys, once the whole config
// has proved authentic under it. Errors: ErrEmptyPassphrase, ErrPassphrase (no slot opens), ErrTampered (a slot opens but
// the config is not what was written), ErrKDF (a slot needs more memory than this machine has). The passphrase is not kept,
// and is the caller's to wipe. Takes as long as the key derivation of each slot.
func (c *Config) Unlock(passphrase []byte) (*keys.MasterKey, error) {
	mk, _, err := c.unlock(passphrase)
	if err != nil && c.differs && (errors.Is(err, ErrPassphrase) || errors.Is(err, ErrTampered)) {
		err = fmt.Errorf("%w (config and config.bak differ: one of them may be damaged)", err)
	}
	return mk, err
}

// unlock returns the index of the slot that opened, too.
func (c *Config) unlock(passphrase []byte) (*keys.MasterKey, int, error) {
	if len(passphrase) == 0 {
		return nil, 0, ErrEmptyPassphrase
	}
	failed := ErrPassphrase
	for i := range c.Slots {
		mk, err := c.Slots[i].unwrap(c.VaultID, passphrase, c.Derive)
		switch {
		case err == nil:
			ring := keys.NewRing(mk, c.VaultID)
			err = c.authenticate(ring)
			ring.Destroy()
			if err != nil {
				mk.Destroy()
				return nil, 0, err
			}
			return mk, i, nil
		case errors.Is(err, ErrKDF):
			failed = err // another slot may be within this machine's means
		case !errors.Is(err, ErrPassphrase):
			return nil, 0, err
		}
	}
	return nil, 0, failed
}

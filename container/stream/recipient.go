package stream

import (
	"errors"

	"filippo.io/age"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
)

// A Recipient is who can open a stream: it makes one key slot. What opens the slot is a vault.Secret: vault.Passphrase, vault.KeyFile or vault.Identities.
type Recipient interface {
	slot(c *vault.Config, key *keys.MasterKey) (vault.Slot, error)
}

// ToPassphrase lets a passphrase open the stream; a zero k stands for vault.DefaultKDF, a nil derive for vault.DeriveInProcess. The passphrase is the
// caller's to wipe, after NewWriter.
func ToPassphrase(passphrase []byte, k vault.KDF, derive vault.Deriver) Recipient {
	if k == (vault.KDF{}) {
		k = vault.DefaultKDF()
	}
	return toPassphrase{passphrase, k, derive}
}

type toPassphrase struct {
	passphrase []byte
	kdf        vault.KDF
	derive     vault.Deriver
}

func (r toPassphrase) slot(c *vault.Config, key *keys.MasterKey) (vault.Slot, error) {
	if !bounded(r.kdf) {
		return vault.Slot{}, vault.ErrKDF
	}
	c.Derive = r.derive
	return c.PassphraseSlot(key, r.passphrase, r.kdf)
}

// ToKeyFile lets the contents of a key file, 32 bytes to 64 KiB of random bytes, open the stream.
func ToKeyFile(contents []byte) Recipient { return toKeyFile(contents) }

type toKeyFile []byte

func (r toKeyFile) slot(c *vault.Config, key *keys.MasterKey) (vault.Slot, error) {
	return c.KeyFileSlot(key, r)
}

// ToAge lets an age recipient open the stream. Nothing in the stream says which it is.
func ToAge(r age.Recipient) Recipient { return toAge{r} }

type toAge struct{ r age.Recipient }

// slot gives a name that the slot of a vault would have to carry; that of a stream has none.
func (r toAge) slot(c *vault.Config, key *keys.MasterKey) (vault.Slot, error) {
	if r.r == nil {
		return vault.Slot{}, vault.ErrRecipient
	}
	return c.AgeSlot(key, "age1stream", r.r)
}

// makeSlots wraps the stream key for everybody.
func makeSlots(id keys.VaultID, key *keys.MasterKey, to []Recipient) ([]vault.Slot, error) {
	if len(to) < 1 || len(to) > maxSlots {
		return nil, ErrRecipients
	}
	slots := make([]vault.Slot, 0, len(to))
	for _, r := range to {
		if r == nil {
			return nil, errors.New("stream: a recipient is nil")
		}
		s, err := r.slot(&vault.Config{VaultID: id}, key)
		if err != nil {
			return nil, err
		}
		slots = append(slots, s)
	}
	if !onePassphrase(slots) {
		return nil, ErrRecipients
	}
	return slots, nil
}

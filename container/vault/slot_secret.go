package vault

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container/keys"
)

// A Secret opens key slots of one kind: Passphrase, KeyFile or Identities makes one. It refers to what it was made from, which
// stays the caller's to wipe.
type Secret interface {
	kind() string
	// check says that it cannot open any slot.
	check() error
	// wrong is the error of a secret that is no slot's.
	wrong() error
	// derive returns key-encrypting key ‖ commitment for s, which the caller wipes.
	derive(s *Slot, derive Deriver) ([]byte, error)
}

// Passphrase is the secret of a passphrase slot: any bytes, at least one.
func Passphrase(p []byte) Secret { return passphrase(p) }

type passphrase []byte

func (passphrase) kind() string { return KindPassphrase }
func (passphrase) wrong() error { return ErrPassphrase }

func (p passphrase) check() error {
	if len(p) == 0 {
		return ErrEmptyPassphrase
	}
	return nil
}

// derive checks the parameters, whoever set them.
func (p passphrase) derive(s *Slot, derive Deriver) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := s.KDF.checkMachine(); err != nil {
		return nil, fmt.Errorf("vault: key slot: %w", err)
	}
	if derive == nil {
		derive = DeriveInProcess
	}
	a, err := derive(p, s.Salt[:], s.KDF)
	if err != nil {
		return nil, err
	}
	if len(a) != derivedSize {
		clear(a)
		return nil, errors.New("vault: key derivation: wrong length")
	}
	return a, nil
}

// Sizes of a key file in bytes. All of the file counts. There is no slow derivation behind it: it has to be random, which its
// length alone cannot tell.
const (
	MinKeyFile = 32
	MaxKeyFile = 64 << 10
)

// KeyFile is the secret of a key file slot: the whole contents of the file.
func KeyFile(contents []byte) Secret { return keyFile(contents) }

type keyFile []byte

func (keyFile) kind() string { return KindKeyFile }
func (keyFile) wrong() error { return ErrKeyFile }

func (f keyFile) check() error {
	if len(f) < MinKeyFile || len(f) > MaxKeyFile {
		return fmt.Errorf("vault: key file of %d bytes, want %d to %d: %w", len(f), MinKeyFile, MaxKeyFile, ErrKeyFileSize)
	}
	return nil
}

func (f keyFile) derive(s *Slot, _ Deriver) ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return expand(f, s)
}

// expand derives from a secret of full entropy: HKDF-SHA256(secret, salt, label of the kind, 64).
func expand(secret []byte, s *Slot) ([]byte, error) {
	a, err := hkdf.Key(sha256.New, secret, s.Salt[:], slotLabels[s.Kind], derivedSize)
	if err != nil {
		return nil, fmt.Errorf("vault: derive key: %w", err)
	}
	return a, nil
}

// PassphraseSlot wraps mk, the master key of c, under a passphrase. AddSlot stores the slot.
func (c *Config) PassphraseSlot(mk *keys.MasterKey, p []byte, k KDF) (Slot, error) {
	return newSlot(mk, c.VaultID, p, k, c.Derive, thisSecond())
}

// KeyFileSlot wraps mk, the master key of c, under the contents of a key file. AddSlot stores the slot.
func (c *Config) KeyFileSlot(mk *keys.MasterKey, contents []byte) (Slot, error) {
	s := emptySlot(KindKeyFile, thisSecond())
	return s, s.wrap(mk, c.VaultID, KeyFile(contents), nil)
}

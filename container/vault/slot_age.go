package vault

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/cofferfs/coffer/container/keys"
)

// An age slot holds an age file (age-encryption.org/v1) for one recipient, whose plaintext is 32 random bytes: what a key file is
// to a key file slot. The master key itself is wrapped as there, so that it is bound to vault and slot and committed to, neither of
// which an age file does.
const (
	ageSecretSize = 32
	maxRecipient  = 8 << 10  // letters; the post-quantum hybrid has about 2000
	maxAgeFile    = 64 << 10 // bytes
)

// Identities is the secret of an age slot. An identity of a plugin runs its program for each slot.
func Identities(ids ...age.Identity) Secret { return identities(ids) }

type identities []age.Identity

func (identities) kind() string { return KindAge }
func (identities) wrong() error { return ErrIdentity }

func (ids identities) check() error {
	if len(ids) == 0 {
		return ErrIdentity
	}
	return nil
}

func (ids identities) derive(s *Slot, _ Deriver) ([]byte, error) {
	secret, err := ids.open(s.AgeFile)
	defer clear(secret)
	if err != nil {
		return nil, err
	}
	return expand(secret, s)
}

// open decrypts the age file. One that decrypts to something else than a secret is not authentic: its header and contents are
// made by whoever knows the recipient.
func (ids identities) open(file []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(file), ids...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, ErrIdentity
	case err != nil:
		return nil, fmt.Errorf("vault: age slot: %w: %w", ErrAgeFailed, err)
	}
	secret, err := io.ReadAll(io.LimitReader(r, ageSecretSize+1))
	if err != nil || len(secret) != ageSecretSize {
		clear(secret)
		return nil, fmt.Errorf("vault: age slot: contents: %w", ErrTampered)
	}
	return secret, nil
}

// AgeSlot wraps mk, the master key of c, for an age recipient, of which text is the encoding. AddSlot stores the slot. The errors
// besides the package's are those of a recipient's plugin.
func (c *Config) AgeSlot(mk *keys.MasterKey, text string, to age.Recipient) (Slot, error) {
	s := emptySlot(KindAge, thisSecond())
	s.Recipient = text
	if err := checkRecipient(text); err != nil {
		return s, err
	}
	secret := make([]byte, ageSecretSize)
	defer clear(secret)
	rand.Read(secret)
	var err error
	if s.AgeFile, err = encryptTo(to, secret); err != nil {
		return s, err
	}
	return s, s.wrap(mk, c.VaultID, ageSecret(secret), nil)
}

func encryptTo(to age.Recipient, secret []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to)
	if err == nil {
		_, err = w.Write(secret)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil && b.Len() > maxAgeFile {
		err = fmt.Errorf("more than %d bytes", maxAgeFile)
	}
	if err != nil {
		return nil, fmt.Errorf("vault: encrypt to the recipient: %w: %w", ErrAgeFailed, err)
	}
	return b.Bytes(), nil
}

// ageSecret is what is inside of an age file, known while a slot is made.
type ageSecret []byte

func (ageSecret) kind() string                                { return KindAge }
func (ageSecret) wrong() error                                { return ErrIdentity }
func (ageSecret) check() error                                { return nil }
func (a ageSecret) derive(s *Slot, _ Deriver) ([]byte, error) { return expand(a, s) }

// checkRecipient checks the form that all encodings of recipients have, and no more: which plugins there are is not known here.
func checkRecipient(text string) error {
	rest, ok := strings.CutPrefix(text, "age1")
	odd := strings.ContainsFunc(rest, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("+-._", r)
	})
	if !ok || rest == "" || odd || len(text) > maxRecipient {
		return fmt.Errorf("vault: %w", ErrRecipient)
	}
	return nil
}

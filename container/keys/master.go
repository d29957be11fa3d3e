package keys

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// MasterKeySize is the length of the vault master key in bytes.
const MasterKeySize = 32

// ErrKeySize says that a vault master key is not MasterKeySize bytes long.
var ErrKeySize = errors.New("vault master key is not 32 bytes")

// A MasterKey is the vault master key: it opens everything in a vault. Its
// memory is locked and left out of core dumps where the system allows it. The
// owner calls Destroy when it is done. Safe for concurrent use, with the
// exception that Bytes states.
type MasterKey struct {
	s *secret
}

// NewMasterKey draws a vault master key.
func NewMasterKey() *MasterKey {
	mk := &MasterKey{newSecret(MasterKeySize)}
	mk.s.use(func(b []byte) { rand.Read(b) })
	return mk
}

// MasterKeyFrom copies a vault master key of MasterKeySize bytes; clearing b is
// the caller's. The error is ErrKeySize.
func MasterKeyFrom(b []byte) (*MasterKey, error) {
	if len(b) != MasterKeySize {
		return nil, fmt.Errorf("keys: %w", ErrKeySize)
	}
	mk := &MasterKey{newSecret(MasterKeySize)}
	mk.s.use(func(dst []byte) { copy(dst, b) })
	return mk, nil
}

// Bytes returns the key itself, not a copy; nil after Destroy. Use it at once
// and do not keep it: reading the slice after Destroy ends the process with a
// fault. So Bytes and what follows must not run together with Destroy.
func (mk *MasterKey) Bytes() (b []byte) {
	mk.s.use(func(s []byte) { b = s })
	return b
}

// Destroy wipes the key and frees its memory. What was derived from it stays. A
// second call does nothing.
func (mk *MasterKey) Destroy() { mk.s.destroy() }

// String hides the key from %v and from logs.
func (mk *MasterKey) String() string { return "vault master key" }

// GoString hides the key from %#v.
func (mk *MasterKey) GoString() string { return mk.String() }

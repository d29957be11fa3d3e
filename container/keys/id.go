package keys

import (
	"crypto/rand"
	"encoding/hex"
)

// IDSize is the length of a VaultID and an ObjectID in bytes.
const IDSize = 16

// A VaultID is drawn once, when a vault is created. It is public, and the
// object id of the vault's root directory.
type VaultID [IDSize]byte

// An ObjectID names one file (then it is its file id), directory or other
// object of a vault for as long as it lives, whatever its names. It is drawn at
// creation and is no secret, but stands sealed in names and clear in headers
// only.
type ObjectID [IDSize]byte

// RandomVaultID draws a vault id.
func RandomVaultID() (id VaultID) {
	rand.Read(id[:]) // does not fail: without randomness the process ends
	return id
}

// RandomObjectID draws an object id.
func RandomObjectID() (id ObjectID) {
	rand.Read(id[:])
	return id
}

// Root returns the object id of the root directory.
func (id VaultID) Root() ObjectID { return ObjectID(id) }

// String returns the 32 lower-case hex digits of the id.
func (id VaultID) String() string { return hex.EncodeToString(id[:]) }

// String returns the 32 lower-case hex digits of the id.
func (id ObjectID) String() string { return hex.EncodeToString(id[:]) }

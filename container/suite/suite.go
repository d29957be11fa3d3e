package suite

import (
	"errors"
	"fmt"
)

// Sizes in bytes, the same for every suite.
const (
	KeySize   = 32
	NonceSize = 24
	TagSize   = 16
)

// An ID is the number of a suite in headers and frame headers (FORMAT.md,
// section 3.1).
type ID uint8

// The suites of format version 1.
const (
	XAES256GCM        ID = 1 // the default: AES instructions are everywhere that Coffer runs well
	XChaCha20Poly1305 ID = 2 // for processors without them
)

var (
	// ErrAuth says that a ciphertext, its tag, nonce or associated data is not
	// what was sealed under the key, or that the key is another one.
	ErrAuth = errors.New("authentication failed")

	// ErrUnknown says that a name or number stands for no suite.
	ErrUnknown = errors.New("unknown suite")

	// ErrKeySize says that a key is not KeySize bytes long.
	ErrKeySize = errors.New("suite key is not 32 bytes")

	// ErrNonceSize says that a nonce is not NonceSize bytes long.
	ErrNonceSize = errors.New("suite nonce is not 24 bytes")
)

// Parse returns the suite with the given name, as it stands in config and on
// the command line. The error wraps ErrUnknown.
func Parse(name string) (ID, error) {
	for _, id := range []ID{XAES256GCM, XChaCha20Poly1305} {
		if name == id.String() {
			return id, nil
		}
	}
	return 0, fmt.Errorf("suite: %w %q", ErrUnknown, name)
}

// String returns the name that Parse reads; for an unknown suite its number.
func (id ID) String() string {
	switch id {
	case XAES256GCM:
		return "xaes-256-gcm"
	case XChaCha20Poly1305:
		return "xchacha20-poly1305"
	}
	return fmt.Sprintf("suite(%d)", uint8(id))
}

// Valid reports whether format version 1 has the suite.
func (id ID) Valid() bool { return id == XAES256GCM || id == XChaCha20Poly1305 }

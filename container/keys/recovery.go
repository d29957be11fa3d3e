package keys

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

const (
	recoveryLabel    = "coffer recovery v1"
	recoveryAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's

	recoveryCheckSize = 3  // bytes of SHA-256 behind the key
	recoveryGroup     = 4  // characters between two dashes
	recoveryLength    = 56 // characters without dashes: 35 bytes are 280 bits, so none is spare
)

var (
	// ErrRecoveryChecksum says that a recovery key has the right length and
	// alphabet but was mistyped, or its groups swapped.
	ErrRecoveryChecksum = errors.New("recovery key is mistyped: its checksum does not match")

	// ErrRecoveryText says that a text is no recovery key: too long, too short
	// or with characters that are in none.
	ErrRecoveryText = errors.New("not a recovery key")
)

var recoveryEncoding = base32.NewEncoding(recoveryAlphabet).WithPadding(base32.NoPadding)

// EncodeRecovery writes a vault master key of MasterKeySize bytes as a recovery
// key, 14 groups of four characters joined by dashes (FORMAT.md, section 9). It
// is as secret as the key. It panics on a key of another length.
func EncodeRecovery(vmk []byte) string {
	if len(vmk) != MasterKeySize {
		panic("keys: " + ErrKeySize.Error())
	}
	check := recoveryCheck(vmk)
	raw := append(append(make([]byte, 0, MasterKeySize+recoveryCheckSize), vmk...), check[:]...)
	text := recoveryEncoding.EncodeToString(raw)
	clear(raw)

	var s strings.Builder
	s.Grow(recoveryLength + recoveryLength/recoveryGroup)
	for i := 0; i < len(text); i += recoveryGroup {
		if i > 0 {
			s.WriteByte('-')
		}
		s.WriteString(text[i : i+recoveryGroup])
	}
	return s.String()
}

// DecodeRecovery reads what EncodeRecovery wrote, as people type it: case,
// white space and dashes do not matter, I and L are read as 1 and O as 0. It
// returns the vault master key, which the caller clears after use. The error
// wraps ErrRecoveryChecksum or ErrRecoveryText and quotes nothing of the text.
func DecodeRecovery(s string) ([]byte, error) {
	var text [recoveryLength]byte
	defer clear(text[:])
	n := 0
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.Is(unicode.Pd, r) {
			continue // Pd: word processors make other dashes of ours
		}
		c, ok := recoveryChar(r)
		if !ok {
			return nil, fmt.Errorf("keys: %w: character %d is not in its alphabet", ErrRecoveryText, n+1)
		}
		if n < len(text) {
			text[n] = c
		}
		n++
	}
	if n != len(text) {
		return nil, fmt.Errorf("keys: %w: %d characters instead of %d", ErrRecoveryText, n, len(text))
	}

	raw := make([]byte, MasterKeySize+recoveryCheckSize)
	if _, err := recoveryEncoding.Decode(raw, text[:]); err != nil {
		return nil, fmt.Errorf("keys: %w", ErrRecoveryText) // cannot be: the alphabet was checked
	}
	check := recoveryCheck(raw[:MasterKeySize])
	if subtle.ConstantTimeCompare(check[:], raw[MasterKeySize:]) != 1 {
		clear(raw)
		return nil, fmt.Errorf("keys: %w", ErrRecoveryChecksum)
	}
	return raw[:MasterKeySize:MasterKeySize], nil
}

// recoveryChar maps a typed character to the one of the alphabet that it stands
// for.
func recoveryChar(r rune) (byte, bool) {
	if r >= unicode.MaxASCII {
		return 0, false
	}
	c := byte(unicode.ToUpper(r))
	switch c {
	case 'I', 'L':
		c = '1'
	case 'O':
		c = '0'
	}
	return c, strings.IndexByte(recoveryAlphabet, c) >= 0
}

func recoveryCheck(vmk []byte) [recoveryCheckSize]byte {
	b := append(append(make([]byte, 0, len(recoveryLabel)+MasterKeySize), recoveryLabel...), vmk...)
	sum := sha256.Sum256(b)
	clear(b)
	return [recoveryCheckSize]byte(sum[:])
}

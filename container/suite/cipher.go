package suite

import (
	"crypto/cipher"
	"crypto/rand"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// A Cipher opens and, through a Sealer, seals under one key of one suite. All
// its methods are safe for concurrent use. Its key schedule lives on the heap
// until the Cipher is collected.
type Cipher struct {
	xaes   *xaes       // XAES256GCM only
	chacha cipher.AEAD // XChaCha20Poly1305 only
}

// New returns a Cipher for a key of KeySize bytes, which it does not keep. The
// error wraps ErrUnknown or ErrKeySize.
func New(id ID, key []byte) (*Cipher, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("suite: %w", ErrKeySize)
	}
	c := new(Cipher)
	var err error
	switch id {
	case XAES256GCM:
		c.xaes, err = newXAES(key)
	case XChaCha20Poly1305:
		c.chacha, err = chacha20poly1305.NewX(key)
	default:
		err = fmt.Errorf("%w %d", ErrUnknown, uint8(id))
	}
	if err != nil {
		return nil, fmt.Errorf("suite: %w", err)
	}
	return c, nil
}

// Open authenticates and decrypts ciphertext‖tag, appends the plaintext to dst
// and returns the longer slice. It writes to no other memory and keeps none.
// The overlap rule is that of crypto/cipher: to open in place, pass
// ciphertextAndTag[:0] as dst; otherwise the two must not overlap.
//
// A forgery gives ErrAuth, and what dst had room for is then zeroed up to the
// plaintext length. ErrNonceSize is a caller's mistake. Nothing is allocated
// when dst has room and the prefix of the nonce was met lately.
func (c *Cipher) Open(dst, nonce, ciphertextAndTag, ad []byte) ([]byte, error) {
	if len(nonce) != NonceSize {
		return nil, ErrNonceSize
	}
	aead := c.chacha
	if c.xaes != nil {
		k, err := c.xaes.lookup((*[prefixSize]byte)(nonce))
		if err != nil {
			return nil, err
		}
		aead, nonce = k.aead, nonce[prefixSize:]
	}
	out, err := aead.Open(dst, nonce, ciphertextAndTag, ad)
	if err != nil {
		return nil, ErrAuth // the only error an AEAD has
	}
	return out, nil
}

// A Sealer seals the frames of one flush, for XAES-256-GCM under one prefix.
// Take a new one for each flush: 2^32 frames is the most that one prefix may
// see, since its suffixes are 12 random bytes. Safe for concurrent use.
type Sealer struct {
	aead   cipher.AEAD
	whole  bool // the AEAD takes the whole nonce, not the suffix
	prefix [prefixSize]byte
}

// Sealer draws a prefix and derives its subkey, where the suite has one.
func (c *Cipher) Sealer() (*Sealer, error) {
	if c.xaes == nil {
		return &Sealer{aead: c.chacha, whole: true}, nil
	}
	s := new(Sealer)
	rand.Read(s.prefix[:])
	k, err := c.xaes.derive(&s.prefix)
	if err != nil {
		return nil, fmt.Errorf("suite: %w", err)
	}
	// What is sealed is often read back at once.
	c.xaes.remember(k)
	s.aead = k.aead
	return s, nil
}

// Seal draws a fresh nonce into *nonce, encrypts plaintext under it, appends
// ciphertext‖tag to dst and returns the longer slice. It keeps none of its
// arguments. The overlap rule is that of crypto/cipher: to seal in place, pass
// plaintext[:0] as dst, with TagSize bytes of room behind the plaintext.
//
// Nothing is allocated when dst has room; but nonce escapes, so let it point
// into memory that is on the heap anyway, as a segment record is. The error is
// always nil today: the system's randomness does not fail, it ends the process.
func (s *Sealer) Seal(dst, plaintext, ad []byte, nonce *[NonceSize]byte) ([]byte, error) {
	if s.whole {
		rand.Read(nonce[:])
		return s.aead.Seal(dst, nonce[:], plaintext, ad), nil
	}
	copy(nonce[:], s.prefix[:])
	rand.Read(nonce[prefixSize:])
	return s.aead.Seal(dst, nonce[prefixSize:], plaintext, ad), nil
}

// SealWithNonce seals once under a nonce that the caller chose, and appends to
// dst. It is for test vectors, and for key slots, whose key is used for one
// nonce only; frames go through a Sealer. Safe for concurrent use.
func SealWithNonce(id ID, key, nonce, dst, plaintext, ad []byte) ([]byte, error) {
	c, err := New(id, key)
	if err != nil {
		return nil, err
	}
	if len(nonce) != NonceSize {
		return nil, fmt.Errorf("suite: %w", ErrNonceSize)
	}
	aead := c.chacha
	if c.xaes != nil {
		k, err := c.xaes.derive((*[prefixSize]byte)(nonce))
		if err != nil {
			return nil, fmt.Errorf("suite: %w", err)
		}
		aead, nonce = k.aead, nonce[prefixSize:]
	}
	return aead.Seal(dst, nonce, plaintext, ad), nil
}

package siv

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Sizes in bytes.
const (
	KeySize  = 64
	Overhead = blockSize // what sealing adds: the SIV, in front

	blockSize = aes.BlockSize
)

var (
	// ErrAuth says that sealed bytes or their associated data are not what was
	// sealed under the key, or that the key is another one.
	ErrAuth = errors.New("authentication failed")

	// ErrKeySize says that a key is not KeySize bytes long.
	ErrKeySize = errors.New("siv key is not 64 bytes")
)

// A Cipher seals and opens under one key. Safe for concurrent use. Its key
// schedules live on the heap until the Cipher is collected.
type Cipher struct {
	mac    cipher.Block // K1
	ctr    cipher.Block // K2
	k1, k2 block        // the CMAC subkeys for a complete and for a padded last block
	zero   block        // dbl(CMAC(0)): S2V before it meets the associated data
	work   sync.Pool    // *scratch
}

// scratch is what a call hands to cipher.Block. Passing memory through that
// interface moves it to the heap, so it is pooled and nothing else is passed:
// that keeps the slices of callers on their stacks.
type scratch [blockSize]byte

// New returns a Cipher for a key of 64 bytes, which it does not keep. The error
// is ErrKeySize.
func New(key []byte) (*Cipher, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("siv: %w", ErrKeySize)
	}
	return newCipher(key)
}

// newCipher accepts every key size of the RFC (32, 48 and 64 bytes): its
// vectors use the smallest.
func newCipher(key []byte) (*Cipher, error) {
	mac, err := aes.NewCipher(key[:len(key)/2])
	if err != nil {
		return nil, fmt.Errorf("siv: %w", err)
	}
	ctr, err := aes.NewCipher(key[len(key)/2:])
	if err != nil {
		return nil, fmt.Errorf("siv: %w", err)
	}
	c := &Cipher{mac: mac, ctr: ctr}
	w := new(scratch)
	c.k1 = w.encrypt(mac, block{}).double()
	c.k2 = c.k1.double()
	c.zero = c.cmac(w, make([]byte, blockSize), block{}).double()
	c.work.New = func() any { return new(scratch) }
	return c, nil
}

// Seal appends the SIV and the ciphertext of plaintext to dst, len(plaintext) +
// Overhead bytes, and returns the longer slice. plaintext must not overlap what
// dst has room for. Nothing is allocated where dst has room; no argument is
// kept.
func (c *Cipher) Seal(dst, ad, plaintext []byte) []byte {
	n := len(dst)
	dst = slices.Grow(dst, Overhead+len(plaintext))[:n+Overhead+len(plaintext)]
	out := dst[n:]

	w := c.work.Get().(*scratch)
	v := c.s2v(w, ad, plaintext)
	v.store(out)
	c.xorKeyStream(w, out[Overhead:], plaintext, v)
	c.release(w)
	return dst
}

// Open authenticates and decrypts what Seal made, appends the plaintext to dst
// and returns the longer slice. sealed must not overlap what dst has room for.
// The error is ErrAuth, and what was written behind dst is then zeroed. Nothing
// is allocated where dst has room; no argument is kept.
func (c *Cipher) Open(dst, ad, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrAuth
	}
	n := len(dst)
	dst = slices.Grow(dst, len(sealed)-Overhead)[:n+len(sealed)-Overhead]
	out := dst[n:]

	w := c.work.Get().(*scratch)
	c.xorKeyStream(w, out, sealed[Overhead:], load(sealed))
	var v [blockSize]byte
	c.s2v(w, ad, out).store(v[:])
	c.release(w)
	if subtle.ConstantTimeCompare(v[:], sealed[:Overhead]) != 1 {
		clear(out)
		return nil, ErrAuth
	}
	return dst, nil
}

// release clears w, whose last key stream block uncovers plaintext.
func (c *Cipher) release(w *scratch) {
	clear(w[:])
	c.work.Put(w)
}

package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"sync/atomic"
)

// prefixSize is the part of an XAES nonce that selects the subkey; what
// follows is the nonce of AES-GCM.
const prefixSize = 12

// cachedPrefixes bounds the subkeys a Cipher remembers, about 1 KiB each. A
// file written in one go has one prefix per flush, so a few cover a scan.
const cachedPrefixes = 8

// xaes is XAES-256-GCM under one key: the key schedule, and the subkeys of the
// prefixes met last.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte // the CMAC subkey K1 of the key

	// recent is read and replaced without a lock; a lost update costs one
	// derivation, nothing else. next is the slot that is replaced next.
	recent [cachedPrefixes]atomic.Pointer[subkey]
	next   atomic.Uint32
}

// subkey is the AES-GCM that one prefix selects. Immutable.
type subkey struct {
	prefix [prefixSize]byte
	aead   cipher.AEAD
}

func newXAES(key []byte) (*xaes, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	// Doubling in GF(2^128), as CMAC does for a last block that is complete:
	// every message of the derivation is exactly one block.
	hi, lo := binary.BigEndian.Uint64(x.k1[:8]), binary.BigEndian.Uint64(x.k1[8:])
	carry := hi >> 63
	binary.BigEndian.PutUint64(x.k1[:8], hi<<1|lo>>63)
	binary.BigEndian.PutUint64(x.k1[8:], lo<<1^carry*0x87)
	return x, nil
}

// derive computes the AES-GCM of a prefix: NIST SP 800-108r1 in counter mode
// with CMAC, label 'X', context the prefix. It allocates.
//
//	0  2  counter, big-endian: 1 gives the first half of the subkey, 2 the second
//	2  1  label 'X'
//	3  1  0
//	4 12  prefix
func (x *xaes) derive(prefix *[prefixSize]byte) (*subkey, error) {
	buf := new([2 * aes.BlockSize]byte)
	for i := range 2 {
		m := buf[i*aes.BlockSize:][:aes.BlockSize]
		m[1] = byte(i + 1)
		m[2] = 'X'
		copy(m[4:], prefix[:])
		for j := range m {
			m[j] ^= x.k1[j]
		}
		x.block.Encrypt(m, m)
	}
	block, err := aes.NewCipher(buf[:])
	clear(buf[:])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &subkey{prefix: *prefix, aead: aead}, nil
}

// lookup returns the AES-GCM of a prefix, from the ones met last or derived
// now and remembered.
func (x *xaes) lookup(prefix *[prefixSize]byte) (*subkey, error) {
	for i := range x.recent {
		if k := x.recent[i].Load(); k != nil && k.prefix == *prefix {
			return k, nil
		}
	}
	k, err := x.derive(prefix)
	if err != nil {
		return nil, err
	}
	x.remember(k)
	return k, nil
}

func (x *xaes) remember(k *subkey) {
	x.recent[(x.next.Add(1)-1)%cachedPrefixes].Store(k)
}

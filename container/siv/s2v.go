package siv

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// block is one AES block as two big-endian halves: the form in which doubling
// and xoring need no loop.
type block struct{ hi, lo uint64 }

// load reads the first 16 bytes of b.
func load(b []byte) block {
	_ = b[blockSize-1]
	return block{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// store writes the first 16 bytes of dst.
func (b block) store(dst []byte) {
	_ = dst[blockSize-1]
	binary.BigEndian.PutUint64(dst, b.hi)
	binary.BigEndian.PutUint64(dst[8:], b.lo)
}

func (b block) xor(o block) block { return block{b.hi ^ o.hi, b.lo ^ o.lo} }

// double is dbl of RFC 5297, section 2.3: multiplication by x in GF(2^128),
// without a branch on the secret bit.
func (b block) double() block {
	return block{b.hi<<1 | b.lo>>63, b.lo<<1 ^ (b.hi>>63)*0x87}
}

func (w *scratch) encrypt(c cipher.Block, b block) block {
	b.store(w[:])
	c.Encrypt(w[:], w[:])
	return load(w[:])
}

// s2v is S2V(ad, plaintext) of RFC 5297, section 2.4.
func (c *Cipher) s2v(w *scratch, ad, plaintext []byte) block {
	d := c.zero.xor(c.cmac(w, ad, block{}))
	if len(plaintext) >= blockSize {
		return c.cmac(w, plaintext, d) // T = plaintext xorend D
	}
	var padded [blockSize]byte
	padded[copy(padded[:], plaintext)] = 0x80
	t := d.double().xor(load(padded[:]))
	return w.encrypt(c.mac, t.xor(c.k1)) // CMAC of the one complete block T
}

// cmac is AES-CMAC (RFC 4493, with the key size of c.mac) of m, after end was
// xored onto the last 16 bytes of m. Where end is not zero, m must have at
// least 16.
func (c *Cipher) cmac(w *scratch, m []byte, end block) block {
	// The last 16 bytes may span the last two blocks, so these two are
	// assembled apart; all before them is plain CBC-MAC.
	cut := 0
	if len(m) > 2*blockSize {
		cut = (len(m) - blockSize - 1) / blockSize * blockSize
	}
	var state block
	for i := 0; i < cut; i += blockSize {
		state = w.encrypt(c.mac, state.xor(load(m[i:])))
	}

	var tail [2 * blockSize]byte
	n := copy(tail[:], m[cut:])
	if n >= blockSize {
		load(tail[n-blockSize:]).xor(end).store(tail[n-blockSize:])
	}
	last := tail[:blockSize]
	if n > blockSize {
		state = w.encrypt(c.mac, state.xor(load(tail[:])))
		n, last = n-blockSize, tail[blockSize:]
	}
	mask := c.k1
	if n < blockSize {
		last[n] = 0x80
		mask = c.k2
	}
	return w.encrypt(c.mac, state.xor(load(last)).xor(mask))
}

// xorKeyStream is AES-CTR from v with bits 31 and 63 cleared (section 2.5),
// which are both in its lower half.
// With bit 31 clear, 2^31 blocks are counted in the last word without a carry.
func (c *Cipher) xorKeyStream(w *scratch, dst, src []byte, v block) {
	v.lo &^= 1<<63 | 1<<31
	for len(src) >= blockSize {
		w.encrypt(c.ctr, v).xor(load(src)).store(dst)
		dst, src = dst[blockSize:], src[blockSize:]
		v.lo++
	}
	if len(src) > 0 {
		w.encrypt(c.ctr, v)
		subtle.XORBytes(dst, src, w[:])
	}
}

// Package crc32c computes with CRC32C values (Castagnoli, RFC 3720), as hash/crc32 gives them: what is known of parts says what holds for the whole, so
// that no byte is looked at twice.
//
// A CRC is the remainder of the bytes, seen as a polynomial over GF(2), by a fixed polynomial of degree 32. n zero bytes behind them multiply it by x^8n,
// and that of two strings, one behind the other, is the sum of the first one's, moved so, and of the second one's.
package crc32c

import "hash/crc32"

// powers holds x^(8·2^k) in the remainders, for strings of fewer than 2^len(powers) bytes: bit 31 is that of x^0, as in hash/crc32.
var powers = func() (p [40]uint32) {
	p[0] = 1 << 23
	for k := 1; k < len(p); k++ {
		p[k] = multiply(p[k-1], p[k-1])
	}
	return p
}()

// Combine returns the CRC32C of a‖b from that of a, and that and the length of b.
func Combine(a, b uint32, n int64) uint32 { return shift(a, n) ^ b }

// Fixed is Combine for strings b of one length, in a few lookups, and its inverse.
type Fixed [4][256]uint32

// NewFixed returns the tables for a length.
func NewFixed(n int64) *Fixed {
	f := new(Fixed)
	for i := range 32 { // a product is a sum over the bits of one factor
		bit, moved := i%8, shift(1<<i, n)
		for j := range 1 << bit {
			f[i/8][1<<bit+j] = f[i/8][j] ^ moved
		}
	}
	return f
}

// Combine is Combine for b of that length.
func (f *Fixed) Combine(a, b uint32) uint32 {
	return f[0][byte(a)] ^ f[1][byte(a>>8)] ^ f[2][byte(a>>16)] ^ f[3][a>>24] ^ b
}

// Rest returns the CRC32C of b from those of a and of a‖b.
func (f *Fixed) Rest(a, both uint32) uint32 { return f.Combine(a, both) }

// shift multiplies a remainder by x^8n. The inversions of hash/crc32 before and behind cancel out in both uses.
func shift(crc uint32, n int64) uint32 {
	for k := 0; n > 0; k++ {
		if n&1 != 0 {
			crc = multiply(powers[k], crc)
		}
		n >>= 1
	}
	return crc
}

// multiply is the product of two remainders.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}

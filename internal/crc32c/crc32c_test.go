package crc32c

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// TestCombine compares with CRCs of the strings themselves, of lengths around powers of two above all.
func TestCombine(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 300<<10)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	lengths := []int{0, 1, 2, 3, 31, 32, 33, 4095, 4096, 4097, 128 << 10, 100001}
	for range 100 {
		lengths = append(lengths, rng.IntN(150<<10))
	}
	for _, n := range lengths {
		for _, m := range []int{0, 1, 32, 4096, rng.IntN(150 << 10)} {
			a, b := data[:n], data[n:n+m]
			ca, cb, both := crc32.Checksum(a, table), crc32.Checksum(b, table), crc32.Checksum(data[:n+m], table)
			if got := Combine(ca, cb, int64(m)); got != both {
				t.Fatalf("%d and %d bytes: %08x, want %08x", n, m, got, both)
			}
			f := NewFixed(int64(m))
			if f.Combine(ca, cb) != both || f.Rest(ca, both) != cb {
				t.Fatalf("tables for %d bytes behind %d: %08x and %08x, want %08x and %08x", m, n, f.Combine(ca, cb), f.Rest(ca, both), both, cb)
			}
		}
	}
}

// TestLong: zeros are what a long string may be made of without the memory for it.
func TestLong(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	zeros := make([]byte, 1<<20)
	one := crc32.Checksum(zeros, table)
	want, got := one, one
	for k := range 6 {
		for range 1 << k {
			want = crc32.Update(want, table, zeros)
		}
		if got = Combine(got, got, 1<<(20+k)); got != want {
			t.Fatalf("2^%d zeros: %08x, want %08x", 21+k, got, want)
		}
	}
}

func BenchmarkCombine(b *testing.B) {
	b.Run("any", func(b *testing.B) {
		for crc := uint32(1); b.Loop(); {
			crc = Combine(crc, 7, 4096)
		}
	})
	b.Run("fixed", func(b *testing.B) {
		f := NewFixed(4096)
		for crc := uint32(1); b.Loop(); {
			crc = f.Combine(crc, 7)
		}
	})
}

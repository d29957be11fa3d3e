package siv

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testKey() []byte {
	key := make([]byte, KeySize)
	for i := range key {
		key[i] = byte(i)
	}
	return key
}

func newTest(t testing.TB) *Cipher {
	t.Helper()
	c, err := New(testKey())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// RFC 4493, section 4: AES-128-CMAC.
func TestCMACVectors(t *testing.T) {
	key := fromHex(t, "2b7e151628aed2a6abf7158809cf4f3c")
	c, err := newCipher(append(key, key...))
	if err != nil {
		t.Fatal(err)
	}
	m := fromHex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for n, want := range map[int]string{
		0:  "bb1d6929e95937287fa37d129b756746",
		16: "070a16b46b4d4144f79bdd9dd04a287c",
		40: "dfa66747de9ae63030ca32611497c827",
		64: "51f0bebf7e3b9d92fc49741779363cfe",
	} {
		got := make([]byte, blockSize)
		c.cmac(new(scratch), m[:n], block{}).store(got)
		if hex.EncodeToString(got) != want {
			t.Errorf("CMAC of %d bytes: %x, want %s", n, got, want)
		}
	}
}

// RFC 5297, appendix A.1: AES-128, one string of associated data and a
// plaintext shorter than a block, which takes S2V's padding path.
func TestRFC5297Vector(t *testing.T) {
	c, err := newCipher(fromHex(t, "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"))
	if err != nil {
		t.Fatal(err)
	}
	ad := fromHex(t, "101112131415161718191a1b1c1d1e1f2021222324252627")
	pt := fromHex(t, "112233445566778899aabbccddee")
	const want = "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"
	sealed := c.Seal(nil, ad, pt)
	if hex.EncodeToString(sealed) != want {
		t.Errorf("sealed %x, want %s", sealed, want)
	}
	if got, err := c.Open(nil, ad, sealed); err != nil || !bytes.Equal(got, pt) {
		t.Errorf("opened %x, %v", got, err)
	}
}

// Tink's AES-SIV with the same key seals to the same bytes and opens ours, for
// all lengths around the block boundaries and both operands.
func TestAgainstTink(t *testing.T) {
	c := newTest(t)
	oracle, err := subtle.NewAESSIV(testKey())
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.NewChaCha8([32]byte{1})
	ads := []int{0, 1, 15, 16, 17, 31, 32, 33, 40, 48, 64, 100}
	for n := range 300 {
		pt, ad := make([]byte, n), make([]byte, ads[n%len(ads)])
		rng.Read(pt)
		rng.Read(ad)
		sealed := c.Seal(nil, ad, pt)
		want, err := oracle.EncryptDeterministically(pt, ad)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sealed, want) {
			t.Fatalf("%d bytes, %d of associated data: %x, Tink has %x", n, len(ad), sealed, want)
		}
		if got, err := c.Open(nil, ad, want); err != nil || !bytes.Equal(got, pt) {
			t.Fatalf("%d bytes of Tink's do not open: %v", n, err)
		}
	}
}

// The counter of CTR starts anywhere below 2^31 in its last word and is never
// masked while it counts.
func TestCounterCarries(t *testing.T) {
	c := newTest(t)
	src := make([]byte, 64)
	v := block{hi: ^uint64(0), lo: ^uint64(0)}
	long := make([]byte, 64)
	c.xorKeyStream(new(scratch), long, src, v)
	w := new(scratch)
	for i := range 4 {
		want := make([]byte, blockSize)
		w.encrypt(c.ctr, block{v.hi, 0x7fffffff_7fffffff + uint64(i)}).store(want)
		if !bytes.Equal(long[16*i:16*i+16], want) {
			t.Errorf("key stream block %d is not of counter %d", i, i)
		}
	}
}

func TestAppend(t *testing.T) {
	c := newTest(t)
	ad := []byte("ad")
	for _, n := range []int{0, 1, 16, 100} {
		pt := bytes.Repeat([]byte{5}, n)
		sealed := c.Seal([]byte("head"), ad, pt)
		if string(sealed[:4]) != "head" || len(sealed) != 4+n+Overhead {
			t.Fatalf("Seal of %d bytes does not append", n)
		}
		got, err := c.Open([]byte("head"), ad, sealed[4:])
		if err != nil || string(got) != "head"+string(pt) {
			t.Fatalf("Open of %d bytes does not append: %q, %v", n, got, err)
		}
	}
}

func TestKeySize(t *testing.T) {
	for _, n := range []int{0, 32, 48, 63, 65} {
		if _, err := New(make([]byte, n)); !errors.Is(err, ErrKeySize) {
			t.Errorf("key of %d bytes: %v, want ErrKeySize", n, err)
		}
	}
	if _, err := newCipher(make([]byte, 10)); err == nil {
		t.Error("a key that AES does not know passes")
	}
}

// Every bit of the SIV, the ciphertext and the associated data counts, and so
// does every length.
func TestTamper(t *testing.T) {
	c := newTest(t)
	for _, n := range []int{0, 1, 15, 16, 17, 61, 175} {
		pt, ad := bytes.Repeat([]byte{0x5a}, n), bytes.Repeat([]byte{1}, 32)
		sealed := c.Seal(nil, ad, pt)
		for name, b := range map[string][]byte{"sealed": sealed, "associated data": ad} {
			for bit := range 8 * len(b) {
				b[bit/8] ^= 1 << (bit % 8)
				dst := bytes.Repeat([]byte{0xee}, n)
				if got, err := c.Open(dst[:0], ad, sealed); !errors.Is(err, ErrAuth) || got != nil {
					t.Fatalf("%d bytes, %s bit %d flipped: %v", n, name, bit, err)
				}
				if !bytes.Equal(dst, make([]byte, n)) {
					t.Fatalf("%d bytes: Open left plaintext of a forgery behind", n)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		}
		for cut := range len(sealed) {
			if _, err := c.Open(nil, ad, sealed[:cut]); !errors.Is(err, ErrAuth) {
				t.Fatalf("cut to %d bytes: %v", cut, err)
			}
		}
		if _, err := c.Open(nil, ad, append(sealed, 0)); !errors.Is(err, ErrAuth) {
			t.Fatalf("with a trailing byte: %v", err)
		}
		if _, err := c.Open(nil, ad[:31], sealed); !errors.Is(err, ErrAuth) {
			t.Fatalf("with shorter associated data: %v", err)
		}
	}
}

func TestConcurrent(t *testing.T) {
	c := newTest(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				pt, ad := fmt.Appendf(nil, "name %d of worker %d", i, w), fmt.Appendf(nil, "parent %d", i%7)
				if got, err := c.Open(nil, ad, c.Seal(nil, ad, pt)); err != nil || !bytes.Equal(got, pt) {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAllocs(t *testing.T) {
	c := newTest(t)
	ad, pt := make([]byte, 32), make([]byte, 64)
	// Stack memory of the caller stays there: these arrays would count too.
	if n := testing.AllocsPerRun(100, func() {
		var sealed [64 + Overhead]byte
		var opened [64]byte
		s := c.Seal(sealed[:0], ad, pt)
		if _, err := c.Open(opened[:0], ad, s); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Seal and Open allocate %v times", n)
	}
}

// FuzzOpen: nothing panics, and what opens seals to the same bytes again.
func FuzzOpen(f *testing.F) {
	c := newTest(f)
	for _, n := range []int{0, 5, 16, 32, 80} {
		f.Add([]byte("ad"), c.Seal(nil, []byte("ad"), make([]byte, n)))
	}
	f.Add([]byte{}, []byte("short"))
	f.Fuzz(func(t *testing.T, ad, sealed []byte) {
		pt, err := c.Open(nil, ad, sealed)
		if err != nil {
			if !errors.Is(err, ErrAuth) {
				t.Fatalf("not ErrAuth: %v", err)
			}
			// Treated as a plaintext, the same bytes must survive the way there and back.
			got, err := c.Open(nil, ad, c.Seal(nil, ad, sealed))
			if err != nil || !bytes.Equal(got, sealed) {
				t.Fatalf("%d bytes do not come back: %v", len(sealed), err)
			}
			return
		}
		if again := c.Seal(nil, ad, pt); !bytes.Equal(again, sealed) {
			t.Fatalf("seals to %x again, was %x", again, sealed)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	benchmark(b, func(c *Cipher, ad, pt, _, dst []byte) { c.Seal(dst, ad, pt) })
}

func BenchmarkOpen(b *testing.B) {
	benchmark(b, func(c *Cipher, ad, _, sealed, dst []byte) { c.Open(dst, ad, sealed) })
}

func benchmark(b *testing.B, f func(c *Cipher, ad, pt, sealed, dst []byte)) {
	for _, n := range []int{48, 175, 4096} {
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) {
			c := newTest(b)
			ad, pt, dst := make([]byte, 32), make([]byte, n), make([]byte, 0, n+Overhead)
			sealed := c.Seal(nil, ad, pt)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				f(c, ad, pt, sealed, dst)
			}
		})
	}
}

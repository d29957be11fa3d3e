package suite

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"sync"
	"testing"
)

var long = flag.Bool("long", false, "run the million iterations of the accumulated XAES-256-GCM test")

var suites = []ID{XAES256GCM, XChaCha20Poly1305}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	for _, id := range suites {
		if got, err := Parse(id.String()); got != id || err != nil || !id.Valid() {
			t.Errorf("Parse(%q) = %v, %v", id, got, err)
		}
	}
	for _, name := range []string{"", "XAES-256-GCM", "aes-gcm", "suite(3)"} {
		if _, err := Parse(name); !errors.Is(err, ErrUnknown) {
			t.Errorf("Parse(%q): %v, want ErrUnknown", name, err)
		}
	}
	if ID(0).Valid() || ID(3).Valid() || ID(3).String() != "suite(3)" {
		t.Error("an unknown suite passes for a known one")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := New(XAES256GCM, make([]byte, n)); !errors.Is(err, ErrKeySize) {
			t.Errorf("key of %d bytes: %v, want ErrKeySize", n, err)
		}
	}
	for _, id := range []ID{0, 3, 255} {
		if _, err := New(id, make([]byte, KeySize)); !errors.Is(err, ErrUnknown) {
			t.Errorf("suite %d: %v, want ErrUnknown", id, err)
		}
	}
}

// The two vectors of the C2SP specification, and the one of
// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
func TestPublishedVectors(t *testing.T) {
	for _, v := range []struct {
		id                 ID
		key, nonce, pt, ad []byte
		want               string
	}{
		{
			XAES256GCM, bytes.Repeat([]byte{1}, 32), []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM"), nil,
			"ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
		},
		{
			XAES256GCM, bytes.Repeat([]byte{3}, 32), []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM"), []byte("c2sp.org/XAES-256-GCM"),
			"986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
		},
		{
			XChaCha20Poly1305,
			fromHex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"),
			fromHex(t, "404142434445464748494a4b4c4d4e4f5051525354555657"),
			[]byte("Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."),
			fromHex(t, "50515253c0c1c2c3c4c5c6c7"),
			"bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452" +
				"2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52e" +
				"c0875924c1c7987947deafd8780acf49",
		},
	} {
		got, err := SealWithNonce(v.id, v.key, v.nonce, nil, v.pt, v.ad)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != v.want {
			t.Errorf("%v: sealed %x, want %s", v.id, got, v.want)
		}
		c, err := New(v.id, v.key)
		if err != nil {
			t.Fatal(err)
		}
		if pt, err := c.Open(nil, v.nonce, got, v.ad); err != nil || !bytes.Equal(pt, v.pt) {
			t.Errorf("%v: opened %q, %v", v.id, pt, err)
		}
	}
}

// The accumulated test of the C2SP specification: keys, nonces, plaintexts and
// associated data squeezed from one SHAKE-128, ciphertexts absorbed by another.
func TestXAESAccumulated(t *testing.T) {
	iterations, want := 10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
	if *long {
		iterations, want = 1_000_000, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"
	}
	in, out := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	next := func(n int) []byte {
		b := make([]byte, n)
		in.Read(b)
		return b
	}
	for i := range iterations {
		key, nonce := next(KeySize), next(NonceSize)
		pt := next(int(next(1)[0]))
		ad := next(int(next(1)[0]))
		sealed, err := SealWithNonce(XAES256GCM, key, nonce, nil, pt, ad)
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(XAES256GCM, key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Open(nil, nonce, sealed, ad); err != nil || !bytes.Equal(got, pt) {
			t.Fatalf("iteration %d does not open: %v", i, err)
		}
		out.Write(sealed)
	}
	sum := make([]byte, 32)
	out.Read(sum)
	if hex.EncodeToString(sum) != want {
		t.Errorf("after %d iterations: %x, want %s", iterations, sum, want)
	}
}

func newCipher(t testing.TB, id ID) (*Cipher, *Sealer) {
	t.Helper()
	c, err := New(id, bytes.Repeat([]byte{7}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Sealer()
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestSealOpen(t *testing.T) {
	for _, id := range suites {
		c, s := newCipher(t, id)
		for _, n := range []int{0, 1, 15, 16, 17, 4095, 4096, 65536} {
			pt, ad := bytes.Repeat([]byte{0xab}, n), []byte("ad")
			var nonce [NonceSize]byte
			sealed, err := s.Seal([]byte("head"), pt, ad, &nonce)
			if err != nil {
				t.Fatal(err)
			}
			if string(sealed[:4]) != "head" || len(sealed) != 4+n+TagSize {
				t.Fatalf("%v: Seal of %d bytes does not append", id, n)
			}
			got, err := c.Open([]byte("head"), nonce[:], sealed[4:], ad)
			if err != nil || !bytes.Equal(got[4:], pt) || string(got[:4]) != "head" {
				t.Fatalf("%v: %d bytes do not come back: %v", id, n, err)
			}
			// In place, both ways.
			buf := append(make([]byte, 0, n+TagSize), pt...)
			sealed, _ = s.Seal(buf[:0], buf, ad, &nonce)
			if got, err = c.Open(sealed[:0], nonce[:], sealed, ad); err != nil || !bytes.Equal(got, pt) {
				t.Fatalf("%v: %d bytes in place: %v", id, n, err)
			}
		}
	}
}

func TestNonces(t *testing.T) {
	for _, id := range suites {
		c, s := newCipher(t, id)
		seen := map[[NonceSize]byte]bool{}
		var prefix [prefixSize]byte
		for i := range 1000 {
			var nonce [NonceSize]byte
			s.Seal(nil, nil, nil, &nonce)
			if seen[nonce] {
				t.Fatalf("%v: a nonce came twice", id)
			}
			seen[nonce] = true
			same := [prefixSize]byte(nonce[:prefixSize]) == prefix
			if i > 0 && same != (id == XAES256GCM) {
				t.Fatalf("%v: same prefix as before: %v", id, same)
			}
			prefix = [prefixSize]byte(nonce[:prefixSize])
		}
		other, err := c.Sealer()
		if err != nil {
			t.Fatal(err)
		}
		var nonce [NonceSize]byte
		other.Seal(nil, nil, nil, &nonce)
		if [prefixSize]byte(nonce[:prefixSize]) == prefix {
			t.Errorf("%v: two sealers share a prefix", id)
		}
	}
}

// Every bit of the ciphertext, tag, nonce and associated data counts.
func TestTamper(t *testing.T) {
	for _, id := range suites {
		c, s := newCipher(t, id)
		pt, ad := []byte("some plaintext of a frame"), []byte("associated data")
		nonce := new([NonceSize]byte)
		sealed, _ := s.Seal(nil, pt, ad, nonce)
		for name, b := range map[string][]byte{"ciphertext": sealed, "nonce": nonce[:], "associated data": ad} {
			for bit := range 8 * len(b) {
				b[bit/8] ^= 1 << (bit % 8)
				if got, err := c.Open(nil, nonce[:], sealed, ad); !errors.Is(err, ErrAuth) || got != nil {
					t.Fatalf("%v: %s bit %d flipped: %v", id, name, bit, err)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		}
		for n := range len(sealed) {
			if _, err := c.Open(nil, nonce[:], sealed[:n], ad); !errors.Is(err, ErrAuth) {
				t.Fatalf("%v: cut to %d bytes: %v", id, n, err)
			}
		}
		if _, err := c.Open(nil, nonce[:], append(sealed, 0), ad); !errors.Is(err, ErrAuth) {
			t.Errorf("%v: with a trailing byte: %v", id, err)
		}
		if _, err := c.Open(nil, nonce[:12], sealed, ad); !errors.Is(err, ErrNonceSize) {
			t.Errorf("%v: short nonce: %v", id, err)
		}
		if _, err := SealWithNonce(id, make([]byte, KeySize), nonce[:12], nil, pt, ad); !errors.Is(err, ErrNonceSize) {
			t.Errorf("%v: short nonce when sealing: %v", id, err)
		}
	}
}

// More prefixes than are remembered, from many goroutines: each opens its own.
func TestConcurrentPrefixes(t *testing.T) {
	for _, id := range suites {
		c, _ := newCipher(t, id)
		var wg sync.WaitGroup
		for w := range 3 * cachedPrefixes {
			wg.Go(func() {
				s, err := c.Sealer()
				if err != nil {
					t.Error(err)
					return
				}
				for i := range 50 {
					pt := fmt.Appendf(nil, "worker %d frame %d", w, i)
					nonce := new([NonceSize]byte)
					sealed, _ := s.Seal(nil, pt, nil, nonce)
					if got, err := c.Open(nil, nonce[:], sealed, nil); err != nil || !bytes.Equal(got, pt) {
						t.Errorf("%v: %q, %v", id, got, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestAllocs(t *testing.T) {
	for _, id := range suites {
		c, s := newCipher(t, id)
		pt, ad := make([]byte, 4096), make([]byte, 80)
		sealed := make([]byte, 0, len(pt)+TagSize)
		opened := make([]byte, 0, len(pt))
		nonce := new([NonceSize]byte)
		if n := testing.AllocsPerRun(100, func() { sealed, _ = s.Seal(sealed[:0], pt, ad, nonce) }); n != 0 {
			t.Errorf("%v: Seal allocates %v times", id, n)
		}
		if n := testing.AllocsPerRun(100, func() { opened, _ = c.Open(opened[:0], nonce[:], sealed, ad) }); n != 0 {
			t.Errorf("%v: Open allocates %v times", id, n)
		}
	}
}

func benchmarkSizes(b *testing.B, f func(b *testing.B, id ID, size int)) {
	for _, id := range suites {
		for _, kib := range []int{4, 16, 64} {
			b.Run(fmt.Sprintf("%v/%dKiB", id, kib), func(b *testing.B) {
				b.SetBytes(int64(kib) << 10)
				b.ReportAllocs()
				f(b, id, kib<<10)
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	benchmarkSizes(b, func(b *testing.B, id ID, size int) {
		_, s := newCipher(b, id)
		pt, ad, dst, nonce := make([]byte, size), make([]byte, 80), make([]byte, 0, size+TagSize), new([NonceSize]byte)
		for b.Loop() {
			s.Seal(dst, pt, ad, nonce)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	benchmarkSizes(b, func(b *testing.B, id ID, size int) {
		c, s := newCipher(b, id)
		pt, ad, dst, nonce := make([]byte, size), make([]byte, 80), make([]byte, 0, size), new([NonceSize]byte)
		sealed, _ := s.Seal(nil, pt, ad, nonce)
		for b.Loop() {
			if _, err := c.Open(dst, nonce[:], sealed, ad); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDerive is the price of a prefix that is not remembered.
func BenchmarkDerive(b *testing.B) {
	c, _ := newCipher(b, XAES256GCM)
	prefix := new([prefixSize]byte)
	b.ReportAllocs()
	for b.Loop() {
		c.xaes.derive(prefix)
	}
}

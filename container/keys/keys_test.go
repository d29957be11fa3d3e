package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
)

// testKey is the bytes 0 to 31.
func testKey(t testing.TB) *MasterKey {
	t.Helper()
	b := make([]byte, MasterKeySize)
	for i := range b {
		b[i] = byte(i)
	}
	mk, err := MasterKeyFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mk.Destroy)
	return mk
}

// RFC 5869, appendix A.1 to A.3, called the way the ring calls: Extract takes
// the secret first and the salt second, Expand the info as a string.
func TestHKDFVectors(t *testing.T) {
	seq := func(from, n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(from + i)
		}
		return b
	}
	for _, v := range []struct {
		ikm, salt, info []byte
		prk, okm        string
	}{
		{
			bytes.Repeat([]byte{0x0b}, 22), seq(0, 13), seq(0xf0, 10),
			"077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
			"3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
		},
		{
			seq(0, 80), seq(0x60, 80), seq(0xb0, 80),
			"06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
			"b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
		},
		{
			bytes.Repeat([]byte{0x0b}, 22), nil, nil,
			"19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
			"8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
		},
	} {
		prk := must(hkdf.Extract(sha256.New, v.ikm, v.salt))
		if hex.EncodeToString(prk) != v.prk {
			t.Errorf("PRK %x, want %s", prk, v.prk)
		}
		okm := must(hkdf.Expand(sha256.New, prk, string(v.info), len(v.okm)/2))
		if hex.EncodeToString(okm) != v.okm {
			t.Errorf("OKM %x, want %s", okm, v.okm)
		}
	}
}

// hkdfExtract and expand are HKDF written a second time, from the RFC.
func hkdfExtract(salt, ikm []byte) []byte {
	h := hmac.New(sha256.New, salt)
	h.Write(ikm)
	return h.Sum(nil)
}

func expand(prk []byte, info string, n int) (okm []byte) {
	var t []byte
	for i := byte(1); len(okm) < n; i++ {
		h := hmac.New(sha256.New, prk)
		h.Write(t)
		h.Write([]byte(info))
		h.Write([]byte{i})
		t = h.Sum(nil)
		okm = append(okm, t...)
	}
	return okm[:n]
}

// The labels of FORMAT.md section 3, spelled out once more.
func TestRingLabels(t *testing.T) {
	id := VaultID{1, 2, 3}
	r := NewRing(testKey(t), id)
	defer r.Destroy()
	prk := hkdfExtract(id[:], testKey(t).Bytes())

	commitment := r.Commitment()
	for label, got := range map[string][]byte{
		"names": r.Names(), "config": r.Config(), "state": r.State(), "journal": r.Journal(), "xattr": r.Xattr(),
		"commitment": commitment[:],
	} {
		n := 32
		if label == "names" || label == "xattr" {
			n = 64
		}
		if want := expand(prk, "coffer v1 "+label, n); !bytes.Equal(got, want) {
			t.Errorf("K_%s = %x, want %x", label, got, want)
		}
	}

	file := ObjectID{0xaa, 15: 0xbb}
	p := FileParams{Suite: suite.XChaCha20Poly1305, Digest: 3, SegmentSize: 65536, FrameSize: 4096, Epoch: 0x01020304}
	r.File(ObjectID{0xcc}, FileParams{Digest: 1, Epoch: 9}) // nothing of one is in the next
	k := r.File(file, p)
	info := "coffer v1 file" + string(file[:]) + "\x02\x03" + "\x00\x00\x01\x00" + "\x00\x10\x00\x00" + "\x04\x03\x02\x01"
	want := expand(expand(prk, "coffer v1 content", 32), info, 96)
	if got := bytes.Join([][]byte{k.Enc[:], k.Auth[:], k.Commitment[:]}, nil); !bytes.Equal(got, want) {
		t.Errorf("keys of a container %x, want %x", got, want)
	}
	if k.Destroy(); k.Enc != [32]byte{} || k.Auth != [32]byte{} {
		t.Error("Destroy leaves keys of a container behind")
	}
}

// Whatever parameter differs, all keys of the container differ.
func TestFileParamsCount(t *testing.T) {
	mk := testKey(t)
	p := FileParams{Suite: suite.XAES256GCM, Digest: 1, SegmentSize: 65536, FrameSize: 4096}
	seen := map[[32]byte]string{}
	add := func(what string, id VaultID, file ObjectID, change func(*FileParams)) {
		q := p
		if change != nil {
			change(&q)
		}
		r := NewRing(mk, id)
		defer r.Destroy()
		k := r.File(file, q)
		for _, b := range [][32]byte{k.Enc, k.Auth, k.Commitment} {
			if old, ok := seen[b]; ok {
				t.Errorf("%s shares a key with %s", what, old)
			}
			seen[b] = what
		}
	}
	add("the file", VaultID{}, ObjectID{}, nil)
	add("another vault", VaultID{1}, ObjectID{}, nil)
	add("another file", VaultID{}, ObjectID{1}, nil)
	add("suite", VaultID{}, ObjectID{}, func(p *FileParams) { p.Suite = suite.XChaCha20Poly1305 })
	add("digest", VaultID{}, ObjectID{}, func(p *FileParams) { p.Digest = 2 })
	add("segment size", VaultID{}, ObjectID{}, func(p *FileParams) { p.SegmentSize = 32768 })
	add("frame size", VaultID{}, ObjectID{}, func(p *FileParams) { p.FrameSize = 16384 })
	add("epoch", VaultID{}, ObjectID{}, func(p *FileParams) { p.Epoch = 1 })
}

func TestMasterKey(t *testing.T) {
	a, b := NewMasterKey(), NewMasterKey()
	defer a.Destroy()
	if len(a.Bytes()) != MasterKeySize || bytes.Equal(a.Bytes(), b.Bytes()) || bytes.Equal(a.Bytes(), make([]byte, MasterKeySize)) {
		t.Error("NewMasterKey does not draw")
	}
	c, err := MasterKeyFrom(b.Bytes())
	if err != nil || !bytes.Equal(c.Bytes(), b.Bytes()) {
		t.Errorf("MasterKeyFrom: %v", err)
	}
	b.Destroy()
	b.Destroy()
	if b.Bytes() != nil || b.s.locked {
		t.Error("a destroyed key still has bytes")
	}
	if len(c.Bytes()) != MasterKeySize {
		t.Error("MasterKeyFrom shares memory")
	}
	c.Destroy()
	for _, n := range []int{0, 31, 33} {
		if _, err := MasterKeyFrom(make([]byte, n)); !errors.Is(err, ErrKeySize) {
			t.Errorf("key of %d bytes: %v, want ErrKeySize", n, err)
		}
	}
}

// Destroy wipes before it frees. What was unmapped cannot be read, so the test
// looks at a secret on the heap and at what the kernel says of a mapped one.
func TestDestroyWipes(t *testing.T) {
	b := bytes.Repeat([]byte{7}, 32)
	s := &secret{bytes: b}
	s.destroy()
	if !bytes.Equal(b, make([]byte, 32)) {
		t.Error("destroy left the bytes")
	}
	if s.copyOf(0, 32) != nil {
		t.Error("a destroyed secret can be read")
	}
}

// The kernel agrees that the memory is locked and not dumped (VmFlags lo, dd).
func TestLockedAndNotDumped(t *testing.T) {
	mk := NewMasterKey()
	defer mk.Destroy()
	if !mk.s.locked {
		t.Skip("the system refuses to lock memory (RLIMIT_MEMLOCK)")
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skipf("no smaps here: %v", err)
	}
	if !strings.Contains(string(maps), "VmFlags:") {
		t.Skip("this kernel's smaps has no VmFlags")
	}
	addr := uint64(0)
	fmt.Sscanf(fmt.Sprintf("%p", &mk.Bytes()[0]), "0x%x", &addr)
	in := false
	for line := range strings.Lines(string(maps)) {
		var lo, hi uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &lo, &hi); n == 2 {
			in = lo <= addr && addr < hi
		}
		if in && strings.HasPrefix(line, "VmFlags:") {
			if f := strings.Fields(line); !has(f, "lo") || !has(f, "dd") {
				t.Errorf("the key's memory has flags %v, want lo and dd", f[1:])
			}
			return
		}
	}
	t.Error("the key's memory is in no mapping")
}

func has(fields []string, f string) bool {
	for _, g := range fields {
		if g == f {
			return true
		}
	}
	return false
}

func TestRingDestroyed(t *testing.T) {
	r := NewRing(testKey(t), VaultID{})
	r.Destroy()
	r.Destroy()
	if r.Names() != nil || r.Config() != nil {
		t.Error("a destroyed ring gives keys")
	}
	mustPanic(t, "File of a destroyed ring", func() { r.File(ObjectID{}, FileParams{}) })
	mk := NewMasterKey()
	mk.Destroy()
	mustPanic(t, "NewRing of a destroyed key", func() { NewRing(mk, VaultID{}) })
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", what)
		}
	}()
	f()
}

// A ring that nobody holds any more is wiped and freed, but not while one of
// its methods runs.
func TestRingCollected(t *testing.T) {
	mk := testKey(t)
	want := NewRing(mk, VaultID{}).Names()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if !bytes.Equal(NewRing(mk, VaultID{}).Names(), want) {
					t.Error("a ring lost its keys in use")
				}
			}
		})
	}
	for range 20 {
		runtime.GC()
	}
	wg.Wait()
}

// Returned keys are copies.
func TestRingCopies(t *testing.T) {
	r := NewRing(testKey(t), VaultID{})
	defer r.Destroy()
	want := r.Names()
	clear(r.Names())
	if !bytes.Equal(r.Names(), want) {
		t.Error("clearing a returned key changes the ring")
	}
}

func TestIDs(t *testing.T) {
	if a, b := RandomObjectID(), RandomObjectID(); a == b || a == (ObjectID{}) {
		t.Error("RandomObjectID does not draw")
	}
	if a, b := RandomVaultID(), RandomVaultID(); a == b {
		t.Error("RandomVaultID does not draw")
	}
	id := VaultID{0xab, 15: 1}
	if id.String() != "ab000000000000000000000000000001" || id.Root().String() != id.String() {
		t.Errorf("String() = %s", id)
	}
}

// Nothing secret comes out of the formatting verbs.
func TestFormatting(t *testing.T) {
	mk := testKey(t)
	r := NewRing(mk, VaultID{})
	defer r.Destroy()
	k := r.File(ObjectID{}, FileParams{})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for secret, text := range map[string]string{
			hex.EncodeToString(mk.Bytes()[:4]): fmt.Sprintf(verb, mk),
			hex.EncodeToString(k.Enc[:4]):      fmt.Sprintf(verb, k) + fmt.Sprintf(verb, &k),
			hex.EncodeToString(r.Names()[:4]):  fmt.Sprintf(verb, r),
		} {
			if strings.Contains(text, secret) || strings.Contains(text, "[") || strings.Contains(text, "{") {
				t.Errorf("%s prints %q", verb, text)
			}
		}
	}
}

func BenchmarkFile(b *testing.B) {
	r := NewRing(testKey(b), VaultID{})
	b.ReportAllocs()
	for b.Loop() {
		r.File(ObjectID{}, FileParams{})
	}
}

package keys

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestRecoveryRoundTrip(t *testing.T) {
	for range 100 {
		mk := NewMasterKey()
		text := EncodeRecovery(mk.Bytes())
		if len(text) != 69 || strings.Count(text, "-") != 13 {
			t.Fatalf("%q has the wrong shape", text)
		}
		got, err := DecodeRecovery(text)
		if err != nil || !bytes.Equal(got, mk.Bytes()) {
			t.Fatalf("%q: %v", text, err)
		}
		mk.Destroy()
	}
	mustPanic(t, "EncodeRecovery of a short key", func() { EncodeRecovery(make([]byte, 31)) })
}

// What people do to a recovery key without changing it.
func TestRecoveryTolerates(t *testing.T) {
	key := bytes.Repeat([]byte{0x08, 0x42, 0x10, 0x00}, 8) // many 0 and 1
	text := EncodeRecovery(key)
	for name, s := range map[string]string{
		"lower case":    strings.ToLower(text),
		"spaces":        strings.ReplaceAll(text, "-", " "),
		"no separators": strings.ReplaceAll(text, "-", ""),
		"lines":         "\n  " + strings.Replace(text, "-", "\r\n", 4) + "\t\n",
		"long dashes":   strings.ReplaceAll(text, "-", "–"),
		"no-break":      strings.ReplaceAll(text, "-", "\u00a0"),
		"I for 1":       strings.ReplaceAll(text, "1", "I"),
		"i for 1":       strings.ReplaceAll(text, "1", "i"),
		"L for 1":       strings.ReplaceAll(text, "1", "L"),
		"l for 1":       strings.ReplaceAll(text, "1", "l"),
		"O for 0":       strings.ReplaceAll(text, "0", "O"),
		"o for 0":       strings.ReplaceAll(text, "0", "o"),
	} {
		if s == text {
			t.Fatalf("%s changes nothing: the key has no such character", name)
		}
		if got, err := DecodeRecovery(s); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecoveryMistakes(t *testing.T) {
	text := EncodeRecovery(testKey(t).Bytes())
	groups := strings.Split(text, "-")
	join := func(g ...string) string { return strings.Join(g, "-") }

	for i := range groups[:13] {
		g := append([]string(nil), groups...)
		g[i], g[i+1] = g[i+1], g[i]
		if g[i] == g[i+1] {
			continue
		}
		if _, err := DecodeRecovery(join(g...)); !errors.Is(err, ErrRecoveryChecksum) {
			t.Errorf("groups %d and %d swapped: %v, want ErrRecoveryChecksum", i, i+1, err)
		}
	}
	for i := range groups {
		g := append(append([]string(nil), groups[:i]...), groups[i+1:]...)
		if _, err := DecodeRecovery(join(g...)); !errors.Is(err, ErrRecoveryText) {
			t.Errorf("group %d missing: %v, want ErrRecoveryText", i, err)
		}
		g = append(append([]string(nil), groups[:i+1]...), groups[i:]...)
		if _, err := DecodeRecovery(join(g...)); !errors.Is(err, ErrRecoveryText) {
			t.Errorf("group %d twice: %v, want ErrRecoveryText", i, err)
		}
	}
	// One wrong character anywhere, and two neighbours swapped.
	for i := range text {
		if text[i] == '-' {
			continue
		}
		wrong := byte('7')
		if text[i] == wrong {
			wrong = '8'
		}
		if _, err := DecodeRecovery(text[:i] + string(wrong) + text[i+1:]); !errors.Is(err, ErrRecoveryChecksum) {
			t.Errorf("character %d wrong: %v, want ErrRecoveryChecksum", i, err)
		}
		if i+1 < len(text) && text[i+1] != '-' && text[i] != text[i+1] {
			if _, err := DecodeRecovery(text[:i] + text[i+1:i+2] + text[i:i+1] + text[i+2:]); !errors.Is(err, ErrRecoveryChecksum) {
				t.Errorf("characters %d and %d swapped: %v, want ErrRecoveryChecksum", i, i+1, err)
			}
		}
	}
	for _, s := range []string{"", "-", text + "A", text[:68], strings.Replace(text, text[:1], "U", 1), "é" + text, "*" + text[1:], "\xff" + text[1:]} {
		_, err := DecodeRecovery(s)
		if !errors.Is(err, ErrRecoveryText) {
			t.Errorf("%q: %v, want ErrRecoveryText", s, err)
		}
	}
}

// FuzzDecodeRecovery: nothing panics, and what decodes encodes to the same text
// once its spelling is made uniform.
func FuzzDecodeRecovery(f *testing.F) {
	f.Add(EncodeRecovery(make([]byte, MasterKeySize)))
	f.Add(strings.ToLower(EncodeRecovery(testKey(f).Bytes())))
	f.Add("not a key")
	uniform := strings.NewReplacer("I", "1", "L", "1", "O", "0")
	f.Fuzz(func(t *testing.T, s string) {
		key, err := DecodeRecovery(s)
		if err != nil {
			if !errors.Is(err, ErrRecoveryChecksum) && !errors.Is(err, ErrRecoveryText) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		var kept strings.Builder
		for _, r := range uniform.Replace(strings.ToUpper(s)) {
			if strings.ContainsRune(recoveryAlphabet, r) {
				kept.WriteRune(r)
			}
		}
		if want := strings.ReplaceAll(EncodeRecovery(key), "-", ""); kept.String() != want {
			t.Fatalf("%q decodes to the key of %q", kept.String(), want)
		}
	})
}

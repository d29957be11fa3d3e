package xattrs

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/siv"
	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors of this package")

const vectorDir = "../testdata/vectors"

var (
	objectID = keys.ObjectID{0: 0x30, 15: 0x3f}
	otherID  = keys.ObjectID{0: 0x40, 15: 0x4f}
)

var expectations = map[string]error{"success": nil, "foreign": ErrForeign, "damaged": ErrBadAttr}

// builder builds vectors without the code under test: what is sealed is written out per byte of FORMAT.md, and only sealed by package siv.
type builder struct {
	key []byte
	siv *siv.Cipher
	all map[string]*vectors.Vector
}

func newBuilder(key []byte) *builder {
	c, err := siv.New(key)
	if err != nil {
		panic(err)
	}
	return &builder{key, c, map[string]*vectors.Vector{}}
}

func (b *builder) add(name, expect, comment string) *vectors.Vector {
	name = "xattr_" + name
	if b.all[name] != nil {
		panic("two vectors " + name)
	}
	v := new(vectors.Vector).Set("expect", expect).Set("comment", comment).SetHex("xattr_key", b.key).SetHex("id", objectID[:])
	b.all[name] = v
	return v
}

func (b *builder) seal(label string, id keys.ObjectID, more, plain []byte) []byte {
	ad := make([]byte, 24)
	copy(ad, label)
	return b.siv.Seal(nil, append(append(ad, id[:]...), more...), plain)
}

func (b *builder) t(id keys.ObjectID, n string) []byte {
	return b.seal("coffer xattr v1", id, nil, []byte(n))
}

func (b *builder) v(id keys.ObjectID, t []byte, v string) []byte {
	return b.seal("coffer xattr value v1", id, t, []byte(v))
}

func userName(t []byte) string { return "user.coffer." + encoding.EncodeToString(t) }

// pair adds an attribute of T = n and the value v.
func (b *builder) pair(name, expect, comment, n, v string) *vectors.Vector {
	t := b.t(objectID, n)
	return b.add(name, expect, comment).Set("host", userName(t)).SetHex("sealed", b.v(objectID, t, v))
}

// longForm is N and what precedes the value for a long name.
func longForm(name string) (n, v string) {
	sum := sha256.Sum256([]byte(name))
	return "\x01" + string(sum[:]), string([]byte{byte(len(name))}) + name
}

func (b *builder) good() {
	for name, c := range map[string]struct{ comment, attr, value string }{
		"user":          {"a user attribute", "user.mime_type", "text/plain"},
		"empty":         {"an empty value", "user.e", ""},
		"security":      {"file capabilities", "security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		"not_utf8":      {"a name that is not UTF-8", "user.\xff", "x"},
		"longest_short": {"163 bytes: the longest name of form 0, which fills a host name with trusted.coffer.", "user." + strings.Repeat("s", 158), "x"},
	} {
		b.pair(name, "success", c.comment, "\x00"+c.attr, c.value).SetHex("name", []byte(c.attr)).SetHex("value", []byte(c.value))
	}
	for name, c := range map[string]struct{ comment, attr string }{
		"long":     {"164 bytes: the shortest name of form 1", "user." + strings.Repeat("l", 159)},
		"long_255": {"255 bytes: the longest name", "user." + strings.Repeat("x", 250)},
	} {
		n, v := longForm(c.attr)
		b.pair(name, "success", c.comment, n, v+"value").SetHex("name", []byte(c.attr)).SetHex("value", []byte("value"))
	}
	t := b.t(objectID, "\x00trusted.x")
	b.add("of_symlink", "success", "of an object that has no user attributes").Set("trusted", "true").
		Set("host", "trusted.coffer."+encoding.EncodeToString(t)).SetHex("sealed", b.v(objectID, t, "v")).
		SetHex("name", []byte("trusted.x")).SetHex("value", []byte("v"))
}

func (b *builder) bad() {
	long := "user." + strings.Repeat("l", 159)
	n, v := longForm(long)
	_, other := longForm("user." + strings.Repeat("m", 159))
	shortN, shortV := longForm("user.short")
	nulN, nulV := longForm(long + "\x00")
	b.pair("form_2", "damaged", "an unknown form", "\x02user.x", "v")
	b.pair("no_form", "damaged", "T seals nothing", "", "v")
	b.pair("no_name", "damaged", "form 0 with an empty name", "\x00", "v")
	b.pair("nul", "damaged", "a name with NUL", "\x00user.\x00", "v")
	b.pair("short_hash", "damaged", "form 1 with a hash of 31 bytes", n[:32], v+"value")
	b.pair("long_value_short", "damaged", "form 1, the value ends within the name", n, v[:100])
	b.pair("long_value_empty", "damaged", "form 1 without a name in the value", n, "")
	b.pair("long_other_name", "damaged", "form 1, the value has a name with another hash", n, other+"value")
	b.pair("long_short_name", "damaged", "form 1 of a name that has form 0", shortN, shortV+"value")
	b.pair("long_nul", "damaged", "form 1 of a name with NUL", nulN, nulV+"value")

	t := b.t(objectID, "\x00user.x")
	sealed := b.v(objectID, t, "value")
	flipped := append([]byte(nil), sealed...)
	flipped[17] ^= 1
	for name, value := range map[string][]byte{
		"value_flipped":     flipped,
		"value_cut":         sealed[:len(sealed)-1],
		"value_missing":     {},
		"value_of_another":  b.v(objectID, b.t(objectID, "\x00user.y"), "value"),
		"value_of_object":   b.v(otherID, t, "value"),
		"value_wrong_label": b.seal("coffer xattr v1", objectID, t, []byte("value")),
	} {
		b.add(name, "damaged", "the value was not sealed with this name").Set("host", userName(t)).SetHex("sealed", value)
	}
	host := userName(t)
	for name, c := range map[string]struct{ comment, host string }{
		"other_object":  {"sealed for another object", userName(b.t(otherID, "\x00user.x"))},
		"wrong_label":   {"sealed under another label", userName(b.seal("coffer attributes v1", objectID, nil, []byte("\x00user.x")))},
		"cut":           {"the last four characters are missing", host[:len(host)-4]},
		"padded":        {"with the padding of base64", host + "="},
		"trailing_bits": {"the spare bits of the last character are not zero", host[:len(host)-1] + string(host[len(host)-1]+1)},
		"plain":         {"never sealed", "user.coffer.mime_type"},
		"other_place":   {"another attribute of the host", "user.mime_type"},
		"wrong_place":   {"in the place of symlinks", "trusted.coffer." + encoding.EncodeToString(t)},
	} {
		b.add(name, "foreign", c.comment).Set("host", c.host).SetHex("sealed", sealed)
	}
}

func (b *builder) modes() {
	seal := func(p string) []byte { return b.seal("coffer attributes v1", objectID, nil, []byte(p)) }
	for name, c := range map[string]struct {
		comment, p string
		mode       uint64
		set        string
	}{
		"mode_0444":  {"a file that its owner may not write", "\x01\x01\x24\x01", 0o444, "true"},
		"mode_7000":  {"set-id and sticky bits alone", "\x01\x01\x00\x0e", 0o7000, "true"},
		"mode_unset": {"no mode", "\x01\x00\x00\x00", 0, "false"},
	} {
		b.add(name, "success", c.comment).SetHex("sealed", seal(c.p)).SetUint("mode", c.mode).Set("set", c.set)
	}
	good := seal("\x01\x01\x24\x01")
	for name, c := range map[string]struct {
		comment string
		sealed  []byte
	}{
		"mode_version": {"another version", seal("\x02\x01\x24\x01")},
		"mode_flag":    {"an unknown flag", seal("\x01\x03\x24\x01")},
		"mode_type":    {"bits above 07777", seal("\x01\x01\x24\x81")},
		"mode_short":   {"three bytes", seal("\x01\x01\x24")},
		"mode_long":    {"five bytes", seal("\x01\x01\x24\x01\x00")},
		"mode_object":  {"of another object", b.seal("coffer attributes v1", otherID, nil, []byte("\x01\x01\x24\x01"))},
		"mode_cut":     {"the last byte is missing", good[:len(good)-1]},
		"mode_plain":   {"never sealed", []byte("\x01\x01\x24\x01")},
	} {
		b.add(name, "damaged", c.comment).SetHex("sealed", c.sealed).Set("mode", "none")
	}
}

func buildVectors() map[string]*vectors.Vector {
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i)
	}
	b := newBuilder(key)
	b.good()
	b.bad()
	b.modes()
	return b.all
}

func TestVectors(t *testing.T) {
	paths := vectors.Sync(t, vectorDir, "xattr_", buildVectors(), *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		c, o := New(v.Hex("xattr_key")), Object{ID: keys.ObjectID(v.Hex("id")), Trusted: v.Has("trusted")}
		if v.Has("mode") {
			return checkMode(t, c, o, v)
		}
		return checkAttr(t, c, o, v)
	})
}

func checkAttr(t *testing.T, c *Codec, o Object, v *vectors.Vector) error {
	name, value, err := c.Open(o, v.Get("host"), v.Hex("sealed"))
	if err != nil {
		if name != "" || value != nil {
			t.Errorf("a refused attribute leaves %q %q", name, value)
		}
		return err
	}
	if name != string(v.Hex("name")) || !bytes.Equal(value, v.Hex("value")) {
		t.Errorf("opened %q %q", name, value)
	}
	if host, sealed := c.Seal(o, name, value); host != v.Get("host") || !bytes.Equal(sealed, v.Hex("sealed")) || c.HostName(o, name) != host {
		t.Errorf("sealed as %q", host)
	}
	if short, err := c.OpenName(o, v.Get("host")); err != nil || short != name && len(name) <= maxShort || short != "" && len(name) > maxShort {
		t.Errorf("opened the name %q, %v", short, err)
	}
	return nil
}

func checkMode(t *testing.T, c *Codec, o Object, v *vectors.Vector) error {
	mode, set, err := c.OpenMode(o, v.Hex("sealed"))
	if err != nil {
		return err
	}
	if uint64(mode) != v.Uint("mode") || set != (v.Get("set") == "true") {
		t.Errorf("opened %o, %v", mode, set)
	}
	if set && !bytes.Equal(c.SealMode(o, mode), v.Hex("sealed")) {
		t.Error("seals to something else")
	}
	return nil
}

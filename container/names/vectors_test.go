package names

import (
	"bytes"
	"encoding/hex"
	"flag"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/siv"
	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors of this package")

const vectorDir = "../testdata/vectors"

// expectations maps the field expect of a vector to the error it stands for.
var expectations = map[string]error{
	"success":  nil,
	"foreign":  ErrForeign,
	"bad name": ErrBadName,
	"sidecar":  ErrSidecar,
}

// builder builds vectors without the code under test: the plaintext P is written
// out in hex per byte of FORMAT.md, and only sealed by package siv.
type builder struct {
	key []byte
	siv *siv.Cipher
	all map[string]*vectors.Vector
}

// withKey returns a builder into the same vectors with another names key.
func (b *builder) withKey(key []byte) *builder {
	c, err := siv.New(key)
	if err != nil {
		panic(err)
	}
	return &builder{key: key, siv: c, all: b.all}
}

func (b *builder) add(name, expect, comment string) *vectors.Vector {
	if b.all[name] != nil {
		panic("two vectors " + name)
	}
	v := new(vectors.Vector).Set("expect", expect).Set("comment", comment).SetHex("names_key", b.key)
	b.all[name] = v
	return v
}

// seal is base64url of AES-SIV under a label padded to its size.
func (b *builder) seal(label string, size int, id keys.ObjectID, plain []byte) string {
	return encoding.EncodeToString(b.sealRaw(label, size, id, plain))
}

func (b *builder) sealRaw(label string, size int, id keys.ObjectID, plain []byte) []byte {
	ad := make([]byte, size+16)
	copy(ad, label)
	copy(ad[size:], id[:])
	return b.siv.Seal(nil, ad, plain)
}

func (b *builder) sealName(parent keys.ObjectID, p []byte) string {
	return b.seal("coffer name v1", 16, parent, p)
}

func (b *builder) sidecar(parent keys.ObjectID, name string) []byte {
	return b.sealRaw("coffer long name v1", 24, parent, []byte(name))
}

// unhex reads hex with spaces and line breaks.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// head is the first 29 bytes of P for the test object: version, type, geometry,
// flags and length of the name as given in hex, then object id and link sequence.
func head(first5 string) []byte {
	return unhex(first5 + "30000000 00000000 00000000 0000003f 08070605 04030201")
}

// plain is P: the head, the text, and zeros up to size bytes.
func plain(first5, text string, size int) []byte {
	p := append(head(first5), text...)
	return append(p, make([]byte, size-len(p))...)
}

// good adds a name that opens.
func (b *builder) good(name, comment string, l Link, p []byte, sidecar []byte) {
	v := b.add(name, "success", comment).SetHex("parent", parentID[:]).Set("host", b.sealName(parentID, p))
	if sidecar != nil {
		v.SetHex("sidecar", sidecar)
	}
	v.SetHex("plaintext", p).SetHex("name", []byte(l.Name)).
		SetUint("type", uint64(l.Type)).SetUint("geometry", uint64(l.Geometry)).SetUint("flags", uint64(l.Flags)).
		SetHex("id", objectID[:]).SetUint("seq", 0x0102030405060708)
}

func (b *builder) goodNames() {
	b.good("name_file", "a regular file", Link{Type: File, Geometry: 9, Name: "notes.txt"}, plain("01 01 09 00 09", "notes.txt", 48), nil)
	b.good("name_directory", "a directory", Link{Type: Dir, Name: "src"}, plain("01 02 00 00 03", "src", 32), nil)
	b.good("name_symlink", "a symlink", Link{Type: Symlink, Name: "link"}, plain("01 03 00 00 04", "link", 48), nil)
	b.good("name_fifo", "a FIFO", Link{Type: FIFO, Name: "pipe"}, plain("01 04 00 00 04", "pipe", 48), nil)
	b.good("name_socket", "a socket", Link{Type: Socket, Name: "sock"}, plain("01 05 00 00 04", "sock", 48), nil)
	b.good("name_char_device", "a character device", Link{Type: CharDev, Name: "tty"}, plain("01 06 00 00 03", "tty", 32), nil)
	b.good("name_block_device", "a block device", Link{Type: BlockDev, Name: "sda"}, plain("01 07 00 00 03", "sda", 32), nil)
	b.good("name_container_symlink", "a symlink whose target is in a container", Link{Type: Symlink, Geometry: 9, Flags: ContainerSymlink, Name: "far"},
		plain("01 03 09 04 03", "far", 32), nil)
	b.good("name_no_header", "a file linked before it had a durable header", Link{Type: File, Geometry: 1, Flags: NoHeader, Name: "new"},
		plain("01 01 01 01 03", "new", 32), nil)
	b.good("name_not_utf8", "a name that is not UTF-8", Link{Type: File, Geometry: 9, Name: "\xff\xfe"}, plain("01 01 09 00 02", "\xff\xfe", 32), nil)

	short, long, longest := strings.Repeat("s", 146), strings.Repeat("l", 147), strings.Repeat("x", 255)
	b.good("name_longest_short", "146 bytes: the longest name without a sidecar, with a host name of 255 bytes", Link{Type: File, Geometry: 9, Name: short},
		plain("01 01 09 00 92", short, 175), nil)
	b.good("name_long", "147 bytes: the shortest name with a sidecar", Link{Type: File, Geometry: 9, Flags: Long, Name: long},
		plain("01 01 09 02 93", string(unhex("1cd4c199e279bc57e294070cc711b5c5dff4939e64cf8c9b3ef930cc65f5c47e")), 64), b.sidecar(parentID, long))
	b.good("name_long_255", "255 bytes: the longest name", Link{Type: Dir, Flags: Long, Name: longest},
		plain("01 02 00 02 ff", string(unhex("d22609da3ae3956ca4877056a8e580eed744a6f7d7cfa5b19dd88d52fcc0d435")), 64), b.sidecar(parentID, longest))
}

// badNames are authentic and malformed, each in one point.
func (b *builder) badNames() {
	for name, v := range map[string]struct {
		comment string
		p       []byte
	}{
		"version_2":               {"another version", plain("02 01 09 00 01", "n", 32)},
		"version_0":               {"another version", plain("00 01 09 00 01", "n", 32)},
		"unknown_type":            {"type 8", plain("01 08 00 00 01", "n", 32)},
		"type_zero":               {"type 0", plain("01 00 00 00 01", "n", 32)},
		"unknown_flag":            {"flag bit 3", plain("01 01 09 08 01", "n", 32)},
		"file_without_geometry":   {"a file with geometry 0", plain("01 01 00 00 01", "n", 32)},
		"unknown_geometry":        {"a file with geometry 10", plain("01 01 0a 00 01", "n", 32)},
		"directory_with_geometry": {"a directory with geometry 9", plain("01 02 09 00 01", "n", 32)},
		"symlink_with_geometry":   {"geometry 9 without the flag that makes it a container", plain("01 03 09 00 01", "n", 32)},
		"container_no_geometry":   {"a container symlink with geometry 0", plain("01 03 00 04 01", "n", 32)},
		"container_flag_on_file":  {"flag bit 2 on a file", plain("01 01 09 04 01", "n", 32)},
		"empty":                   {"a name of 0 bytes", plain("01 01 09 00 00", "", 32)},
		"dot":                     {"the name .", plain("01 01 09 00 01", ".", 32)},
		"dot_dot":                 {"the name ..", plain("01 01 09 00 02", "..", 32)},
		"slash":                   {"a name with a slash", plain("01 01 09 00 03", "a/b", 32)},
		"nul":                     {"a name with a NUL", plain("01 01 09 00 03", "a\x00b", 32)},
		"bad_padding":             {"padding that is not zero", plain("01 01 09 00 01", "n\x00\x01", 32)},
		"length_too_small":        {"the name goes on where the padding should be", plain("01 01 09 00 01", "nn", 32)},
		"padding_too_long":        {"16 bytes of padding more than needed", plain("01 01 09 00 01", "n", 48)},
		"padding_too_short":       {"no padding", plain("01 01 09 00 01", "n", 30)},
		"plaintext_28":            {"P ends within its fixed fields", head("01 01 09 00 01")[:28]},
		"plaintext_empty":         {"P is empty", nil},
		"length_beyond_plaintext": {"the length of the name runs out of P", plain("01 01 09 00 92", "n", 32)},
		"long_flag_on_short_name": {"flag bit 1 with a length of 146", plain("01 01 09 02 92", strings.Repeat("h", 32), 64)},
		"long_flag_missing":       {"length 147 without flag bit 1", plain("01 01 09 00 93", strings.Repeat("h", 32), 64)},
		"long_bad_padding":        {"a long name with padding that is not zero", plain("01 01 09 02 93", strings.Repeat("h", 32)+"\x01", 64)},
		"long_padding_too_long":   {"a long name with 16 bytes of padding more than needed", plain("01 01 09 02 93", strings.Repeat("h", 32), 80)},
	} {
		b.add("name_"+name, "bad name", v.comment).SetHex("parent", parentID[:]).Set("host", b.sealName(parentID, v.p)).SetHex("plaintext", v.p)
	}
}

// foreignNames do not open.
func (b *builder) foreignNames() {
	p := plain("01 01 09 00 09", "notes.txt", 48)
	host := b.sealName(parentID, p)
	flip := func(i int) string {
		s, _ := encoding.DecodeString(host)
		s[i] ^= 1
		return encoding.EncodeToString(s)
	}
	for name, v := range map[string]struct{ comment, host string }{
		"wrong_parent":        {"sealed for another directory", b.sealName(otherID, p)},
		"wrong_label":         {"sealed under the label of symlink targets", b.seal("coffer symlink v1", 24, parentID, p)},
		"tampered_siv":        {"a bit of the SIV flipped", flip(3)},
		"tampered_ciphertext": {"a bit of the last byte flipped", flip(len(p) + 15)},
		"truncated":           {"the last four characters are missing", host[:len(host)-4]},
		"extended":            {"a zero byte too many", host[:len(host)-2] + "AAA"},
		"base64_padding":      {"with the padding of base64", host + "=="},
		"base64_standard":     {"the standard alphabet of base64", "+" + host[1:]},
		"too_short":           {"fewer than the 16 bytes of the SIV", "AAAA"},
		"padding_beyond_175":  {"the longest short name, padded to 176: no host name is that long", b.sealName(parentID, plain("01 01 09 00 92", strings.Repeat("s", 146), 176))},
		"no_host_name":        {"the empty string", ""},
	} {
		b.add("name_"+name, "foreign", v.comment).SetHex("parent", parentID[:]).Set("host", v.host)
	}
	b.add("name_line_break", "foreign", "a line feed in the middle, as hex, which lax decoders skip").
		SetHex("parent", parentID[:]).SetHex("host_hex", []byte(host[:8]+"\n"+host[8:]))
	// 64 sealed bytes are 85 characters and two bits: the last character is one of
	// A, Q, g and w, and each next one has the same two bits.
	last := host[len(host)-1]
	b.add("name_trailing_bits", "foreign", "the spare bits of the last character are not zero").
		SetHex("parent", parentID[:]).Set("host", host[:len(host)-1]+string(last+1))
	otherKey := b.withKey(make([]byte, 64)).sealName(parentID, p)
	b.add("name_wrong_key", "foreign", "sealed under another names key").SetHex("parent", parentID[:]).Set("host", otherKey)
}

// sidecars do not belong to their long name, which is good.
func (b *builder) badSidecars() {
	long := strings.Repeat("l", 147)
	p := b.all["name_long"].Hex("plaintext")
	good := b.sidecar(parentID, long)
	tampered := append([]byte(nil), good...)
	tampered[20] ^= 1
	for name, v := range map[string]struct {
		comment string
		sidecar []byte
	}{
		"wrong_parent": {"sealed for another directory", b.sidecar(otherID, long)},
		"wrong_label":  {"sealed under the label of names", b.sealRaw("coffer name v1", 16, parentID, []byte(long))},
		"other_name":   {"authentic, of another name of that length", b.sidecar(parentID, strings.Repeat("m", 147))},
		"other_length": {"authentic, of a longer name", b.sidecar(parentID, strings.Repeat("l", 148))},
		"tampered":     {"a bit flipped", tampered},
		"truncated":    {"the last byte is missing", good[:len(good)-1]},
		"empty":        {"an empty file", nil},
	} {
		b.add("name_sidecar_"+name, "sidecar", v.comment).SetHex("parent", parentID[:]).Set("host", b.sealName(parentID, p)).SetHex("sidecar", v.sidecar)
	}
	// The hash matches, and still it is no name.
	slash := strings.Repeat("l", 146) + "/"
	p = plain("01 01 09 02 93", string(unhex("1272021c903228ec7d4b922c45cca31b950ae6a1887ad8e7db2815cd04510907")), 64)
	b.add("name_sidecar_slash", "sidecar", "authentic, a name with a slash").SetHex("parent", parentID[:]).
		Set("host", b.sealName(parentID, p)).SetHex("sidecar", b.sidecar(parentID, slash))
}

func (b *builder) targets() {
	seal := func(id keys.ObjectID, s string) string { return b.seal("coffer symlink v1", 24, id, []byte(s)) }
	for name, target := range map[string]string{
		"name_target":          "../share/x",
		"name_target_one_byte": "t",
		"name_target_not_utf8": "\xff/\xfe",
		"name_target_longest":  strings.Repeat("t", 3055),
	} {
		b.add(name, "success", "the target of a symlink").SetHex("id", objectID[:]).Set("host_target", seal(objectID, target)).SetHex("target", []byte(target))
	}
	good := seal(objectID, "../share/x")
	for name, v := range map[string]struct{ expect, comment, host string }{
		"wrong_id":      {"foreign", "sealed for another symlink", seal(otherID, "../share/x")},
		"wrong_label":   {"foreign", "sealed under the label of names", b.seal("coffer name v1", 16, objectID, []byte("../share/x"))},
		"tampered":      {"foreign", "the first character is another one", map[bool]string{true: "B", false: "A"}[good[0] == 'A'] + good[1:]},
		"truncated":     {"foreign", "the last four characters are missing", good[:len(good)-4]},
		"plain":         {"foreign", "a target that was never sealed", "/etc/passwd"},
		"trailing_bits": {"foreign", "the spare bits of the last character are not zero", good[:len(good)-1] + string(good[len(good)-1]+1)},
		"too_long":      {"foreign", "more than 4095 bytes", seal(objectID, strings.Repeat("t", 3056))},
		"empty":         {"bad name", "authentic, an empty target", seal(objectID, "")},
		"nul":           {"bad name", "authentic, a target with a NUL", seal(objectID, "a\x00b")},
	} {
		b.add("name_target_"+name, v.expect, v.comment).SetHex("id", objectID[:]).Set("host_target", v.host)
	}
}

func buildVectors() map[string]*vectors.Vector {
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i)
	}
	b := (&builder{all: map[string]*vectors.Vector{}}).withKey(key)
	b.goodNames()
	b.badNames()
	b.foreignNames()
	b.badSidecars()
	b.targets()
	return b.all
}

func TestVectors(t *testing.T) {
	paths := vectors.Sync(t, vectorDir, "name_", buildVectors(), *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		c := New(v.Hex("names_key"))
		if v.Has("host_target") {
			return checkTargetVector(t, c, v)
		}
		return checkName(t, c, v)
	})
}

func checkTargetVector(t *testing.T, c *Codec, v *vectors.Vector) error {
	id, host := keys.ObjectID(v.Hex("id")), v.Get("host_target")
	got, err := c.OpenTarget(id, host)
	if err != nil {
		if got != "" {
			t.Errorf("a refused target leaves %q", got)
		}
		return err
	}
	if got != string(v.Hex("target")) || TargetLen(int64(len(host))) != int64(len(got)) {
		t.Errorf("opened %q, length %d", got, TargetLen(int64(len(host))))
	}
	if again := c.SealTarget(id, got); again != host {
		t.Errorf("sealed %q", again)
	}
	return nil
}

func checkName(t *testing.T, c *Codec, v *vectors.Vector) error {
	parent := keys.ObjectID(v.Hex("parent"))
	var host string
	if v.Has("host_hex") {
		host = string(v.Hex("host_hex"))
	} else {
		host = v.Get("host")
	}
	l, err := c.Open(parent, host)
	if err == nil && l.IsLong() {
		before := l
		if err = c.OpenLong(parent, &l, v.Hex("sidecar")); err != nil && l != before {
			t.Error("a bad sidecar changed the link")
		}
	} else if err != nil && l != (Link{}) {
		t.Errorf("a refused name leaves %+v", l)
	}
	if err != nil {
		return err
	}
	id := keys.ObjectID(v.Hex("id"))
	if l.Name != string(v.Hex("name")) || uint64(l.Type) != v.Uint("type") || uint64(l.Geometry) != v.Uint("geometry") ||
		uint64(l.Flags) != v.Uint("flags") || l.ID != id || l.Seq != v.Uint("seq") {
		t.Errorf("opened %+v", l)
	}
	if l.HostMode() == unix.S_IFREG != l.IsContainer() {
		t.Errorf("host mode %o", l.HostMode())
	}
	again, sidecar := c.Seal(parent, l)
	if again != host || (sidecar != nil) != v.Has("sidecar") || sidecar != nil && !bytes.Equal(sidecar, v.Hex("sidecar")) {
		t.Errorf("sealed %q", again)
	}
	return nil
}

package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/vectors"
)

// An identity of the vectors, and age files for it: age has no way to make one from given randomness.
const (
	vectorIdentity  = "AGE-SECRET-KEY-10KM66JUH6MGUKQVW9U465JGCS8H30YJA3P0KF9Q6Y8AYG3S09LZSHWYSG0"
	vectorRecipient = "age12ejthzm7c48lfet9ewmp8hvqs554xwwn0lcgq5cjfw0cm4u0jfaqyr64rj"
	// 32 bytes 0x52, 32 bytes 0x53, 31 bytes 0x52
	vectorAgeFile      = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBNeWtEeDVjbks4UmZRZ3FuVnhudG85SEpxYVR1TDErK1dmbDFyVTRuZzJRCjFPTWF2ZUplWnhaelBLMEtidVpwK1pNSGgvLzNraFFrT2FvUitHM09HQUEKLS0tIFhWWkp4WlBlVFdDcjZ1bEFPdVdnVTgvYk1JRXg5OCswdFY3bmMvWDhaeUkK0YuThm3NqvpvNhw03l9sG5fEYbkap09gOygMq8hKNz6hEjb4Rnu3dcSR+P863UW49+oVy+APJ/7qimfxOCFOhw=="
	vectorAgeFileOther = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBuMmlhLzhaUGhwQU9CUkcrY1MyS0VaNmlaWmJKbDJBZFBoTGp6MXhvczFrClB6QVBWMkNlVGMwblU2YlVTYzFKeTZmZVdobitjYUl1WXNTdk9mUWZjbmMKLS0tIHFYNFcxYVdiZEhDWDdNakgzL0VxeGQzaEhYVXJsOEpGWWhSSVFSVHpCYlEK5T5SnoJNQ7+i+1Y660VyQhneppTyM0oTLA6Unrg2mnmxfPskqY9MssKPRVQJjNa0IE69yIu/Q8USsIU4KxghOA=="
	vectorAgeFileShort = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA5OVNEbVo0bi9mYXBPUVJ2Nmpob0JBSCtrclcyT0MwemlPb0dvSEh0cTFBCk1NalNjR2gxM1ZsWUg3d0dhOTllZ3VFYjlDR1hwaDQySi8wbDA2dFl3T0UKLS0tIGt6b2pyL2lLQjRySDcvNW1vYkw4b1ZnSHFGV3hrZDduQ2VhaGpVdDlXOWcK9F/rrdKc3YZ86WNgvlY1El1rs8XiWOvXhl7gUjhdrt5sruRiVMm/cFqiXLcNUTiNDdoiLy/GZ27UPR5Sb+Nt"
)

var (
	vectorAgeSecret = bytes.Repeat([]byte{0x52}, ageSecretSize)
	vectorKeyFile   = bytes.Repeat([]byte{0x51}, MinKeyFile)
)

// vectorSlots has a slot of a key file and one of a recipient.
func vectorSlots(t testing.TB) *Config {
	t.Helper()
	mk, err := keys.MasterKeyFrom(vectorKey)
	if err != nil {
		t.Fatal(err)
	}
	defer mk.Destroy()
	ring := keys.NewRing(mk, vectorID)
	defer ring.Destroy()
	c := &Config{
		VaultID: vectorID, Commitment: ring.Commitment(), Created: vectorTime,
		Params: keys.FileParams{Suite: suite.XAES256GCM, Digest: 4, SegmentSize: 64 << 10, FrameSize: 4 << 10},
		Slots: []Slot{
			{ID: [8]byte([]byte("keyfile.")), Kind: KindKeyFile, Label: "a key \u00fc", Created: vectorTime},
			{ID: [8]byte([]byte("age slot")), Kind: KindAge, Recipient: vectorRecipient, Created: vectorTime},
		},
	}
	if c.Slots[1].AgeFile, err = base64.StdEncoding.DecodeString(vectorAgeFile); err != nil {
		t.Fatal(err)
	}
	for i, secret := range []Secret{KeyFile(vectorKeyFile), ageSecret(vectorAgeSecret)} {
		s := &c.Slots[i]
		copy(s.Salt[:], bytes.Repeat([]byte{byte(0xa0 + i)}, saltSize))
		copy(s.Nonce[:], bytes.Repeat([]byte{byte(0xb0 + i)}, 24))
		if err := s.seal(mk, vectorID, secret, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.seal(ring); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSlotVectors(t *testing.T) {
	_, ring := vectorRing(t)
	text := string(vectorSlots(t).file())
	edit, resealed := editors(t, ring, text)
	all := map[string]*vectors.Vector{}
	add := func(name, expect, comment, file string) *vectors.Vector {
		v := new(vectors.Vector).Set("expect", expect).Set("comment", comment).SetHex("vmk", vectorKey).SetHex("config", []byte(file))
		all["slot_"+name] = v
		return v
	}
	byFile := func(name, expect, comment, file string) {
		add(name, expect, comment, file).SetHex("keyfile", vectorKeyFile)
	}
	byAge := func(name, expect, comment, file string) {
		add(name, expect, comment, file).Set("identity", vectorIdentity)
	}
	other, err := age.ParseX25519Identity("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX")
	if err != nil {
		t.Fatal(err)
	}

	byFile("keyfile", "success", "a key file of 32 bytes", text)
	byAge("age", "success", "an X25519 identity", text)
	byFile("label_empty", "success", "an empty label is none", resealed(`"label": "a key ü"`, `"label": ""`))
	add("keyfile_wrong", "wrong key file", "the last byte is another", text).SetHex("keyfile", append(bytes.Clone(vectorKeyFile[1:]), 0))
	add("keyfile_short", "length of key file", "31 bytes", text).SetHex("keyfile", vectorKeyFile[1:])
	add("age_wrong", "wrong identity", "another identity", text).Set("identity", other.String())
	byFile("keyfile_salt_changed", "wrong key file", "cannot be told from a wrong key file", resealed(`"salt": "a0`, `"salt": "a1`))
	byFile("keyfile_id_changed", "not authentic", "the wrapped key is bound to its slot id", resealed(hex.EncodeToString([]byte("keyfile.")), "0000000000000000"))
	byAge("age_id_changed", "not authentic", "the wrapped key is bound to its slot id", resealed(hex.EncodeToString([]byte("age slot")), "0000000000000000"))
	byFile("keyfile_vault_id_changed", "not authentic", "the wrapped key is bound to its vault", resealed(hex.EncodeToString(vectorID[:]), strings.Repeat("00", 16)))
	byAge("age_file_other", "wrong identity", "an age file for the recipient, made by somebody else", resealed(vectorAgeFile, vectorAgeFileOther))
	byAge("age_file_short", "not authentic", "an age file of 31 bytes", resealed(vectorAgeFile, vectorAgeFileShort))
	byAge("age_file_padding", "malformed", "base64 that is not canonical", resealed(vectorAgeFile, vectorAgeFile+"="))
	byAge("age_file_empty", "malformed", "no age file", resealed(vectorAgeFile, ""))
	byAge("age_recipient_changed", "not authentic", "the recipient is under the MAC", edit(vectorRecipient, vectorRecipient+"q"))
	byAge("age_recipient_upper_case", "malformed", "a recipient in upper case", resealed(vectorRecipient, strings.ToUpper(vectorRecipient)))
	byFile("label_changed", "not authentic", "the label is under the MAC", edit("a key", "my key"))
	byFile("label_control", "malformed", "a line break in a label", resealed("a key", `a\nkey`))
	byFile("label_long", "malformed", "a label of 65 bytes", resealed("a key \u00fc", strings.Repeat("x", 65)))
	byFile("label_twice", "malformed", "two labels", resealed(`"label": "a key ü"`, `"label": "a", "label": "b"`))
	byFile("kind_unknown", "unknown feature", "no such kind", resealed(`"kind": "keyfile"`, `"kind": "tpm"`))
	byFile("kdf_unknown", "unknown feature", "a key file has HKDF", resealed(`"kdf": "hkdf-sha256"`, `"kdf": "argon2id"`))
	byFile("keyfile_with_time", "malformed", "a key of another kind", resealed(`"kdf": "hkdf-sha256"`, `"kdf": "hkdf-sha256", "time": 1`))
	byFile("kind_as_age", "malformed", "a key file's slot said to be age's", resealed(`"kind": "keyfile"`, `"kind": "age"`))
	byFile("no_slots", "malformed", "a slot is required", resealed(text[strings.Index(text, `"slots": [`):strings.Index(text, "}\n#")], "\"slots\": []\n"))
	paths := vectors.Sync(t, vectorDir, "slot_", all, *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		if v.Has("keyfile") {
			return checkConfigVector(t, v, KeyFile(v.Hex("keyfile")))
		}
		id, err := age.ParseX25519Identity(v.Get("identity"))
		if err != nil {
			t.Fatal(err)
		}
		return checkConfigVector(t, v, Identities(id))
	})
}

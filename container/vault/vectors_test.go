package vault

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors of this package")

const vectorDir = "../testdata/vectors"

// expectations maps the field expect of a vector to the error it stands for.
var expectations = map[string]error{
	"success":          nil,
	"malformed":        ErrConfig,
	"not authentic":    ErrTampered,
	"wrong passphrase": ErrPassphrase,
	"unknown version":  ErrVersion,
	"unknown feature":  ErrFeature,
	"kdf bounds":       ErrKDF,
	"foreign":          ErrState,
	"torn":             errSlotTorn,
	"empty":            errSlotEmpty,

	"wrong key file": ErrKeyFile, "length of key file": ErrKeyFileSize, "wrong identity": ErrIdentity,
}

var (
	vectorKey  = bytes.Repeat([]byte{0x42}, keys.MasterKeySize)
	vectorID   = keys.VaultID([]byte("vector vault id."))
	vectorTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func vectorRing(t *testing.T) (*keys.MasterKey, *keys.Ring) {
	mk, err := keys.MasterKeyFrom(vectorKey)
	if err != nil {
		t.Fatal(err)
	}
	ring := keys.NewRing(mk, vectorID)
	t.Cleanup(func() { mk.Destroy(); ring.Destroy() })
	return mk, ring
}

func vectorConfig(t *testing.T) *Config {
	mk, ring := vectorRing(t)
	c := &Config{
		VaultID: vectorID, Commitment: ring.Commitment(), Created: vectorTime,
		Params: keys.FileParams{Suite: suite.XAES256GCM, Digest: 4, SegmentSize: 64 << 10, FrameSize: 4 << 10},
	}
	for i, pass := range []string{"first passphrase", "second passphrase"} {
		s := Slot{Kind: KindPassphrase, Created: vectorTime, KDF: KDF{Time: 2, MemoryKiB: 64, Threads: 4}}
		copy(s.ID[:], []byte{'s', 'l', 'o', 't', ' ', 'i', 'd', byte('0' + i)})
		copy(s.Salt[:], bytes.Repeat([]byte{byte(0xa0 + i)}, saltSize))
		copy(s.Nonce[:], bytes.Repeat([]byte{byte(0xb0 + i)}, 24))
		if err := s.seal(mk, vectorID, Passphrase([]byte(pass)), nil); err != nil {
			t.Fatal(err)
		}
		c.Slots = append(c.Slots, s)
	}
	if err := c.seal(ring); err != nil {
		t.Fatal(err)
	}
	return c
}

// editors answers two functions that change the text of a config file in one place: edit leaves the MAC as it was, resealed makes it hold, so that what is wrong
// is wrong by itself.
func editors(t *testing.T, ring *keys.Ring, text string) (edit, resealed func(old, new string) string) {
	edit = func(old, new string) string {
		s := strings.Replace(text, old, new, 1)
		if s == text {
			t.Fatalf("%q does not occur", old)
		}
		return s
	}
	resealed = func(old, new string) string {
		s := edit(old, new)
		c := Config{body: []byte(s[:len(s)-trailerSize])}
		c.mac = configMAC(ring, c.body)
		return string(c.file())
	}
	return edit, resealed
}

func TestConfigVectors(t *testing.T) {
	_, ring := vectorRing(t)
	good := vectorConfig(t)
	all := map[string]*vectors.Vector{}
	add := func(name, expect, comment, passphrase, file string) {
		all[name] = new(vectors.Vector).Set("expect", expect).Set("comment", comment).
			SetHex("vmk", vectorKey).Set("passphrase", passphrase).SetHex("config", []byte(file))
	}
	text := string(good.file())
	edit, resealed := editors(t, ring, text)
	add("config_first_slot", "success", "two key slots, the passphrase of the first", "first passphrase", text)
	add("config_second_slot", "success", "two key slots, the passphrase of the second", "second passphrase", text)
	add("config_other_layout", "success", "white space is free where JSON leaves it so, under the MAC", "first passphrase", resealed("  ", "\t"))
	add("config_compat_feature", "success", "an unknown compat feature is ignored", "first passphrase", resealed(` "compat": 0`, ` "compat": 1`))
	add("config_ro_compat_feature", "success", "an unknown ro-compat feature: for reading only", "first passphrase", resealed(`"ro_compat": 0`, `"ro_compat": 1`))
	add("config_wrong_passphrase", "wrong passphrase", "no slot opens", "third passphrase", text)
	add("config_salt_changed", "wrong passphrase", "cannot be told from a wrong passphrase", "first passphrase", resealed(`"salt": "a0`, `"salt": "a1`))
	add("config_kdf_downgraded", "wrong passphrase", "one pass less", "first passphrase", resealed(`"time": 2`, `"time": 1`))
	add("config_slot_id_changed", "not authentic", "the wrapped key is bound to its slot id", "first passphrase",
		resealed(hex.EncodeToString(good.Slots[0].ID[:]), "0000000000000000"))
	add("config_vault_id_changed", "not authentic", "the wrapped key is bound to its vault", "first passphrase",
		resealed(hex.EncodeToString(vectorID[:]), strings.Repeat("00", 16)))
	add("config_commitment_changed", "not authentic", "the vault commitment is another", "first passphrase",
		resealed(hex.EncodeToString(good.Commitment[:4]), "00000000"))
	add("config_suite_downgraded", "not authentic", "the MAC does not hold", "first passphrase", edit("xaes-256-gcm", "xchacha20-poly1305"))
	add("config_mac_cut", "malformed", "the trailer is one digit short", "first passphrase", text[:len(text)-2]+"\n")
	add("config_mac_upper_case", "malformed", "the trailer's digits are upper case", "first passphrase",
		text[:len(text)-65]+strings.ToUpper(text[len(text)-65:]))
	add("config_trailing_data", "malformed", "a newline behind the trailer", "first passphrase", text+"\n")
	add("config_key_unknown", "malformed", "a key that version 1 has not", "first passphrase", resealed(`"version": 1`, `"version": 1, "extra": 0`))
	add("config_key_repeated", "malformed", "a key twice", "first passphrase", resealed(`"key_epoch": 0`, `"key_epoch": 0, "key_epoch": 0`))
	add("config_key_missing", "malformed", "no key epoch", "first passphrase", resealed(`"key_epoch": 0,`, ``))
	add("config_key_case", "malformed", "a key in upper case", "first passphrase", resealed(`"key_epoch"`, `"KEY_EPOCH"`))
	add("config_hex_upper_case", "malformed", "a salt in upper case", "first passphrase", resealed(`"salt": "a0`, `"salt": "A0`))
	add("config_version_2", "unknown version", "a newer layout", "first passphrase", resealed(`"version": 1`, `"version": 2`))
	add("config_incompat_feature", "unknown feature", "an unknown incompat feature", "first passphrase", resealed(`"incompat": 0`, `"incompat": 1`))
	add("config_geometry_unknown", "unknown feature", "64K/8K is no geometry", "first passphrase", resealed(`"frame_size": 4096`, `"frame_size": 8192`))
	add("config_kdf_memory_unbounded", "kdf bounds", "16 GiB and 1 KiB", "first passphrase", resealed(`"memory_kib": 64`, `"memory_kib": 16777217`))
	add("config_kdf_memory_small", "kdf bounds", "less than 8 KiB a lane", "first passphrase", resealed(`"memory_kib": 64`, `"memory_kib": 31`))
	paths := vectors.Sync(t, vectorDir, "config_", all, *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		return checkConfigVector(t, v, Passphrase([]byte(v.Get("passphrase"))))
	})
}

func checkConfigVector(t *testing.T, v *vectors.Vector, secret Secret) error {
	c, err := parseConfig(v.Hex("config"))
	var mk *keys.MasterKey
	if err == nil {
		mk, _, err = c.UnlockWith(secret)
	}
	if err != nil {
		if errors.Is(err, ErrTampered) && v.Get("expect") == "malformed" { // which it is, too
			t.Errorf("%v, want malformed", err)
		}
		return err
	}
	defer mk.Destroy()
	if !bytes.Equal(mk.Bytes(), v.Hex("vmk")) {
		t.Error("another master key")
	}
	return nil
}

func TestStateVectors(t *testing.T) {
	_, ring := vectorRing(t)
	key := ring.State()
	all := map[string]*vectors.Vector{}
	add := func(name, expect, comment string, b *[slotSize]byte) {
		all[name] = new(vectors.Vector).Set("expect", expect).Set("comment", comment).
			SetHex("vmk", vectorKey).SetHex("vault_id", vectorID[:]).SetHex("slot", b[:])
	}
	clean := stateSlot{clean: true, sequence: 3, vault: vectorID, nextLink: 1, inode: 0x1122334455667788, birth: 1767323045123456789}
	open := clean
	open.clean, open.nextLink = false, 12289
	open.sessions = []session{{start: -1, first: 1, end: 8193}, {start: 1767323046000000000, first: 8193}}
	full := clean
	full.journal, full.roCompat, full.compat = [16]byte([]byte("some journal id.")), 1, 2
	for i := range maxSessions {
		full.sessions = append(full.sessions, session{start: int64(i) * 1e9, first: uint64(i) * 4096, end: uint64(i+1) * 4096})
	}
	edit := func(s *stateSlot, change func(b *[slotSize]byte)) *[slotSize]byte {
		b := s.encode(key)
		change(b)
		return b
	}
	resealed := func(s *stateSlot, change func(b *[slotSize]byte)) *[slotSize]byte {
		b := edit(s, change)
		sealSlot(b, key)
		return b
	}
	add("state_clean", "success", "no session is open", clean.encode(key))
	add("state_open", "success", "one unclean session and the open one", open.encode(key))
	add("state_full", "success", "64 unclean sessions, a journal id, ro-compat and compat features", full.encode(key))
	add("state_empty", "empty", "never written", new([slotSize]byte))
	add("state_torn", "torn", "the second half was not written", edit(&clean, func(b *[slotSize]byte) { clear(b[2048:]) }))
	add("state_bad_magic", "torn", "another magic", resealed(&clean, func(b *[slotSize]byte) { b[7] = '2' }))
	add("state_bad_hmac", "foreign", "the CRC holds and the HMAC does not", edit(&clean, func(b *[slotSize]byte) {
		b[16] ^= 1
		clear(b[8:12])
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:], castagnoli))
	}))
	add("state_other_vault", "foreign", "the vault id is another", resealed(&clean, func(b *[slotSize]byte) { b[24] ^= 1 }))
	add("state_version_2", "unknown version", "a newer layout", resealed(&clean, func(b *[slotSize]byte) { b[12] = 2 }))
	add("state_incompat_feature", "unknown feature", "an unknown incompat feature", resealed(&clean, func(b *[slotSize]byte) { b[84] = 1 }))
	add("state_bad_reserved", "foreign", "a reserved byte is set", resealed(&clean, func(b *[slotSize]byte) { b[96] = 1 }))
	add("state_bad_flags", "foreign", "an unknown flag is set", resealed(&clean, func(b *[slotSize]byte) { b[14] |= 2 }))
	add("state_bad_session_count", "foreign", "65 sessions", resealed(&full, func(b *[slotSize]byte) { b[80] = 65 }))
	add("state_bad_session_order", "foreign", "a session ends before it begins", resealed(&full, func(b *[slotSize]byte) { b[sessionsAt+8+7] = 1 }))
	add("state_bad_open_not_last", "foreign", "an open session that is not the last", resealed(&open, func(b *[slotSize]byte) { clear(b[sessionsAt+16 : sessionsAt+24]) }))
	add("state_bad_clean_and_open", "foreign", "clean, with an open session", resealed(&open, func(b *[slotSize]byte) { b[14] = flagClean }))
	paths := vectors.Sync(t, vectorDir, "state_", all, *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		b := (*[slotSize]byte)(v.Hex("slot"))
		s, err := decodeSlot(b, key, keys.VaultID(v.Hex("vault_id")))
		if err == nil && *s.encode(key) != *b {
			t.Error("re-encoded differently")
		}
		return err
	})
}

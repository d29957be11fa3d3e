package keys

import (
	"bytes"
	"flag"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors of this package")

const vectorDir = "../testdata/vectors"

// expectations maps the field expect of a vector to the error it stands for.
var expectations = map[string]error{
	"success":           nil,
	"recovery checksum": ErrRecoveryChecksum,
	"recovery text":     ErrRecoveryText,
}

// buildVectors builds the vectors from the formulas of FORMAT.md, by the second
// HKDF of this package's tests and not by the code under test.
func buildVectors(t *testing.T) map[string]*vectors.Vector {
	vmk := append([]byte(nil), testKey(t).Bytes()...)
	vault := VaultID{0xc0, 0xff, 0xe4, 15: 0x01}
	prk := hkdfExtract(vault[:], vmk)
	content := expand(prk, "coffer v1 content", 32)
	all := map[string]*vectors.Vector{}

	ring := new(vectors.Vector).Set("expect", "success").
		Set("comment", "the keys of a vault").
		SetHex("vmk", vmk).SetHex("vault_id", vault[:])
	for _, k := range []struct {
		label string
		size  int
	}{{"content", 32}, {"names", 64}, {"config", 32}, {"state", 32}, {"journal", 32}, {"xattr", 64}, {"commitment", 32}} {
		ring.SetHex(k.label, expand(prk, "coffer v1 "+k.label, k.size))
	}
	all["keys_ring"] = ring

	file := ObjectID{0xf1, 0x1e, 15: 0x02}
	addFile := func(name, comment string, p FileParams) {
		m := expand(content, string(appendFileInfo(nil, file, p)), 96)
		all[name] = new(vectors.Vector).Set("expect", "success").Set("comment", comment).
			SetHex("vmk", vmk).SetHex("vault_id", vault[:]).SetHex("file_id", file[:]).
			SetUint("suite", uint64(p.Suite)).SetUint("digest", uint64(p.Digest)).
			SetUint("segment_size", uint64(p.SegmentSize)).SetUint("frame_size", uint64(p.FrameSize)).SetUint("key_epoch", uint64(p.Epoch)).
			SetHex("enc", m[:32]).SetHex("auth", m[32:64]).SetHex("key_commitment", m[64:])
	}
	addFile("keys_file_keys", "the keys of a container with the parameters of a new vault",
		FileParams{Suite: suite.XAES256GCM, Digest: 4, SegmentSize: 65536, FrameSize: 4096})
	addFile("keys_file_keys_other_params", "the same container with every other parameter",
		FileParams{Suite: suite.XChaCha20Poly1305, Digest: 3, SegmentSize: 4 << 20, FrameSize: 65536, Epoch: 0x01020304})

	// Of the bytes 0 to 31, by a program in another language.
	const good = "000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFZ-XM1G"
	groups := strings.Split(good, "-")
	addRecovery := func(name, expect, comment, typed string) {
		v := new(vectors.Vector).Set("expect", expect).Set("comment", comment).Set("typed", typed)
		if expect == "success" {
			v.SetHex("vmk", vmk).Set("text", good)
		}
		all[name] = v
	}
	addRecovery("keys_recovery", "success", "as it is printed", good)
	addRecovery("keys_recovery_as_typed", "success", "lower case, spaces and look-alikes",
		strings.NewReplacer("-", " ", "1", "l", "0", "o").Replace(strings.ToLower(good)))
	swapped := append([]string(nil), groups...)
	swapped[3], swapped[4] = swapped[4], swapped[3]
	addRecovery("keys_recovery_swapped_groups", "recovery checksum", "groups 4 and 5 swapped", strings.Join(swapped, "-"))
	addRecovery("keys_recovery_wrong_character", "recovery checksum", "the last character is another one", good[:len(good)-1]+other(good[len(good)-1]))
	addRecovery("keys_recovery_missing_group", "recovery text", "the last group is missing", strings.Join(groups[:13], "-"))
	addRecovery("keys_recovery_extra_group", "recovery text", "a fifteenth group", good+"-0000")
	addRecovery("keys_recovery_letter_u", "recovery text", "Crockford's alphabet has no U", "U"+good[1:])
	return all
}

func other(c byte) string {
	if c == '0' {
		return "1"
	}
	return "0"
}

func TestVectors(t *testing.T) {
	paths := vectors.Sync(t, vectorDir, "keys_", buildVectors(t), *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		if v.Has("typed") {
			return checkRecovery(t, v)
		}
		mk, err := MasterKeyFrom(v.Hex("vmk"))
		if err != nil {
			return err
		}
		defer mk.Destroy()
		r := NewRing(mk, VaultID(v.Hex("vault_id")))
		defer r.Destroy()
		if v.Has("file_id") {
			checkFile(t, v, r)
		} else {
			checkRing(t, v, r)
		}
		return nil
	})
}

func checkRing(t *testing.T, v *vectors.Vector, r *Ring) {
	commitment := r.Commitment()
	for field, got := range map[string][]byte{
		"content": r.key(contentAt, contentSize), "names": r.Names(), "config": r.Config(), "state": r.State(),
		"journal": r.Journal(), "xattr": r.Xattr(), "commitment": commitment[:],
	} {
		if !bytes.Equal(got, v.Hex(field)) {
			t.Errorf("%s is %x", field, got)
		}
	}
}

func checkFile(t *testing.T, v *vectors.Vector, r *Ring) {
	k := r.File(ObjectID(v.Hex("file_id")), FileParams{
		Suite: suite.ID(v.Uint("suite")), Digest: uint8(v.Uint("digest")),
		SegmentSize: uint32(v.Uint("segment_size")), FrameSize: uint32(v.Uint("frame_size")), Epoch: uint32(v.Uint("key_epoch")),
	})
	for field, got := range map[string][]byte{"enc": k.Enc[:], "auth": k.Auth[:], "key_commitment": k.Commitment[:]} {
		if !bytes.Equal(got, v.Hex(field)) {
			t.Errorf("%s is %x", field, got)
		}
	}
}

func checkRecovery(t *testing.T, v *vectors.Vector) error {
	got, err := DecodeRecovery(v.Get("typed"))
	if err != nil {
		if got != nil {
			t.Errorf("a refused key leaves %x", got)
		}
		return err
	}
	if !bytes.Equal(got, v.Hex("vmk")) {
		t.Errorf("decoded %x", got)
	}
	if text := EncodeRecovery(v.Hex("vmk")); text != v.Get("text") {
		t.Errorf("encoded %s", text)
	}
	return nil
}

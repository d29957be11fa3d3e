package stream

import (
	"bytes"
	"errors"
	"flag"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors anew")

const vectorDir = "testdata/vectors"

var expectations = map[string]error{
	"ok": nil, "key": container.ErrKey, "auth": container.ErrAuth, "corrupt": container.ErrCorrupt, "truncated": container.ErrTruncated, "trailing": container.ErrTrailing,
	"digest": container.ErrDigest, "version": container.ErrVersion, "feature": container.ErrFeature, "not_stream": ErrNotStream, "key_file": vault.ErrKeyFile,
	"passphrase": vault.ErrPassphrase,
}

// pattern is the plaintext of the vectors: byte i is (7·i + i/256) mod 256.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(7*i + i>>8)
	}
	return b
}

// TestVectors reads every vector back; with -update it writes them first. FORMAT.md section 15 says what the fields mean.
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*"))
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d vectors, %v", len(paths), err)
	}
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		secret := vault.KeyFile(v.Hex("key_file"))
		if v.Has("passphrase") {
			secret = vault.Passphrase(v.Hex("passphrase"))
		}
		got, err := readAll(v.Hex("stream"), secret)
		var e *Error
		if errors.As(err, &e) && uint64(e.Offset) != v.Uint("at_byte") {
			t.Errorf("at byte %d, want %d", e.Offset, v.Uint("at_byte"))
		}
		if plain := pattern(int(v.Uint("plain_length"))); !bytes.Equal(got, plain) {
			t.Errorf("%d bytes, want %d", len(got), len(plain))
		}
		return err
	})
}

func readAll(b []byte, secret vault.Secret) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(b), secret, ReadOptions{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out bytes.Buffer
	_, err = r.WriteTo(&out)
	return out.Bytes(), err
}

func writeVectors(t *testing.T) {
	want := map[string]*vectors.Vector{}
	put := func(name, expect string, at, plain int, b []byte) *vectors.Vector {
		v := new(vectors.Vector).Set("expect", expect).SetUint("at_byte", uint64(at)).SetUint("plain_length", uint64(plain)).SetHex("key_file", keyFile).SetHex("stream", b)
		want["stream_"+name] = v
		return v
	}
	for _, s := range []suite.ID{suite.XAES256GCM, suite.XChaCha20Poly1305} {
		for _, d := range []container.DigestAlg{container.BLAKE3, container.SHA256, container.NoDigest, container.CRC32C} {
			name := map[suite.ID]string{suite.XAES256GCM: "xaes", suite.XChaCha20Poly1305: "xchacha"}[s] + "_" + d.String()
			put(name, "ok", 0, 1000, seal(t, pattern(1000), Options{Suite: s, Digest: d, SegmentSize: 16 << 10}))
		}
	}
	put("empty", "ok", 0, 0, seal(t, nil, small))
	put("default_sizes", "ok", 0, 10, seal(t, pattern(10), Options{}))
	two := seal(t, pattern(16<<10+100), small)
	put("two_segments", "ok", 0, 16<<10+100, two)
	var b bytes.Buffer
	w, err := NewWriter(&b, small, ToKeyFile(keyFile), ToPassphrase([]byte("horse"), cheap, nil))
	if err == nil {
		_, err = w.Write(pattern(20))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	put("passphrase", "ok", 0, 20, b.Bytes()).SetHex("passphrase", []byte("horse"))
	put("passphrase_wrong", "passphrase", 0, 0, b.Bytes()).SetHex("passphrase", []byte("cow"))

	head, first := two[:lay.header], two[lay.header:lay.header+lay.segment]
	put("bad_last_segment_cut_off", "truncated", lay.header+lay.segment, 16<<10, two[:lay.header+lay.segment])
	put("bad_first_segment_cut_off", "corrupt", lay.header, 0, append(bytes.Clone(head), two[lay.header+lay.segment:]...))
	put("bad_segment_twice", "corrupt", lay.header+lay.segment, 16<<10, append(append(append(bytes.Clone(head), first...), first...), two[lay.header+lay.segment:]...))

	one := seal(t, pattern(100), small)
	put("bad_trailing_byte", "trailing", len(one), 0, append(bytes.Clone(one), 0))
	put("bad_twice", "trailing", len(one), 0, append(bytes.Clone(one), one...))
	put("bad_cut", "truncated", len(one)-1, 0, one[:len(one)-1])
	put("bad_header_cut", "truncated", 100, 0, one[:100])
	put("bad_only_header", "truncated", lay.header, 0, one[:lay.header])
	put("bad_not_final", "auth", lay.header, 0, flip(one, lay.header+6))
	put("bad_content", "auth", lay.header, 0, flip(one, lay.header+60))
	put("bad_digest_frame", "auth", lay.header+172, 0, flip(one, len(one)-1))
	put("bad_spliced", "auth", lay.header, 0, append(bytes.Clone(one[:lay.header]), seal(t, pattern(100), small)[lay.header:]...))
	put("bad_magic", "not_stream", 0, 0, flip(one, 0))
	put("bad_checksum", "corrupt", 8, 0, flip(one, 40))
	for _, c := range []struct {
		name, expect string
		at           int
		do           func(b []byte)
	}{
		{"version_2", "version", 12, func(b []byte) { b[12] = 2 }},
		{"suite_9", "feature", 14, func(b []byte) { b[14] = 9 }},
		{"suite_other", "key", 48, func(b []byte) { b[14] = 2 }},
		{"digest_0", "feature", 15, func(b []byte) { b[15] = 0 }},
		{"segment_size", "feature", 16, func(b []byte) { b[16] = 1 }},
		{"header_length_huge", "corrupt", 24, func(b []byte) { le32(b[24:], 1<<31) }},
		{"feature", "feature", 28, func(b []byte) { b[28] = 1 }},
		{"slots_none", "corrupt", 80, func(b []byte) { b[80] = 0 }},
		{"slots_missing", "corrupt", lay.header - 32, func(b []byte) { b[80] = 2 }},
		{"reserved", "corrupt", 82, func(b []byte) { b[82] = 1 }},
		{"slot_kind", "feature", headSize, func(b []byte) { b[headSize] = 4 }},
		{"slot_reserved", "corrupt", headSize, func(b []byte) { b[headSize+2] = 1 }},
		{"slot_age_file_huge", "corrupt", headSize, func(b []byte) { b[headSize] = 3; le32(b[headSize+4:], 1<<31) }},
		{"slot_kdf_unbounded", "corrupt", headSize, func(b []byte) {
			b[headSize], b[headSize+1] = 1, 1
			le32(b[headSize+152:], 17)
			le32(b[headSize+156:], 64)
		}},
		{"slot_salt", "key_file", 0, func(b []byte) { b[headSize+16] ^= 1 }},
		{"mac", "auth", lay.header - 32, func(b []byte) { b[lay.header-1] ^= 1 }},
	} {
		b := bytes.Clone(one)
		c.do(b)
		le32(b[8:], headerCRC(b[:lay.header]))
		put("bad_header_"+c.name, c.expect, c.at, 0, b)
	}
	vectors.Sync(t, vectorDir, "stream_", want, true)
}

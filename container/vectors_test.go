package container

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors anew")

const vectorDir = "testdata/vectors"

// The world of all vectors.
var (
	vectorVMK   = bytes.Repeat([]byte{0x42}, 32)
	vectorVault = keys.VaultID([]byte("vector vault id."))
	vectorFile  = keys.ObjectID([]byte("vector object id"))
)

var expectations = map[string]error{
	"ok": nil, "auth": ErrAuth, "corrupt": ErrCorrupt, "truncated": ErrTruncated, "no_header": ErrNoHeader, "key": ErrKey, "identity": ErrIdentity,
	"version": ErrVersion, "feature": ErrFeature, "geometry": ErrGeometry,
}

type vectorWorld struct {
	geo    *Geometry
	params keys.FileParams
	keys   keys.FileKeys
	crypto fileCrypto
}

func newVectorWorld(t *testing.T, g *Geometry, s suite.ID, d DigestAlg) *vectorWorld {
	mk, err := keys.MasterKeyFrom(vectorVMK)
	if err != nil {
		t.Fatal(err)
	}
	w := &vectorWorld{geo: g, params: keys.FileParams{Suite: s, Digest: uint8(d), SegmentSize: uint32(g.SegmentSize), FrameSize: uint32(g.FrameSize)}}
	w.keys = keys.NewRing(mk, vectorVault).File(vectorFile, w.params)
	c, err := suite.New(s, w.keys.Enc[:])
	if err != nil {
		t.Fatal(err)
	}
	w.crypto = fileCrypto{vault: vectorVault, id: vectorFile, suite: s, digest: d, cipher: c, auth: w.keys.Auth}
	return w
}

// describe begins a vector with all that another implementation needs.
func (w *vectorWorld) describe() *vectors.Vector {
	v := &vectors.Vector{}
	return v.SetHex("vmk", vectorVMK).SetHex("vault_id", vectorVault[:]).SetHex("file_id", vectorFile[:]).
		Set("suite", w.crypto.suite.String()).Set("digest", w.crypto.digest.String()).Set("geometry", w.geo.String())
}

func worldOf(t *testing.T, v *vectors.Vector) *vectorWorld {
	s, err := suite.Parse(v.Get("suite"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDigest(v.Get("digest"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range geometries {
		if g.String() == v.Get("geometry") {
			return newVectorWorld(t, g, s, d)
		}
	}
	t.Fatalf("geometry %s", v.Get("geometry"))
	return nil
}

// entry seals pattern bytes with a nonce made from the place, so that vectors can be made again.
func (w *vectorWorld) entry(t *testing.T, typ uint8, segment uint64, frame, n int) (entry, []byte) {
	plain := make([]byte, n)
	for i := range plain {
		plain[i] = byte(i*7 + frame)
	}
	nonce := bytes.Repeat([]byte{byte(segment), byte(frame), 0x5a}, 8)
	s := &scratch{}
	h := frameHeader{typ: typ, suite: w.crypto.suite, segment: segment, frame: uint32(frame), length: uint32(n), generation: 3}
	sealed, err := suite.SealWithNonce(w.crypto.suite, w.keys.Enc[:], nonce, nil, plain, s.setAD(&w.crypto, &h))
	if err != nil {
		t.Fatal(err)
	}
	s.use(w.crypto.digest)
	e := entry(make([]byte, entrySize))
	e.set(h.length, h.generation, nonce, sealed[n:], s.leaf(s.header(), sealed[:n]))
	return e, sealed[:n]
}

func (w *vectorWorld) record(t *testing.T, segment uint64) record {
	r := record(make([]byte, w.geo.record))
	r.begin(segment, vectorFile[:])
	for i := 0; i < w.geo.Frames; i += 2 { // every other frame is a hole
		e, _ := w.entry(t, frameData, segment, i, w.geo.FrameSize)
		copy(r.entry(i), e)
	}
	s := &scratch{}
	s.use(w.crypto.digest)
	r.finish(&s.hasher, w.geo.Frames)
	return r
}

func (w *vectorWorld) header(t *testing.T, kind uint8) *header {
	h := &header{suite: w.crypto.suite, digest: w.crypto.digest, geo: w.geo, vault: vectorVault, id: vectorFile, commitment: w.keys.Commitment,
		sequence: 17, size: 1234567, timesSet: true, mtime: timespec{1700000000, 123456789}, ctime: timespec{-1, 999999999}, kind: kind, object: ObjectFile}
	switch kind {
	case bodyInline:
		e, ct := w.entry(t, frameInline, 0, 0, 100)
		h.body = append(e[:len(e):len(e)], ct...)
	case bodySingle:
		h.body = w.record(t, 0)
	case bodyTree:
		for i := range pinSize * (headerGroups + topNodes) {
			h.body = append(h.body, byte(i))
		}
	}
	return h
}

// TestVectors reads every vector of this package back; with -update it writes them first. FORMAT.md says what the fields mean.
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	for kind, k := range map[string]struct {
		least int
		check func(*testing.T, *vectors.Vector) error
	}{
		"geometry": {9, checkGeometryVector}, "frame": {5, checkFrameVector}, "record": {12, checkRecordVector},
		"node": {4, checkNodeVector}, "pin": {4, checkPinVector}, "header": {40, checkHeaderVector},
	} {
		paths, err := filepath.Glob(filepath.Join(vectorDir, kind+"_*"))
		if err != nil || len(paths) < k.least {
			t.Errorf("%d vectors of kind %s, want at least %d; %v", len(paths), kind, k.least, err)
		}
		vectors.Run(t, paths, expectations, k.check)
	}
}

func checkGeometryVector(t *testing.T, v *vectors.Vector) error {
	g := worldOf(t, v).geo
	for _, field := range v.Names() {
		off, ok := strings.CutPrefix(field, "host_of_")
		if !ok {
			continue
		}
		var p int64
		fmt.Sscan(off, &p)
		if got := g.hostOffset(p); uint64(got) != v.Uint(field) {
			t.Errorf("plain byte %d at %d, want %d", p, got, v.Uint(field))
		}
	}
	for level := uint8(1); level <= treeLevels; level++ {
		if got := g.nodeAddr(level, 1); uint64(got) != v.Uint(fmt.Sprintf("node_1_of_level_%d", level)) {
			t.Errorf("node 1 of level %d at %d", level, got)
		}
	}
	return nil
}

func checkFrameVector(t *testing.T, v *vectors.Vector) error {
	w := worldOf(t, v)
	wire := v.Hex("wire")
	var h frameHeader
	if err := h.parse(wire, 0); err != nil {
		return err
	}
	if int(h.length)+wireOverhead != len(wire) {
		return ErrTruncated
	}
	s := &scratch{}
	ad := s.setAD(&w.crypto, &h)
	if !bytes.Equal(ad, v.Hex("associated_data")) {
		t.Errorf("associated data %x", ad)
	}
	s.use(w.crypto.digest)
	leaf := s.leaf(s.header(), wire[frameHeaderSize+suite.NonceSize:][:h.length])
	if !bytes.Equal(leaf[:], v.Hex("leaf")) {
		t.Errorf("leaf %x", leaf)
	}
	plain, err := w.crypto.cipher.Open(nil, wire[frameHeaderSize:][:suite.NonceSize], wire[frameHeaderSize+suite.NonceSize:], ad)
	if err == nil && !bytes.Equal(plain, v.Hex("plaintext")) {
		t.Errorf("plaintext %x", plain)
	}
	return err
}

func checkRecordVector(t *testing.T, v *vectors.Vector) error {
	w := worldOf(t, v)
	r := record(v.Hex("record"))
	if err := r.check(w.geo, v.Uint("segment"), vectorFile[:]); err != nil {
		return err
	}
	again := record(bytes.Clone(r))
	s := &scratch{}
	s.use(w.crypto.digest)
	again.finish(&s.hasher, w.geo.Frames)
	if !bytes.Equal(again, r) {
		return ErrDigest
	}
	return nil
}

func checkNodeVector(t *testing.T, v *vectors.Vector) error {
	b := block(v.Hex("block"))
	return b.checkNode(uint8(v.Uint("level")), v.Uint("index"), vectorFile[:])
}

func checkPinVector(t *testing.T, v *vectors.Vector) error {
	b := block(v.Hex("block"))
	if p := worldOf(t, v).crypto.pinOf(uint8(v.Uint("level")), v.Uint("index"), &b); !bytes.Equal(p[:], v.Hex("pin")) {
		return ErrAuth
	}
	return nil
}

func checkHeaderVector(t *testing.T, v *vectors.Vector) error {
	b := block(v.Hex("block"))
	var h header
	if err := h.parse(&b); err != nil {
		return err
	}
	mk, err := keys.MasterKeyFrom(vectorVMK)
	if err != nil {
		t.Fatal(err)
	}
	k := keys.NewRing(mk, vectorVault).File(h.id, keys.FileParams{Suite: h.suite, Digest: uint8(h.digest), SegmentSize: uint32(h.geo.SegmentSize), FrameSize: uint32(h.geo.FrameSize), Epoch: h.epoch})
	if err := h.verify(&b, vectorVault, vectorFile, &k); err != nil {
		return err
	}
	if h.size != 1234567 || h.sequence != 17 || h.mtime.nsec != 123456789 || uint64(h.kind) != v.Uint("body_kind") {
		t.Errorf("decoded %+v", h)
	}
	var again block
	h.seal(&again, newMAC(&k.Auth))
	if again != b {
		t.Error("does not encode to the same bytes")
	}
	return nil
}

func writeVectors(t *testing.T) {
	for _, kind := range []string{"geometry", "frame", "record", "node", "pin", "header"} {
		old, _ := filepath.Glob(filepath.Join(vectorDir, kind+"_*"))
		for _, path := range old {
			os.Remove(path)
		}
	}
	put := func(name, expect string, v *vectors.Vector) {
		t.Helper()
		if err := vectors.Write(filepath.Join(vectorDir, name), v.Set("expect", expect)); err != nil {
			t.Fatal(err)
		}
	}
	fileName := func(g *Geometry) string { return strings.ToLower(strings.ReplaceAll(g.String(), "/", "_")) }
	for _, g := range geometries {
		w := newVectorWorld(t, g, suite.XAES256GCM, CRC32C)
		v := w.describe()
		for _, p := range []int64{0, 1, g.groupPlain - 1, g.groupPlain, 32*g.groupPlain - 1, 32 * g.groupPlain, 160*g.groupPlain - 1, 160 * g.groupPlain, (32+1<<14)*g.groupPlain + 5, (32+1<<21)*g.groupPlain + 5, g.MaxSize() - 1} {
			v.SetUint(fmt.Sprintf("host_of_%d", p), uint64(g.hostOffset(p)))
		}
		for level := uint8(1); level <= treeLevels; level++ {
			v.SetUint(fmt.Sprintf("node_1_of_level_%d", level), uint64(g.nodeAddr(level, 1)))
		}
		put("geometry_"+fileName(g), "ok", v)
		put("record_"+fileName(g), "ok", w.describe().SetUint("segment", 1<<33+5).SetHex("record", w.record(t, 1<<33+5)))
		kinds := []uint8{bodyNone, bodyInline, bodyTree}
		if g.Frames <= 16 {
			kinds = append(kinds, bodySingle)
		}
		for _, kind := range kinds {
			var b block
			w.header(t, kind).seal(&b, newMAC(&w.keys.Auth))
			put(fmt.Sprintf("header_%s_%s", fileName(g), []string{"none", "inline", "single", "tree"}[kind]), "ok", w.describe().SetUint("body_kind", uint64(kind)).SetHex("block", b[:]))
		}
	}

	for _, s := range []suite.ID{suite.XAES256GCM, suite.XChaCha20Poly1305} {
		for _, d := range []DigestAlg{BLAKE3, SHA256, NoDigest, CRC32C} {
			w := newVectorWorld(t, geometries[8], s, d)
			frame := func() (*vectors.Vector, []byte) {
				e, ct := w.entry(t, frameData, 7, 3, 40)
				h := frameHeader{typ: frameData, suite: s, segment: 7, frame: 3, length: 40, generation: 3}
				wire := make([]byte, frameHeaderSize)
				h.put(wire)
				wire = append(append(append(wire, e.nonce()...), ct...), e.tag()...)
				sc := &scratch{}
				plain := make([]byte, 40)
				for i := range plain {
					plain[i] = byte(i*7 + 3)
				}
				return w.describe().SetHex("associated_data", sc.setAD(&w.crypto, &h)).SetHex("plaintext", plain).SetHex("leaf", e.leaf()), wire
			}
			v, wire := frame()
			put(fmt.Sprintf("frame_%s_%s", strings.ReplaceAll(s.String(), "-", "_"), d), "ok", v.SetHex("wire", wire))
			if s != suite.XAES256GCM || d != CRC32C {
				continue
			}
			for name, c := range map[string]struct {
				expect string
				do     func(b []byte) []byte
			}{
				"magic":           {"corrupt", func(b []byte) []byte { b[0] ^= 1; return b }},
				"version_2":       {"version", func(b []byte) []byte { b[4] = 2; return b }},
				"type_0":          {"corrupt", func(b []byte) []byte { b[5] = 0; return b }},
				"type_4":          {"corrupt", func(b []byte) []byte { b[5] = 4; return b }},
				"flags":           {"corrupt", func(b []byte) []byte { b[6] = 1; return b }},
				"reserved":        {"corrupt", func(b []byte) []byte { b[31] = 1; return b }},
				"header_cut":      {"truncated", func(b []byte) []byte { return b[:31] }},
				"cut":             {"truncated", func(b []byte) []byte { return b[:len(b)-1] }},
				"tag_flipped":     {"auth", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
				"nonce_flipped":   {"auth", func(b []byte) []byte { b[40] ^= 1; return b }},
				"content_flipped": {"auth", func(b []byte) []byte { b[60] ^= 1; return b }},
			} {
				v, wire := frame()
				wire = c.do(wire)
				// What the reader sees before the AEAD refuses is stated as it is, so that only the one failure is left.
				var h frameHeader
				if h.parse(wire, 0) == nil && int(h.length)+wireOverhead == len(wire) {
					sc := &scratch{}
					v.SetHex("associated_data", sc.setAD(&w.crypto, &h))
					sc.use(d)
					leaf := sc.leaf(sc.header(), wire[frameHeaderSize+suite.NonceSize:][:h.length])
					v.SetHex("leaf", leaf[:])
				}
				put("frame_bad_"+name, c.expect, v.SetHex("wire", wire))
			}
			// Bits that only the associated data covers.
			for name, at := range map[string]int{"segment": 8, "frame_index": 16, "generation": 24} {
				v, wire := frame()
				wire[at] ^= 1
				var h frameHeader
				if err := h.parse(wire, 0); err != nil {
					t.Fatal(err)
				}
				sc := &scratch{}
				v.SetHex("associated_data", sc.setAD(&w.crypto, &h))
				sc.use(d)
				leaf := sc.leaf(sc.header(), wire[frameHeaderSize+suite.NonceSize:][:h.length])
				put("frame_bad_"+name, "auth", v.SetHex("leaf", leaf[:]).SetHex("wire", wire))
			}
		}
	}
	writeBlockVectors(t, put)
}

func writeBlockVectors(t *testing.T, put func(name, expect string, v *vectors.Vector)) {
	w := newVectorWorld(t, geometries[8], suite.XAES256GCM, CRC32C)
	fixRecord := func(r record) { binary.LittleEndian.PutUint32(r[4:], crcExcept(r, 4)) }
	for name, do := range map[string]func(r record){
		"magic":         func(r record) { r[0] ^= 1; fixRecord(r) },
		"crc":           func(r record) { r[4] ^= 1 },
		"segment":       func(r record) { r[8] ^= 1; fixRecord(r) },
		"file_id":       func(r record) { r[24] ^= 1; fixRecord(r) },
		"reserved":      func(r record) { r[80] = 1; fixRecord(r) },
		"behind":        func(r record) { r[1023] = 1; fixRecord(r) },
		"long_frame":    func(r record) { binary.LittleEndian.PutUint32(r[recordHead:], 4097); fixRecord(r) },
		"flags":         func(r record) { r[recordHead+3] = 1; fixRecord(r) },
		"hole_contents": func(r record) { r[recordHead+entrySize+8] = 1; fixRecord(r) },
	} {
		r := w.record(t, 5)
		do(r)
		put("record_bad_"+name, "corrupt", w.describe().SetUint("segment", 5).SetHex("record", r))
	}
	node := func() *block {
		b := new(block)
		b.beginNode(2, 77, vectorFile[:])
		for i := range nodeFanout {
			b.setPin(i, pin(bytes.Repeat([]byte{byte(i)}, pinSize)))
		}
		b.finishNode()
		return b
	}
	put("node_level_2", "ok", w.describe().SetUint("level", 2).SetUint("index", 77).SetHex("block", node()[:]))
	for name, do := range map[string]func(b *block){
		"magic":    func(b *block) { b[0] ^= 1; b.finishNode() },
		"crc":      func(b *block) { b[4] ^= 1 },
		"level":    func(b *block) { b[8] = 1; b.finishNode() },
		"index":    func(b *block) { b[16] ^= 1; b.finishNode() },
		"file_id":  func(b *block) { b[32] ^= 1; b.finishNode() },
		"reserved": func(b *block) { b[48] = 1; b.finishNode() },
		"behind":   func(b *block) { b[2112] = 1; b.finishNode() },
	} {
		b := node()
		do(b)
		put("node_bad_"+name, "corrupt", w.describe().SetUint("level", 2).SetUint("index", 77).SetHex("block", b[:]))
	}
	for level := uint8(0); level <= treeLevels; level++ {
		b := node()
		p := w.crypto.pinOf(level, 77, b)
		put(fmt.Sprintf("pin_level_%d", level), "ok", w.describe().SetUint("level", uint64(level)).SetUint("index", 77).SetHex("block", b[:]).SetHex("pin", p[:]))
	}
	b := node()
	p := w.crypto.pinOf(2, 77, b)
	put("pin_bad_level", "auth", w.describe().SetUint("level", 1).SetUint("index", 77).SetHex("block", b[:]).SetHex("pin", p[:]))
	put("pin_bad_index", "auth", w.describe().SetUint("level", 2).SetUint("index", 78).SetHex("block", b[:]).SetHex("pin", p[:]))
	b[4000] ^= 1
	put("pin_bad_content", "auth", w.describe().SetUint("level", 2).SetUint("index", 77).SetHex("block", b[:]).SetHex("pin", p[:]))

	// Header damage: with remac the forger has the key, so that the check behind HMAC and CRC is the one that refuses.
	for name, c := range map[string]struct {
		expect string
		kind   uint8
		remac  bool
		recrc  bool
		do     func(b *block)
	}{
		"magic":             {"no_header", bodyNone, true, true, func(b *block) { b[7] = '2' }},
		"crc":               {"corrupt", bodyNone, false, false, func(b *block) { b[8] ^= 1 }},
		"version_2":         {"version", bodyNone, true, true, func(b *block) { b[12] = 2 }},
		"incompat":          {"feature", bodyNone, true, true, func(b *block) { b[24] = 1 }},
		"suite_3":           {"feature", bodyNone, true, true, func(b *block) { b[14] = 3 }},
		"digest_0":          {"feature", bodyNone, true, true, func(b *block) { b[15] = 0 }},
		"geometry":          {"geometry", bodyNone, true, true, func(b *block) { b[21] = 0x20 }},
		"vault_id":          {"key", bodyNone, true, true, func(b *block) { b[40] ^= 1 }},
		"suite_downgraded":  {"key", bodyNone, true, true, func(b *block) { b[14] = 2 }},
		"epoch":             {"key", bodyNone, true, true, func(b *block) { b[36] = 1 }},
		"commitment":        {"key", bodyNone, true, true, func(b *block) { b[72] ^= 1 }},
		"size_without_key":  {"auth", bodyNone, false, true, func(b *block) { b[112] ^= 1 }},
		"hmac":              {"auth", bodyNone, false, true, func(b *block) { b[macOffset] ^= 1 }},
		"size_too_large":    {"corrupt", bodyNone, true, true, func(b *block) { b[119] = 0x7f }},
		"object_type":       {"corrupt", bodyNone, true, true, func(b *block) { b[173] = 2 }},
		"body_kind":         {"corrupt", bodyNone, true, true, func(b *block) { b[172] = 4 }},
		"nanoseconds":       {"corrupt", bodyNone, true, true, func(b *block) { b[155] = 0xff }},
		"reserved":          {"corrupt", bodyNone, true, true, func(b *block) { b[400] = 1 }},
		"body_of_none":      {"corrupt", bodyNone, true, true, func(b *block) { b[600] = 1 }},
		"inline_empty":      {"corrupt", bodyInline, true, true, func(b *block) { clear(b[bodyOffset:macOffset]) }},
		"inline_too_long":   {"corrupt", bodyInline, true, true, func(b *block) { b[bodyOffset+1] = 0xff }},
		"inline_behind":     {"corrupt", bodyInline, true, true, func(b *block) { b[4000] = 1 }},
		"single_record_crc": {"corrupt", bodySingle, true, true, func(b *block) { b[bodyOffset+4] ^= 1 }},
		"tree_behind":       {"corrupt", bodyTree, true, true, func(b *block) { b[4000] = 1 }},
	} {
		var b block
		w.header(t, c.kind).seal(&b, newMAC(&w.keys.Auth))
		c.do(&b)
		if c.remac {
			headerMAC(b[macOffset:macOffset], &b, newMAC(&w.keys.Auth))
		}
		if c.recrc {
			binary.LittleEndian.PutUint32(b[8:], crcExcept(b[:], 8))
		}
		put("header_bad_"+name, c.expect, w.describe().SetUint("body_kind", uint64(c.kind)).SetHex("block", b[:]))
	}
}

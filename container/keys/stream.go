package keys

import (
	"crypto/hkdf"
	"crypto/sha256"
)

const labelStream = "coffer v1 stream"

// Stream derives the keys of a sealed stream (FORMAT.md section 15) from its stream key mk and its id, which stands where a vault has its id. It
// panics when mk was destroyed.
func Stream(mk *MasterKey, id VaultID, p FileParams) (k FileKeys) {
	var prk []byte
	mk.s.use(func(b []byte) {
		if b == nil {
			panic("keys: Stream with a destroyed key")
		}
		prk = must(hkdf.Extract(sha256.New, b, id[:]))
	})
	defer clear(prk)
	info := append([]byte(labelStream), appendFileInfo(nil, ObjectID{}, p)[len(labelFile)+IDSize:]...)
	m := must(hkdf.Expand(sha256.New, prk, string(info), 96))
	defer clear(m)
	copy(k.Enc[:], m)
	copy(k.Auth[:], m[32:])
	copy(k.Commitment[:], m[64:])
	return k
}

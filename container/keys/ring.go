package keys

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"runtime"
	"sync"

	"github.com/cofferfs/coffer/container/suite"
)

// The keys of a Ring: each a label of FORMAT.md section 3, and where it lies in
// the ring's memory. K_content is used by File only.
const (
	labelPrefix = "coffer v1 " // before every label
	labelFile   = "coffer v1 file"

	contentAt, contentSize = 0, 32
	namesAt, namesSize     = contentAt + contentSize, 64
	configAt, configSize   = namesAt + namesSize, 32
	stateAt, stateSize     = configAt + configSize, 32
	journalAt, journalSize = stateAt + stateSize, 32
	xattrAt, xattrSize     = journalAt + journalSize, 64
	ringSize               = xattrAt + xattrSize
)

// A Ring holds the keys of one vault, derived from its master key. Safe for
// concurrent use. The methods that return keys return copies, which the caller
// may clear after use; after Destroy they return nil.
type Ring struct {
	VaultID VaultID // public; do not change

	secrets    *secret // ringSize bytes, laid out as above
	commitment [32]byte
	expanders  sync.Pool // of *expander
}

// NewRing derives the keys of the vault id under mk, of which it keeps nothing.
// It panics when mk was destroyed. Memory that is not given back by Destroy is
// wiped and freed when the Ring is collected.
func NewRing(mk *MasterKey, id VaultID) *Ring {
	r := &Ring{VaultID: id, secrets: newSecret(ringSize)}
	var prk []byte
	mk.s.use(func(vmk []byte) {
		if vmk == nil {
			panic("keys: NewRing with a destroyed master key")
		}
		prk = must(hkdf.Extract(sha256.New, vmk, id[:]))
	})
	defer clear(prk)

	r.secrets.use(func(b []byte) {
		for _, k := range []struct {
			label    string
			at, size int
		}{
			{"content", contentAt, contentSize},
			{"names", namesAt, namesSize},
			{"config", configAt, configSize},
			{"state", stateAt, stateSize},
			{"journal", journalAt, journalSize},
			{"xattr", xattrAt, xattrSize},
		} {
			out := must(hkdf.Expand(sha256.New, prk, labelPrefix+k.label, k.size))
			copy(b[k.at:], out)
			clear(out)
		}
	})
	r.commitment = [32]byte(must(hkdf.Expand(sha256.New, prk, labelPrefix+"commitment", 32)))

	if r.secrets.region != nil {
		runtime.AddCleanup(r, (*secret).destroy, r.secrets)
	}
	return r
}

// must unwraps what HKDF-SHA256 returns: it fails only for outputs of more than
// 255 hashes, and ours have constant sizes of at most three.
func must(b []byte, err error) []byte {
	if err != nil {
		panic("keys: " + err.Error())
	}
	return b
}

// key returns a copy of one key. Whoever reads r.secrets keeps r alive while at
// it, or the cleanup could wipe them under its hands.
func (r *Ring) key(at, size int) []byte {
	defer runtime.KeepAlive(r)
	return r.secrets.copyOf(at, size)
}

// Names returns K_names, 64 bytes: the AES-256-SIV key of package names.
func (r *Ring) Names() []byte { return r.key(namesAt, namesSize) }

// Config returns K_config, 32 bytes: it authenticates .coffer/config.
func (r *Ring) Config() []byte { return r.key(configAt, configSize) }

// State returns K_state, 32 bytes: it authenticates .coffer/state.
func (r *Ring) State() []byte { return r.key(stateAt, stateSize) }

// Journal returns K_journal, 32 bytes: it authenticates the journal.
func (r *Ring) Journal() []byte { return r.key(journalAt, journalSize) }

// Xattr returns K_xattr, 64 bytes: the AES-256-SIV key of extended attributes.
func (r *Ring) Xattr() []byte { return r.key(xattrAt, xattrSize) }

// Commitment returns the vault commitment, which is public and stands in
// config: it tells whether a master key and a vault id belong together.
func (r *Ring) Commitment() [32]byte { return r.commitment }

// Destroy wipes the keys and frees their memory. File panics afterwards. A
// second call does nothing.
func (r *Ring) Destroy() { r.secrets.destroy() }

// String hides the keys from %v and from logs.
func (r *Ring) String() string { return "keys of vault " + r.VaultID.String() }

// GoString hides the keys from %#v.
func (r *Ring) GoString() string { return r.String() }

// FileParams are the parameters of a container that its keys depend on, so that
// none of them can be changed without being found. Sizes in bytes.
type FileParams struct {
	Suite       suite.ID
	Digest      uint8 // id of FORMAT.md section 3.1
	SegmentSize uint32
	FrameSize   uint32
	Epoch       uint32 // key epoch
}

// FileKeys are the keys of one container. Enc and Auth are secret and on the
// heap; the owner clears them with Destroy.
type FileKeys struct {
	Enc        [32]byte // seals frames
	Auth       [32]byte // authenticates the header and the pins
	Commitment [32]byte // public, in the header
}

// Destroy wipes the secret keys.
func (k *FileKeys) Destroy() {
	clear(k.Enc[:])
	clear(k.Auth[:])
}

// String hides the keys from %v and from logs.
func (k FileKeys) String() string { return "keys of a container" }

// GoString hides the keys from %#v.
func (k FileKeys) GoString() string { return k.String() }

// File derives the keys of the container id with the parameters p: HKDF-Expand
// (RFC 5869) of K_content. It panics when r was destroyed.
func (r *Ring) File(id ObjectID, p FileParams) (k FileKeys) {
	defer runtime.KeepAlive(r)
	x, _ := r.expanders.Get().(*expander)
	r.secrets.use(func(b []byte) {
		if b == nil {
			panic("keys: File of a destroyed ring")
		}
		if x == nil {
			x = &expander{mac: hmac.New(sha256.New, b[contentAt:contentAt+contentSize])}
		}
	})
	appendFileInfo(x.info[:0], id, p)
	for i, out := range [][]byte{k.Enc[:], k.Auth[:], k.Commitment[:]} {
		x.block(i, out)
	}
	clear(x.t[:])
	r.expanders.Put(x)
	return k
}

// expander is HKDF-Expand of K_content for three blocks of output. crypto/hkdf
// keys its HMAC anew each time, which takes several times as long as all else.
// Its key is in the heap, as those of Codecs and Ciphers are, until it is collected.
type expander struct {
	mac hash.Hash // HMAC-SHA256 keyed with K_content

	// What is hashed for the next block: the block before, the info, a counter.
	t       [sha256.Size]byte
	info    [fileInfoSize]byte
	counter [1]byte
}

// block computes block i of the output, i from 0; the one before comes first.
func (x *expander) block(i int, out []byte) {
	x.mac.Reset()
	if i > 0 {
		x.mac.Write(x.t[:])
	}
	x.mac.Write(x.info[:])
	x.counter[0] = byte(i + 1)
	x.mac.Write(x.counter[:])
	copy(out, x.mac.Sum(x.t[:0]))
}

const fileInfoSize = 44

// appendFileInfo appends the info string of a container's keys:
//
//	 0 14  "coffer v1 file"
//	14 16  file id
//	30  1  suite
//	31  1  digest
//	32  4  segment size, little-endian as all that follow
//	36  4  frame size
//	40  4  key epoch
func appendFileInfo(b []byte, id ObjectID, p FileParams) []byte {
	b = append(b, labelFile...)
	b = append(b, id[:]...)
	b = append(b, byte(p.Suite), p.Digest)
	b = binary.LittleEndian.AppendUint32(b, p.SegmentSize)
	b = binary.LittleEndian.AppendUint32(b, p.FrameSize)
	return binary.LittleEndian.AppendUint32(b, p.Epoch)
}

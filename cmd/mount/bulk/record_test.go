package bulk

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors anew")

var recordKey = bytes.Repeat([]byte{0x42}, 32)

// TestRecordVectors: the bytes of a record are those of FORMAT.md section 16, and what differs from them in any bit is none.
func TestRecordVectors(t *testing.T) {
	r := record{
		id: keys.ObjectID([]byte("vector object id")), geometry: 9, durable: 64 << 20, edge: bytes.Repeat([]byte("edge"), 2*container.BlockSize/4),
		source: identity{dev: 0xfd00, ino: 12345, size: 1 << 33, mtime: unix.Timespec{Sec: -2, Nsec: 999_999_999}},
	}
	b := r.encode(recordKey)
	v := new(vectors.Vector).SetHex("k_state", recordKey).SetHex("file_id", r.id[:]).SetUint("source_device", r.source.dev).SetUint("source_inode", r.source.ino).
		SetUint("source_size", r.source.size).Set("source_mtime", "-2.999999999").SetUint("geometry", uint64(r.geometry)).SetUint("durable", r.durable).SetHex("record", b)
	vectors.Sync(t, "testdata/vectors", "record_", map[string]*vectors.Vector{"record_ok": v}, *update)
	if got, ok := decodeRecord(b, recordKey); !ok || !reflect.DeepEqual(got, r) {
		t.Errorf("decoded %+v, %v", got, ok)
	}
	for bit := range 8 * len(b) {
		if at := bit / 8; at >= recordHead+8 && at < len(b)-sha256.Size-8 && at%61 != 0 {
			continue // bytes of the edge are all alike
		}
		bad := bytes.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, ok := decodeRecord(bad, recordKey); ok {
			t.Errorf("bit %d flipped is a record", bit)
		}
	}
	if _, ok := decodeRecord(b, make([]byte, 32)); ok {
		t.Error("a record under another key")
	}
}

// FuzzRecord: what decodes encodes to the same bytes, with a MAC made right so as to reach what is behind it.
func FuzzRecord(f *testing.F) {
	f.Add((&record{geometry: 1, edge: make([]byte, container.BlockSize)}).encode(recordKey))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := decodeRecord(b, recordKey); !ok && len(b) > sha256.Size {
			body := len(b) - sha256.Size
			copy(b[body:], recordMAC(recordKey, recordLabel, b[:body]))
		}
		if r, ok := decodeRecord(b, recordKey); ok && !bytes.Equal(r.encode(recordKey), b) {
			t.Fatal("what decodes encodes to other bytes")
		}
	})
}

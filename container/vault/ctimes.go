package vault

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/event"
)

// The ctimes of .coffer/ctimes (FORMAT.md section 11.1):
//
//	 0   8  magic "COFFERT1"
//	 8   8  number of entries n
//	16 40n  entries, ascending by id: file id (16), host ctime and shown ctime, each seconds (i64) and nanoseconds (u32)
//	    32  HMAC(K_state, "coffer ctimes v1" ‖ vault id ‖ all before)
const (
	ctimesName   = "ctimes"
	ctimesMagic  = "COFFERT1"
	ctimesLabel  = "coffer ctimes v1"
	ctimesHead   = 16
	ctimesEntry  = 40
	maxCtimesLen = ctimesHead + ctimesEntry<<20 + sha256.Size
)

var errCtimes = errors.New("not authentic")

// Ctime says what ctime is shown of a file as long as its host file has the ctime Host.
type Ctime struct{ Host, Shown unix.Timespec }

// Ctimes reads what earlier sessions left of SaveCtimes. They are of no use for a vault that was copied, and do no harm there. One that is not authentic is
// reported and counts for nothing.
func (v *Vault) Ctimes() map[keys.ObjectID]Ctime {
	of := map[keys.ObjectID]Ctime{}
	data, err := readFile(v.dir, ctimesName, maxCtimesLen)
	if errors.Is(err, fs.ErrNotExist) {
		return of
	}
	if err == nil {
		err = v.decodeCtimes(data, of)
	}
	if err != nil {
		clear(of)
		v.events.Emit(event.Event{Kind: event.Damage, Object: ctimesName, Offset: -1, Err: err, Note: "some files show a later ctime"})
	}
	return of
}

// SaveCtimes replaces them. It comes before Close, which makes the new ones durable; without a Close the old ones or the new ones count.
func (v *Vault) SaveCtimes(of map[keys.ObjectID]Ctime) error {
	if err := replaceFile(v.dir, ctimesName, v.encodeCtimes(of)); err != nil {
		return fmt.Errorf("vault: write %s: %w", ctimesName, err)
	}
	return nil
}

func (v *Vault) encodeCtimes(of map[keys.ObjectID]Ctime) []byte {
	b := make([]byte, ctimesHead, ctimesHead+ctimesEntry*len(of)+sha256.Size)
	copy(b, ctimesMagic)
	binary.LittleEndian.PutUint64(b[8:], uint64(len(of)))
	ids := slices.SortedFunc(maps.Keys(of), func(a, b keys.ObjectID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range ids {
		b = append(b, id[:]...)
		for _, ts := range []unix.Timespec{of[id].Host, of[id].Shown} {
			b = binary.LittleEndian.AppendUint64(b, uint64(ts.Sec))
			b = binary.LittleEndian.AppendUint32(b, uint32(ts.Nsec))
		}
	}
	return append(b, v.ctimesMAC(b)...)
}

func (v *Vault) decodeCtimes(b []byte, of map[keys.ObjectID]Ctime) error {
	n := (len(b) - ctimesHead - sha256.Size) / ctimesEntry
	if len(b) < ctimesHead+sha256.Size || !hmac.Equal(b[len(b)-sha256.Size:], v.ctimesMAC(b[:len(b)-sha256.Size])) {
		return errCtimes
	}
	if string(b[:8]) != ctimesMagic || binary.LittleEndian.Uint64(b[8:]) != uint64(n) || len(b) != ctimesHead+n*ctimesEntry+sha256.Size {
		return errCtimes
	}
	timespec := func(b []byte) unix.Timespec {
		return unix.Timespec{Sec: int64(binary.LittleEndian.Uint64(b)), Nsec: int64(binary.LittleEndian.Uint32(b[8:]))}
	}
	for i := range n {
		e := b[ctimesHead+i*ctimesEntry:][:ctimesEntry]
		of[keys.ObjectID(e)] = Ctime{timespec(e[16:]), timespec(e[28:])}
	}
	return nil
}

func (v *Vault) ctimesMAC(b []byte) []byte {
	key := v.ring.State()
	defer clear(key)
	h := hmac.New(sha256.New, key)
	h.Write([]byte(ctimesLabel))
	h.Write(v.ring.VaultID[:])
	h.Write(b)
	return h.Sum(nil)
}

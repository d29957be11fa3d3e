package bulk

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// Files of an import that are not whole stand in a directory of the vault that no listing shows: .coffer/import. NAME.part is a container, NAME.record says
// what it is the beginning of (FORMAT.md section 16). One without a good record is thrown away by the next import.
const (
	cofferDir    = ".coffer"
	importDir    = "import"
	partSuffix   = ".part"
	recordSuffix = ".record"
	recordTemp   = "record.tmp"
)

// identity is what tells that a source file is the same as before.
type identity struct {
	dev, ino, size uint64
	mtime          unix.Timespec
}

func identityOf(st *unix.Stat_t) identity {
	return identity{dev: st.Dev, ino: st.Ino, size: uint64(st.Size), mtime: st.Mtim}
}

// record is a resume point: the first bytes of a source are durable in a container.
type record struct {
	id       keys.ObjectID // of the container
	source   identity
	geometry uint8
	durable  uint64 // plain bytes
	edge     []byte // container.File.Edge as it was then: what comes behind may tear it
}

const (
	recordMagic = "COFFERI1"
	recordHead  = 96
	recordLabel = "coffer import v1"
	nameLabel   = "coffer import n1"
)

// encode writes a record, k being the blocks of its edge:
//
//	 0  8  magic "COFFERI1"
//	 8 16  file id
//	24  8  device of the source
//	32  8  inode of the source
//	40  8  size of the source
//	48  8  mtime of the source, seconds (i64)
//	56  4  … nanoseconds
//	60  1  geometry id
//	61  1  k
//	62  2  0
//	64  8  plain bytes that are durable
//	72 24  0
//	96  …  k blocks of 4096 bytes
//	 … 32  HMAC(K_state, label ‖ all bytes before)
func (r *record) encode(key []byte) []byte {
	b := make([]byte, recordHead, recordHead+len(r.edge)+sha256.Size)
	le := binary.LittleEndian
	copy(b, recordMagic)
	copy(b[8:], r.id[:])
	le.PutUint64(b[24:], r.source.dev)
	le.PutUint64(b[32:], r.source.ino)
	le.PutUint64(b[40:], r.source.size)
	le.PutUint64(b[48:], uint64(r.source.mtime.Sec))
	le.PutUint32(b[56:], uint32(r.source.mtime.Nsec))
	b[60], b[61] = r.geometry, uint8(len(r.edge)/container.BlockSize)
	le.PutUint64(b[64:], r.durable)
	b = append(b, r.edge...)
	return append(b, recordMAC(key, recordLabel, b)...)
}

func recordMAC(key []byte, label string, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(label))
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// decodeRecord answers ok false for whatever encode did not write under the key. The edge is a part of b.
func decodeRecord(b, key []byte) (r record, ok bool) {
	body := len(b) - sha256.Size
	if body <= recordHead || string(b[:8]) != recordMagic || body != recordHead+int(b[61])*container.BlockSize || !hmac.Equal(recordMAC(key, recordLabel, b[:body]), b[body:]) {
		return r, false
	}
	le := binary.LittleEndian
	r = record{id: keys.ObjectID(b[8:24]), geometry: b[60], durable: le.Uint64(b[64:]), edge: b[recordHead:body], source: identity{
		dev: le.Uint64(b[24:]), ino: le.Uint64(b[32:]), size: le.Uint64(b[40:]),
		mtime: unix.Timespec{Sec: int64(le.Uint64(b[48:])), Nsec: int64(le.Uint32(b[56:]))},
	}}
	// Reserved bytes are zero, and nothing else is in a record than what it is written from.
	return r, bytes.Equal(r.encode(key), b)
}

// partials is .coffer/import of a vault that is open for writing. One record is written at a time; all else may run concurrently.
type partials struct {
	coffer, dir disk.Dir
	key         []byte // K_state
}

// openPartials makes the directory where it is missing, and throws away what no record stands for.
func openPartials(root disk.Dir, key []byte) (p *partials, err error) {
	p = &partials{key: key}
	if p.coffer, err = root.OpenDir(cofferDir); err != nil {
		return nil, err
	}
	if err = p.coffer.Mkdir(importDir, 0o700); errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err == nil {
		err = p.coffer.Sync() // or a resume point in it is none
	}
	if err == nil {
		p.dir, err = p.coffer.OpenDir(importDir)
	}
	if err == nil {
		err = p.clean()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// clean removes all but containers with a good record, and these.
func (p *partials) clean() error {
	var all []string
	if err := p.dir.List(func(name string, _ uint64, _ uint8) error { all = append(all, name); return nil }); err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, name := range all {
		stem, isRecord := strings.CutSuffix(name, recordSuffix)
		if !isRecord || !slices.Contains(all, stem+partSuffix) {
			continue
		}
		if _, ok, err := p.read(stem); err != nil {
			return err
		} else if ok {
			keep[stem+partSuffix], keep[name] = true, true
		}
	}
	for _, name := range all {
		if keep[name] {
			continue
		}
		if err := p.dir.Unlink(name); err != nil {
			return err
		}
	}
	return nil
}

// close removes the directory where nothing is left in it.
func (p *partials) close() {
	if p.dir != nil {
		p.dir.Close()
		_ = p.coffer.Rmdir(importDir) // what is unfinished keeps it
	}
	p.coffer.Close()
}

// stem is what the partial of a file with a plain name in a directory is called: always the same, and nothing to tell from.
func (p *partials) stem(dir keys.ObjectID, name string) string {
	return hex.EncodeToString(recordMAC(p.key, nameLabel, dir[:], []byte(name))[:16])
}

// fresh is what a partial is called that nothing will go on with.
func (p *partials) fresh() string { return rand.Text() }

// read answers ok false where there is no good record.
func (p *partials) read(stem string) (r record, ok bool, err error) {
	f, err := p.dir.Open(stem+recordSuffix, disk.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	defer f.Close()
	b := make([]byte, recordHead+container.EdgeBlocks*container.BlockSize+sha256.Size+1)
	n, _ := f.ReadAt(b, 0) // what could not be read is no good record
	r, ok = decodeRecord(b[:n], p.key)
	return r, ok, nil
}

// write replaces the record of a partial, durably. What it speaks of is durable before.
func (p *partials) write(stem string, r record) error {
	if err := p.dir.Unlink(recordTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := p.dir.Create(recordTemp, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(r.encode(p.key), 0); err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.dir.Rename(recordTemp, p.dir, stem+recordSuffix, 0)
	}
	if err == nil {
		err = p.dir.Sync()
	}
	if err != nil {
		return fmt.Errorf("resume point: %w", err)
	}
	return nil
}

// drop removes a partial and its record, in the order in which a cut between them leaves nothing that looks good.
func (p *partials) drop(stem string) error {
	for _, name := range []string{stem + recordSuffix, stem + partSuffix} {
		if err := p.dir.Unlink(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

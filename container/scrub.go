package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// Scrubber looks for rot in containers without any key, by their CRCs and digests. It proves nothing against somebody who wants not to be
// found: he computes them anew. Methods may be called concurrently.
type Scrubber struct{ pool *pool }

// NewScrubber returns one with that many workers, the callers included; 0: as many as processors.
func NewScrubber(workers int) *Scrubber {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &Scrubber{newPool(workers)}
}

// Scrubbed is what was found in one container.
type Scrubbed struct {
	Checked
	ID       keys.ObjectID // as the header states, like the rest
	Vault    keys.VaultID
	Geometry *Geometry
	Digest   DigestAlg // NoDigest: frames could not be checked
}

// Scrub checks the host file h, which stays the caller's: CRC and fields of the header, of every tree node and segment record, segment digests, and
// the leaf of every stored frame; also that each of them is at its place in this file, and the file's length. The
// error is that of the header, which means that nothing more could be looked at (ErrNoHeader, ErrCorrupt, ErrTruncated, ErrVersion, ErrFeature), that of
// ctx, or the host's.
func (c *Scrubber) Scrub(ctx context.Context, h disk.File, step func(n int64)) (Scrubbed, error) {
	var b block
	hdr := new(header)
	err := hdr.parseFirst(h, &b)
	if err == nil && (hdr.size < 0 || hdr.size > hdr.geo.MaxSize() || hdr.kind > bodyTree) {
		err = fmt.Errorf("header fields: %w", ErrCorrupt)
	}
	if err == nil {
		err = hdr.checkBody(b[bodyOffset:macOffset])
	}
	if err != nil {
		return Scrubbed{}, err
	}
	var st unix.Stat_t
	if err := h.Stat(&st); err != nil {
		return Scrubbed{}, err
	}
	v := &survey{host: h, pool: c.pool, step: step}
	v.bodyOf(hdr)
	v.block = func(level uint8, index uint64, _ pin) (*block, uint64, error) {
		if level > 0 {
			b, err := readRaw(h, v.geo.nodeAddr(level, index))
			if err == nil {
				err = b.checkNode(level, index, hdr.id[:])
			}
			return b, 0, err
		}
		b, err := readRaw(h, v.geo.groupAddr(index))
		if err != nil {
			return nil, 0, err
		}
		if allZero(b[:]) { // a pin says that there are records
			return nil, 0, fmt.Errorf("meta block of zeros: %w", ErrCorrupt)
		}
		return b, 0, v.checkRecords(b, index, hdr)
	}
	if hdr.kind == bodySingle && !digestRight(c.pool, hdr, v.single.record(hdr.geo, 0)) {
		v.kind = bodyNone
		v.lose(0, int64(hdr.geo.SegmentSize), &SegmentError{Op: "read", Err: ErrDigest})
	}
	v.frame = func(s *scratch, fh *frameHeader, e entry, ciphertext []byte) ([]byte, error) {
		fh.suite, fh.length, fh.generation = hdr.suite, e.length(), e.generation()
		s.use(hdr.digest)
		var head [frameHeaderSize]byte
		fh.put(head[:])
		if leaf := s.leaf(head[:], ciphertext); !bytes.Equal(leaf[:], e.leaf()) {
			return nil, ErrDigest
		}
		return nil, nil
	}
	err = v.run(ctx)
	v.out.Length = hdr.geo.lengthError(hdr.size, st.Size)
	return Scrubbed{Checked: v.out, ID: hdr.id, Vault: hdr.vault, Geometry: hdr.geo, Digest: hdr.digest}, err
}

// checkRecords checks all records of a meta block. One that is wrong costs the whole group: the pin of the block cannot hold.
func (v *survey) checkRecords(b *block, index uint64, hdr *header) error {
	for k := range v.geo.perGroup {
		rec := b.record(v.geo, k)
		segment := index*uint64(v.geo.perGroup) + uint64(k)
		if err := rec.check(v.geo, segment, hdr.id[:]); err != nil {
			return err
		}
		if !digestRight(v.pool, hdr, rec) {
			return fmt.Errorf("segment record %d: %w", segment, ErrDigest)
		}
	}
	return nil
}

// digestRight compares a segment digest with the leaves below it.
func digestRight(p *pool, hdr *header, rec record) bool {
	if allZero(rec) {
		return true
	}
	s := p.getScratch()
	defer p.putScratch(s)
	s.use(hdr.digest)
	sum := s.segment(rec.segment(), rec[24:40], hdr.geo.Frames, func(i int) []byte { return rec.entry(i).leaf() })
	return bytes.Equal(sum[:], rec[48:48+digestSize])
}

// IsDamage reports whether an error of this package says that stored bytes are not what was written. Others are of the host, of this program
// being too old, or of the caller.
func IsDamage(err error) bool {
	for _, class := range []error{ErrNoHeader, ErrCorrupt, ErrTruncated, ErrKey, ErrAuth, ErrIdentity, ErrSize, ErrDigest} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

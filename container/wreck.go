package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// Builder returns an engine for new containers of the geometry g, without a journal: nobody reads them before they are whole and synced.
func (e *Engine) Builder(g *Geometry) (*Engine, error) {
	p := e.params
	p.SegmentSize, p.FrameSize = uint32(g.SegmentSize), uint32(g.FrameSize)
	return NewEngine(EngineConfig{Ring: e.ring, Params: p, Events: e.events})
}

// Whose reads the header of a container of this vault that stands in an unknown place, and returns the object it belongs to.
// The errors are those of Open.
func (e *Engine) Whose(h disk.File) (id keys.ObjectID, g *Geometry, object uint8, err error) {
	var b block
	var hdr header
	if err = hdr.parseFirst(h, &b); err == nil {
		k := e.ring.File(hdr.id, hdr.params())
		defer k.Destroy()
		err = hdr.verify(&b, e.ring.VaultID, hdr.id, &k)
	}
	if err != nil {
		return keys.ObjectID{}, nil, 0, &MetaError{Op: "read", Level: headerLevel, Err: err}
	}
	return hdr.id, hdr.geo, hdr.object, nil
}

// Wreck is a container that is damaged, to be saved what can be. It is for one goroutine.
type Wreck struct {
	eng      *Engine
	host     disk.File
	crypto   fileCrypto
	hdr      header
	headless bool  // nothing of the header could be used: hdr is a guess
	why      error // why
	hostLen  int64
	survey   survey
}

// Wreck looks at the host file h, which stays the caller's, of the object id. Where its header is lost, suite and digest are taken to be those of
// the vault, the geometry to be g, the one in the name, and the size to be what the length of the host file says. The error is that of the host, or
// ErrVersion or ErrFeature: what a newer program wrote is not damaged.
func (e *Engine) Wreck(h disk.File, id keys.ObjectID, g *Geometry) (*Wreck, error) {
	h = e.view.Wrap(id, h)
	var st unix.Stat_t
	if err := h.Stat(&st); err != nil {
		return nil, err
	}
	w := &Wreck{eng: e, host: h, hostLen: st.Size}
	var hdr header
	k, err := e.readHeader(h, id, &hdr)
	switch {
	case err == nil:
		w.hdr = hdr
	case errors.Is(err, ErrVersion), errors.Is(err, ErrFeature):
		return nil, &MetaError{Op: "read", Level: headerLevel, Err: err}
	default:
		w.why = err
		k = w.guess(id, g)
	}
	c, err := suite.New(w.hdr.suite, k.Enc[:])
	if err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	w.crypto = fileCrypto{vault: e.ring.VaultID, id: id, suite: w.hdr.suite, digest: w.hdr.digest, cipher: c, auth: k.Auth}
	if w.headless {
		w.guessBody()
	}
	return w, nil
}

// Geometry is that of the container.
func (w *Wreck) Geometry() *Geometry { return w.hdr.geo }

// Headless reports whether the header is lost.
func (w *Wreck) Headless() bool { return w.headless }

// guess fills the header with what can be known without it.
func (w *Wreck) guess(id keys.ObjectID, g *Geometry) *keys.FileKeys {
	w.headless = true
	w.hdr = header{geo: g, vault: w.eng.ring.VaultID, id: id, object: ObjectFile, kind: bodyTree}
	w.hdr.body = make([]byte, w.hdr.bodyUse(nil))
	w.hdr.size = g.largest(w.hostLen)

	own := w.eng.params
	own.SegmentSize, own.FrameSize = uint32(g.SegmentSize), uint32(g.FrameSize)
	try := []keys.FileParams{own}
	b := w.rawHeader()
	if s, d := suite.ID(b[14]), DigestAlg(b[15]); d.valid() && (s == suite.XAES256GCM || s == suite.XChaCha20Poly1305) {
		stated := own
		stated.Suite, stated.Digest, stated.Epoch = s, b[15], binary.LittleEndian.Uint32(b[36:])
		try = append(try, stated)
	}
	pick := w.eng.ring.File(id, own)
	w.hdr.suite, w.hdr.digest = own.Suite, DigestAlg(own.Digest)
	for _, p := range try {
		if k := w.eng.ring.File(id, p); string(k.Commitment[:]) == string(b[72:104]) {
			pick, w.hdr.suite, w.hdr.digest = k, p.Suite, DigestAlg(p.Digest)
		}
	}
	return &pick
}

// largest is the size of the largest file that a host file of this length can hold.
func (g *Geometry) largest(hostLen int64) int64 {
	low, high := int64(0), g.MaxSize()
	for low < high {
		if mid := high - (high-low)/2; g.HostLength(mid) <= hostLen {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}

// rawHeader is what the host has in the place of the header.
func (w *Wreck) rawHeader() *block {
	b := new(block)
	if n, err := w.host.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return new(block)
	} else {
		clear(b[n:])
	}
	return b
}

// guessBody looks for data in the header itself: an inline body whose frame opens, or the record of a single segment.
func (w *Wreck) guessBody() {
	b, g := w.rawHeader(), w.hdr.geo
	body := b[bodyOffset:macOffset]
	if e := entry(body[:entrySize]); e.check(inlineMax) == nil && !e.hole() {
		n := int(e.length())
		ciphertext := make([]byte, n, inlineMax+suite.TagSize)
		copy(ciphertext, body[entrySize:])
		plain, err := w.crypto.openFrame(&scratch{}, &frameHeader{typ: frameInline}, e, ciphertext, ciphertext)
		clear(plain)
		if err == nil {
			w.hdr.kind, w.hdr.size = bodyInline, max(w.hdr.size, int64(n))
			w.hdr.body = body
			return
		}
	}
	if g.Frames <= singleFrames && !allZero(body[:g.record]) && record(body[:g.record]).check(g, 0, w.hdr.id[:]) == nil {
		w.hdr.kind = bodySingle
		w.hdr.body = body
	}
}

// Save copies every frame that still opens to its place in dst, a new container of the same geometry, and gives dst the size; what is lost is a hole in it.
// Where dst is nil it only says what there is. Neither is anything synced.
//
// Where a pin or a node does not hold, the records below it are believed as far as their CRC, file id and place are right and their frames open. Each of
// these was written by a holder of the key, for this place in this file; that it is the last one written there, only the pin could tell. Such a record of zeros
// may be a hole or lost: it is reported as lost.
//
// The error is that of dst, or ctx's.
func (w *Wreck) Save(ctx context.Context, dst *File, step func(n int64)) (Checked, error) {
	w.survey = survey{host: w.host, pool: w.eng.pool, step: step, block: w.block}
	v := &w.survey
	v.bodyOf(&w.hdr)
	v.broken = func(level uint8, index uint64, _ error) error {
		from, to := v.geo.span(level, index)
		return w.scan(ctx, from, to)
	}
	v.frame = func(s *scratch, h *frameHeader, e entry, ciphertext []byte) ([]byte, error) {
		plain := make([]byte, v.geo.FrameSize)
		_, err := w.crypto.openFrame(s, h, e, plain, ciphertext)
		if err != nil || dst == nil {
			clear(plain)
			return nil, err
		}
		return plain, nil
	}
	if w.headless {
		v.lose(0, 0, &MetaError{Op: "read", Level: headerLevel, Err: w.why})
	}
	var err error
	if dst != nil {
		if err = dst.SetSize(v.size); err != nil {
			return Checked{}, err
		}
		v.keep = func(ws []SegmentWrite) error { return dst.WriteFrames(v.size, ws) }
	}
	if w.headless && v.kind == bodyTree {
		v.kind = bodyNone
		if err = w.scan(ctx, 0, v.size); err != nil {
			return Checked{}, err
		}
	}
	err = v.run(ctx)
	v.out.Length = v.geo.lengthError(w.hdr.size, w.hostLen)
	return v.out, err
}

// block reads a block and falls back to what its records say by themselves.
func (w *Wreck) block(level uint8, index uint64, want pin) (*block, uint64, error) {
	g := w.hdr.geo
	addr := g.groupAddr(index)
	if level > 0 {
		addr = g.nodeAddr(level, index)
	}
	b, err := readRaw(w.host, addr)
	if err != nil {
		return nil, 0, err
	}
	held := w.crypto.pinOf(level, index, b) == want
	switch {
	case level == 0:
		return b, w.bad(b, index, held), nil
	case !held:
		return nil, 0, fmt.Errorf("pin: %w", ErrAuth)
	}
	return b, 0, b.checkNode(level, index, w.hdr.id[:])
}

// bad has the bits of the records of a meta block that say nothing. What of it is zeros is holes only where a pin says so.
func (w *Wreck) bad(b *block, index uint64, pinned bool) (bad uint64) {
	g := w.hdr.geo
	for k := range g.perGroup {
		rec := b.record(g, k)
		if !pinned && allZero(rec) || rec.check(g, index*uint64(g.perGroup)+uint64(k), w.hdr.id[:]) != nil {
			bad |= 1 << k
		}
	}
	return bad
}

// scan goes through groups that no pin leads to. Both offsets are multiples of a group, but for the file's end.
func (w *Wreck) scan(ctx context.Context, from, to int64) error {
	v, g := &w.survey, w.hdr.geo
	to = min(to, v.size)
	for at := from; at < to; at += g.groupPlain {
		if err := ctx.Err(); err != nil {
			return err
		}
		index := uint64(at >> g.groupShift)
		addr := g.groupAddr(index)
		if addr >= w.hostLen {
			v.lose(at, to, ErrTruncated)
			return nil
		}
		b, err := readRaw(w.host, addr)
		if err != nil {
			v.lose(at, at+g.groupPlain, &MetaError{Op: "read", Index: index, Err: err})
			continue
		}
		if allZero(b[:]) {
			end := min(to, w.nextGroup(index))
			v.lose(at, end, errRecord)
			at = end - g.groupPlain
			continue
		}
		if err := v.group(ctx, index, b, w.bad(b, index, false)); err != nil {
			return err
		}
	}
	return nil
}

// nextGroup is the plain offset of the group behind index in which, or before whose end, the host has data: sparse files can have more groups than anybody
// wants to read.
func (w *Wreck) nextGroup(index uint64) int64 {
	g, next := w.hdr.geo, index+1
	if h, ok := w.host.(interface {
		NextData(off int64) (int64, error)
	}); ok {
		if data, err := h.NextData(g.groupAddr(next)); err == nil {
			j := uint64(sort.Search(maxGroups, func(j int) bool { return g.groupAddr(uint64(j)) > data }))
			next = max(next, j-1)
		}
	}
	return int64(next) << g.groupShift
}

package container

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/cofferfs/coffer/container/suite"
)

// piece is a run of stored frames of one group that lie side by side on the host: one host read, one task of the pool.
type piece struct {
	segment uint64 // of the first frame
	frame   int    // first frame, counted from the start of that segment; a run may go on into the next ones
	first   int    // index of its first entry in the plan
	count   int
}

// readPlan is what one ReadAt looked up before it reads: a copy of the entries, so that f.mu is not held over the host.
type readPlan struct {
	entries   []byte // entrySize each
	pieces    []piece
	scattered bool // see scatter
}

// plans are reused: they hold nothing secret.
var plans = sync.Pool{New: func() any { return new(readPlan) }}

// ReadAt fills dst with the plain bytes at off. It opens exactly the frames that the range touches, whole ones straight into dst, in
// parallel where there are several pieces; what is not stored reads as zeros, also at and beyond Size. The error is a *SegmentError around the lowest
// failing frame (*FrameError) or a *MetaError; dst then holds nothing of use.
func (f *File) ReadAt(dst []byte, off int64) error {
	if len(dst) == 0 {
		return nil
	}
	if err := f.geo.checkRange(off, int64(len(dst))); err != nil {
		return err
	}
	f.slots.RLock()
	defer f.slots.RUnlock()
	if done, err := f.readInline(dst, off); done {
		return err
	}
	plan := plans.Get().(*readPlan)
	defer plans.Put(plan)
	if err := f.plan(plan, dst, off); err != nil {
		return err
	}
	if len(plan.pieces) == 0 {
		return nil
	}
	f.eng.segs.Add(f.geo.segmentOf(off+int64(len(dst))-1) - f.geo.segmentOf(off) + 1)
	return f.eng.pool.run(len(plan.pieces), func(i int, s *scratch) error {
		return f.readPiece(s, plan, plan.pieces[i], dst, off)
	})
}

// plan looks up every frame of the range, zeroes what is a hole, and gathers the stored frames into pieces.
func (f *File) plan(p *readPlan, dst []byte, off int64) error {
	g := f.geo
	end := off + int64(len(dst))
	p.entries, p.pieces = p.entries[:0], p.pieces[:0]
	var (
		group uint64
		b     *block
		have  bool
		cur   *piece
	)
	fetched := f.fetchStream(off, end)
	p.scattered = f.scatter.next(g, off, end)
	perPiece := max(1, readUnit>>g.frameShift)
	for at := off &^ int64(g.FrameSize-1); at < end; {
		segment, frame := g.segmentOf(at), g.frameOf(at)
		if j := f.groupOf(segment); !have || j != group {
			var err error
			if b, err = f.lookupFor(j, at, end, fetched); err != nil {
				return &SegmentError{Op: "read", Segment: segment, Err: err}
			}
			group, have, cur = j, true, nil
		}
		stop := min(g.Frames, frame+int((end-1-at)>>g.frameShift)+1)
		if b == nil {
			zero(dst, off, at, int64(stop-frame)<<g.frameShift)
			at += int64(stop-frame) << g.frameShift
			cur = nil
			continue
		}
		f.mu.RLock()
		rec := f.recordOf(b, segment)
		for ; frame < stop; frame++ {
			e := rec.entry(frame)
			if e.hole() {
				zero(dst, off, at, int64(g.FrameSize))
				cur = nil
			} else {
				if cur == nil || cur.count == perPiece {
					p.pieces = append(p.pieces, piece{segment: segment, frame: frame, first: len(p.entries) / entrySize})
					cur = &p.pieces[len(p.pieces)-1]
				}
				p.entries = append(p.entries, e...)
				cur.count++
			}
			at += int64(g.FrameSize)
		}
		f.mu.RUnlock()
	}
	return nil
}

// zero clears the part of [at, at+n) that dst, which begins at off, covers.
func zero(dst []byte, off, at, n int64) {
	from, to := max(at, off), min(at+n, off+int64(len(dst)))
	if from < to {
		clear(dst[from-off : to-off])
	}
}

// readPiece reads the ciphertext of a piece and opens its frames into dst, which begins at plain offset off.
func (f *File) readPiece(s *scratch, plan *readPlan, p piece, dst []byte, off int64) error {
	g := f.geo
	last := entry(plan.entries[(p.first+p.count-1)*entrySize:][:entrySize])
	n := (p.count-1)<<g.frameShift + int(last.length())
	buf := f.eng.pool.getBuffer(n)
	defer f.eng.pool.putBuffer(buf)
	read, err := f.readHost(buf, g.slotAddr(p.segment, p.frame), g.FrameSize, plan.scattered)
	if err != nil && !errors.Is(err, io.EOF) {
		return &SegmentError{Op: "read", Segment: p.segment, Err: err}
	}
	f.eng.opened.Add(uint64(p.count))
	start := time.Now()
	defer func() { f.eng.crypto.Add(int64(time.Since(start))) }()
	for i := range p.count {
		e := entry(plan.entries[(p.first+i)*entrySize:][:entrySize])
		h := frameHeader{
			typ:     frameData,
			segment: p.segment + uint64((p.frame+i)/g.Frames),
			frame:   uint32((p.frame + i) % g.Frames),
		}
		at := g.frameStart(p.segment, p.frame+i)
		from := i << g.frameShift
		if from+int(e.length()) > read {
			return frameError("read", &h, at, ErrTruncated)
		}
		if err := f.openInto(s, &h, e, dst, off, at, buf[from:from+int(e.length())]); err != nil {
			return frameError("read", &h, at, err)
		}
	}
	return nil
}

// openInto opens one frame, which begins at plain offset at, into the part of dst that it covers.
func (f *File) openInto(s *scratch, h *frameHeader, e entry, dst []byte, off, at int64, ciphertext []byte) error {
	size := int64(f.geo.FrameSize)
	if at >= off && at+size <= off+int64(len(dst)) {
		whole := dst[at-off : at-off+size : at-off+size]
		if _, err := f.crypto.openFrame(s, h, e, whole, ciphertext); err != nil {
			return err
		}
		clear(whole[e.length():])
		return nil
	}
	if len(s.plain) < len(ciphertext) {
		s.plain = make([]byte, f.geo.FrameSize)
	}
	plain, err := f.crypto.openFrame(s, h, e, s.plain, ciphertext)
	if err != nil {
		return err
	}
	from, to := max(at, off), min(at+size, off+int64(len(dst)))
	n := 0
	if have := at + int64(len(plain)); from < have {
		n = copy(dst[from-off:to-off], plain[from-at:])
	}
	clear(dst[from-off+int64(n) : to-off])
	clear(plain)
	return nil
}

func frameError(op string, h *frameHeader, at int64, err error) error {
	return &SegmentError{Op: op, Segment: h.segment, Err: &FrameError{Segment: h.segment, Frame: h.frame, Offset: at, Err: err}}
}

// readInline serves a file whose data is in its header, or that has none; done is false for any other.
func (f *File) readInline(dst []byte, off int64) (done bool, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return true, ErrClosed
	}
	switch f.hdr.kind {
	case bodyNone:
		clear(dst)
		return true, nil
	case bodyInline:
		n := 0
		e, _ := f.hdr.inlineData()
		if off < int64(e.length()) {
			plain, err := f.openInline()
			if err != nil {
				return true, err
			}
			n = copy(dst, plain[off:])
			clear(plain)
		}
		clear(dst[n:])
		return true, nil
	}
	return false, nil
}

// openInline returns the plaintext that the header holds. The caller holds f.mu or f.commit.
func (f *File) openInline() ([]byte, error) {
	s := f.eng.pool.getScratch()
	defer f.eng.pool.putScratch(s)
	e, sealed := f.hdr.inlineData()
	ciphertext := make([]byte, len(sealed), inlineMax+suite.TagSize)
	copy(ciphertext, sealed)
	h := frameHeader{typ: frameInline}
	f.eng.opened.Add(1)
	plain, err := f.crypto.openFrame(s, &h, e, ciphertext, ciphertext)
	if err != nil {
		return nil, frameError("read", &h, 0, err)
	}
	return plain, nil
}

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// LostRange is a range of plain bytes that cannot be read, [From, To), and why. From equals To where a block covers no byte of the file.
type LostRange struct {
	From, To int64
	Err      error
}

// Checked is what was found in one container.
type Checked struct {
	Size   int64       // plain bytes; 0 where the header says nothing that can be believed
	Frames uint64      // that proved right
	Bytes  int64       // plain bytes in them
	Lost   []LostRange // ascending, neighbours with one reason merged
	// Length wraps ErrSize where the host file is not as long as the size wants; a mount then refuses all of the file, unless an unclean
	// session touched it.
	Length error
	// Unsynced: the header does not say that all below it was durable when it was written. In a file that an unclean session made, what is lost is then no damage
	// (FORMAT.md section 12).
	Unsynced bool
}

// Good reports whether nothing is wrong.
func (c *Checked) Good() bool { return len(c.Lost) == 0 && c.Length == nil }

// LostBytes is the sum of the lost ranges.
func (c *Checked) LostBytes() (n int64) {
	for _, l := range c.Lost {
		n += l.To - l.From
	}
	return n
}

// survey goes through all that a container holds on the host: blocks from the top down, frames in parallel. What proves wrong costs the range
// below it and nothing else. The three ways to look, with the key, without it, and to save what is left, differ in the two functions.
type survey struct {
	host disk.File
	geo  *Geometry
	pool *pool

	kind   uint8
	size   int64
	pins   *headerPins
	single *block
	inline []byte // entry and ciphertext

	// block reads and checks a block. It may answer a meta block in which records are known to be bad and zeroed; bad has their bits.
	block func(level uint8, index uint64, want pin) (b *block, bad uint64, err error)
	// broken is called for a tree node that is lost, and may go on with its groups in another way; nil: the range is lost.
	broken func(level uint8, index uint64, err error) error
	// frame checks one frame. ciphertext has room for a tag behind it. What it returns is kept.
	frame func(s *scratch, h *frameHeader, e entry, ciphertext []byte) (plain []byte, err error)
	// keep is given the frames that proved right, a batch of whole pieces at a time and ascending; may be nil.
	keep func(ws []SegmentWrite) error
	// step is told how many plain bytes were looked at; may be nil.
	step func(n int64)
	// only are the ranges that are looked at; nil: all.
	only []LostRange

	pieces []surveyPiece
	out    Checked
}

// surveyPiece is a run of stored frames that lie side by side, and what became of them.
type surveyPiece struct {
	segment uint64
	frame   int
	entries []entry
	plain   [][]byte // what frame returned
	errs    []error
}

// batchPieces is how many pieces, of up to readUnit each, are at work or kept at a time.
const batchPieces = 64

// bodyOf takes what the survey needs of a header.
func (v *survey) bodyOf(h *header) {
	v.geo, v.kind, v.size = h.geo, h.kind, h.size
	switch h.kind {
	case bodyInline:
		v.inline = h.body
	case bodySingle:
		v.single = new(block)
		copy(v.single[:], h.body[:h.geo.record])
	case bodyTree:
		v.pins = h.pins()
	}
}

// run fills v.out. An error is that of ctx or of keep: what is wrong with the container is no error.
func (v *survey) run(ctx context.Context) error {
	v.out.Size = v.size
	switch v.kind {
	case bodyInline:
		if !v.wanted(0, v.size) {
			return nil
		}
		if err := v.surveyInline(); err != nil {
			return err
		}
	case bodySingle:
		if err := v.group(ctx, 0, v.single, 0); err != nil {
			return err
		}
	case bodyTree:
		for i := range uint64(headerGroups) {
			if err := v.visit(ctx, 0, i, v.pins[i]); err != nil {
				return err
			}
		}
		for i := range uint64(topNodes) {
			if err := v.visit(ctx, treeLevels, i, v.pins[headerGroups+i]); err != nil {
				return err
			}
		}
	}
	err := v.flush(ctx)
	v.merge()
	return err
}

// wanted reports whether something of a range is to be looked at. A block that covers no byte of the file is lost with an empty range.
func (v *survey) wanted(from, to int64) bool {
	return v.only == nil || slices.ContainsFunc(v.only, func(l LostRange) bool { return l.From < to && from < max(l.To, l.From+1) })
}

// span is the range of plain bytes below a block.
func (g *Geometry) span(level uint8, index uint64) (from, to int64) {
	first, n := index, uint64(1)
	if level > 0 {
		shift := fanoutShift * uint(level)
		first, n = headerGroups+index<<shift, 1<<shift
	}
	return int64(first) << g.groupShift, int64(first+n) << g.groupShift
}

// errRecord says that a segment record was tried without its pin and says nothing.
var errRecord = fmt.Errorf("segment record: %w", ErrCorrupt)

func (v *survey) lose(from, to int64, err error) {
	from, to = min(from, v.size), min(to, v.size)
	if n := len(v.out.Lost); n > 0 && v.out.Lost[n-1].To == from && errors.Is(v.out.Lost[n-1].Err, err) { // by the thousands in a file that lost a tree node
		v.out.Lost[n-1].To = to
		return
	}
	v.out.Lost = append(v.out.Lost, LostRange{from, to, err})
}

// visit looks at one block and all below it.
func (v *survey) visit(ctx context.Context, level uint8, index uint64, want pin) error {
	from, to := v.geo.span(level, index)
	if want.hole() || from >= v.size || !v.wanted(from, to) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b, bad, err := v.block(level, index, want)
	switch {
	case err != nil && level > 0 && v.broken != nil:
		return v.broken(level, index, err)
	case err != nil:
		v.lose(from, to, &MetaError{Op: "read", Level: level, Index: index, Err: err})
		return nil
	case level == 0:
		return v.group(ctx, index, b, bad)
	}
	first := index << fanoutShift
	if level == 1 {
		first += headerGroups
	}
	for i := range nodeFanout {
		if err := v.visit(ctx, level-1, first+uint64(i), b.pin(i)); err != nil {
			return err
		}
	}
	return nil
}

// group cuts the frames of a meta block into pieces. Records with their bit in bad are lost.
func (v *survey) group(ctx context.Context, index uint64, b *block, bad uint64) error {
	g := v.geo
	var cur *surveyPiece
	for k := range g.perGroup {
		segment := index*uint64(g.perGroup) + uint64(k)
		if bad&(1<<k) != 0 {
			from := int64(segment) << g.segShift
			if from < v.size {
				v.lose(from, from+int64(g.SegmentSize), errRecord)
			}
			cur = nil
			continue
		}
		rec := b.record(g, k)
		for i := range g.Frames {
			e := rec.entry(i)
			at := g.frameStart(segment, i)
			if e.hole() || at >= v.size || !v.wanted(at, at+int64(g.FrameSize)) {
				cur = nil
				continue
			}
			if cur == nil || len(cur.entries) == readUnit>>g.frameShift {
				v.pieces = append(v.pieces, surveyPiece{segment: segment, frame: i})
				cur = &v.pieces[len(v.pieces)-1]
			}
			cur.entries = append(cur.entries, e)
		}
	}
	if len(v.pieces) >= batchPieces {
		return v.flush(ctx)
	}
	return nil
}

// at returns segment, frame and plain offset of the i-th frame of a piece.
func (p *surveyPiece) at(g *Geometry, i int) (segment uint64, frame int, off int64) {
	segment, frame = p.segment+uint64((p.frame+i)/g.Frames), (p.frame+i)%g.Frames
	return segment, frame, g.frameStart(segment, frame)
}

// flush looks at the frames of all pieces collected.
func (v *survey) flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := v.pool.run(len(v.pieces), func(i int, s *scratch) error {
		v.look(s, &v.pieces[i])
		return nil
	})
	if err != nil {
		return err // a panic: nothing of this batch is known
	}
	var ws []SegmentWrite
	for i := range v.pieces {
		ws = v.collect(&v.pieces[i], ws)
	}
	v.pieces = v.pieces[:0]
	if v.keep == nil || len(ws) == 0 {
		return nil
	}
	defer func() {
		for _, w := range ws {
			for _, plain := range w.Frames {
				clear(plain)
			}
		}
	}()
	return v.keep(ws)
}

// look reads a piece at once, or frame by frame where the host cannot, and checks its frames.
func (v *survey) look(s *scratch, p *surveyPiece) {
	g, n := v.geo, len(p.entries)
	p.plain, p.errs = make([][]byte, n), make([]error, n)
	buf := v.pool.getBuffer((n-1)<<g.frameShift + int(p.entries[n-1].length()))
	defer v.pool.putBuffer(buf)
	read, err := v.host.ReadAt(buf, g.slotAddr(p.segment, p.frame))
	whole := err == nil || errors.Is(err, io.EOF)
	for i, e := range p.entries {
		segment, frame, _ := p.at(g, i)
		from, to := i<<g.frameShift, i<<g.frameShift+int(e.length())
		if !whole {
			var got int
			got, err = v.host.ReadAt(buf[from:to], g.slotAddr(segment, frame))
			read = from + got
			if err != nil && !errors.Is(err, io.EOF) {
				p.errs[i] = err
				continue
			}
		}
		if to > read {
			p.errs[i] = ErrTruncated
			continue
		}
		h := frameHeader{typ: frameData, segment: segment, frame: uint32(frame)}
		p.plain[i], p.errs[i] = v.frame(s, &h, e, buf[from:to])
	}
}

// collect counts what became of a piece, and adds the frames to be kept.
func (v *survey) collect(p *surveyPiece, ws []SegmentWrite) []SegmentWrite {
	g := v.geo
	for i, e := range p.entries {
		segment, frame, off := p.at(g, i)
		if p.errs[i] != nil {
			v.lose(off, off+int64(g.FrameSize), p.errs[i])
			continue
		}
		v.good(int64(e.length()))
		if v.keep == nil {
			continue
		}
		if n := len(ws); n == 0 || ws[n-1].Segment != segment {
			ws = append(ws, SegmentWrite{Segment: segment, Frames: make([][]byte, g.Frames)})
		}
		w := &ws[len(ws)-1]
		w.Frames[frame] = p.plain[i]
		w.Dirty |= 1 << frame
	}
	if v.step != nil {
		v.step(int64(len(p.entries)) << g.frameShift)
	}
	return ws
}

func (v *survey) good(n int64) {
	v.out.Frames++
	v.out.Bytes += n
}

// surveyInline looks at data that the header holds.
func (v *survey) surveyInline() error {
	e := entry(v.inline[:entrySize])
	n := int(e.length())
	ciphertext := make([]byte, n, inlineMax+suite.TagSize)
	copy(ciphertext, v.inline[entrySize:])
	s := v.pool.getScratch()
	defer v.pool.putScratch(s)
	plain, err := v.frame(s, &frameHeader{typ: frameInline}, e, ciphertext)
	if v.step != nil {
		v.step(int64(n))
	}
	if err != nil {
		v.lose(0, int64(n), err)
		return nil
	}
	v.good(int64(n))
	if v.keep == nil {
		return nil
	}
	w := SegmentWrite{Frames: make([][]byte, v.geo.Frames), Dirty: 1}
	w.Frames[0] = plain
	return v.keep([]SegmentWrite{w})
}

// merge sorts the lost ranges and joins neighbours that have one reason.
func (v *survey) merge() {
	lost := v.out.Lost
	slices.SortStableFunc(lost, func(a, b LostRange) int { return int(min(1, max(-1, a.From-b.From))) })
	out := lost[:0]
	for _, l := range lost {
		if n := len(out); n > 0 && out[n-1].To == l.From && out[n-1].Err.Error() == l.Err.Error() {
			out[n-1].To = l.To
			continue
		}
		out = append(out, l)
	}
	v.out.Lost = out
}

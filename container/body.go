package container

import (
	"math"

	"github.com/cofferfs/coffer/container/suite"
)

// Where the content of a file is told of: in the header itself, in the record of its one segment there, or in the tree of meta blocks (FORMAT.md section 7).

// chooseBody chooses the body kind for what is to be written. Data that fits the header is sealed into it and done is true; an inline body
// that no longer fits comes back as one more frame to write.
func (f *File) chooseBody(size int64, ws []SegmentWrite) (done bool, _ []SegmentWrite, err error) {
	first, beyond := f.reach(ws)
	kind := f.hdr.kind
	if kind <= bodyInline && !beyond && len(first) > 0 && min(size, int64(len(first))) <= inlineMax {
		return true, ws, f.sealInline(size, first[:min(size, int64(len(first)))])
	}
	want := uint8(bodyTree)
	if kind != bodyTree && f.geo.Frames <= singleFrames && ws[len(ws)-1].Segment == 0 {
		want = bodySingle
	}
	if want == kind {
		return false, ws, nil
	}
	if kind == bodyInline && first == nil {
		if ws, err = f.withInline(ws); err != nil {
			return false, ws, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.single
	f.single = nil
	f.hdr.kind, f.headerDirty = want, true
	if want == bodyTree {
		f.pins = new(headerPins)
	}
	f.hdr.body = make([]byte, f.hdr.bodyUse(nil))
	switch {
	case want == bodySingle:
		f.single = f.eng.clearBlock()
	case old != nil:
		enter(&f.dirty, metaKey{f.serial, 0, 0}, old) // not made: what it says was durable in the header, perhaps, and must be logged
		f.pins[0] = unsealedPin
	}
	return false, ws, nil
}

// reach returns the plaintext of frame 0 of segment 0 where it is among the dirty frames, and whether any other frame is.
func (f *File) reach(ws []SegmentWrite) (first []byte, beyond bool) {
	for _, w := range ws {
		if w.Segment == 0 && w.Dirty&1 != 0 {
			first = w.Frames[0]
		}
		beyond = beyond || w.Segment != 0 && w.Dirty != 0 || w.Dirty&^1 != 0
	}
	return first, beyond
}

// withInline adds the data that the header holds to what is to be written, as frame 0.
func (f *File) withInline(ws []SegmentWrite) ([]SegmentWrite, error) {
	plain, err := f.openInline()
	if err != nil {
		return ws, err
	}
	frame := make([]byte, f.geo.FrameSize)
	copy(frame, plain)
	clear(plain)
	w := SegmentWrite{Frames: make([][]byte, f.geo.Frames), Dirty: 1}
	rest := ws
	if len(ws) > 0 && ws[0].Segment == 0 {
		copy(w.Frames, ws[0].Frames)
		w.Dirty |= ws[0].Dirty
		rest = ws[1:]
	}
	w.Frames[0] = frame
	return append([]SegmentWrite{w}, rest...), nil
}

// sealInline seals all data of the file into the header body.
func (f *File) sealInline(size int64, plain []byte) error {
	sealer, err := f.sealWith()
	if err != nil {
		return err
	}
	s := f.eng.pool.getScratch()
	defer f.eng.pool.putScratch(s)
	body := make([]byte, entrySize+len(plain), entrySize+len(plain)+suite.TagSize)
	h := frameHeader{typ: frameInline, generation: uint32(f.hdr.sequence + 1)}
	if err := f.crypto.sealFrame(s, sealer, &h, body[entrySize:], plain, entry(body[:entrySize])); err != nil {
		return err
	}
	f.eng.sealed.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hdr.kind, f.hdr.size, f.headerDirty = bodyInline, size, true
	f.hdr.body = body
	return nil
}

// outgrow is writeSlots of a file whose data is in its header, and may have to leave it. Readers find the data in either place; on an error it stays in the
// header.
func (f *File) outgrow(size int64, ws []SegmentWrite) error {
	f.slots.Lock()
	defer f.slots.Unlock()
	old, body := f.hdr.size, f.hdr.body
	err := f.writeSlots(size, ws, true)
	if err == nil || f.hdr.kind == bodyInline {
		return err
	}
	if f.tx != nil {
		f.forget(f.tx, BlockSize, math.MaxInt64)
	}
	f.clearBody()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hdr.kind, f.hdr.size, f.hdr.body = bodyInline, old, body
	return err
}

package redo

import (
	"encoding/binary"
	"slices"
)

// Exchange is the intent of an exchange of two names, which takes several host renames: what a crash leaves of it is finished by replay.
type Exchange struct {
	ID    uint64 // a link sequence that was drawn for it: no other exchange has it
	Over  bool   // that of ID is done, or undone, with all that belongs to it; it has no steps
	Steps []Step // in their order; each is taken where Old exists and New does not
}

// Step is one host rename. Host names are never used twice, as they seal a link sequence.
type Step struct {
	From, To []string // sealed host names of the two directories, from the root's children down; empty: the root
	Old, New string   // host names in them
}

const exchangeSize = 16 // before the steps

// Append appends the encoding of x. Names are 1 to 255 bytes.
//
//	 0  1  kind = 2
//	 1  1  flags: bit 0: over
//	 2  2  number of steps
//	 4  4  0
//	 8  8  id
//	16  …  steps: path of the source, path of the target, u8 length, old name, u8 length, new name
//	       a path is u32 k, then k names: u8 length, the name
func (x *Exchange) Append(b []byte) []byte {
	le := binary.LittleEndian
	var flags byte
	if x.Over {
		flags = flagOver
	}
	b = append(b, byte(KindExchange), flags)
	b = le.AppendUint16(b, uint16(len(x.Steps)))
	b = append(b, 0, 0, 0, 0)
	b = le.AppendUint64(b, x.ID)
	for _, s := range x.Steps {
		b = appendPath(le.AppendUint32(b, uint32(len(s.From))), s.From)
		b = appendPath(le.AppendUint32(b, uint32(len(s.To))), s.To)
		b = appendPath(b, []string{s.Old, s.New})
	}
	return b
}

// Over answers the head of the transaction that ends the exchange of an encoded intent. It need not be synced: without it replay looks at every step
// and finds it done; but where the steps were undone it keeps replay from taking them again.
func Over(intent []byte) ([]byte, error) {
	x, err := ParseExchange(intent)
	if err != nil {
		return nil, err
	}
	return (&Exchange{ID: x.ID, Over: true}).Append(nil), nil
}

// ParseExchange reads what Append wrote, and nothing else; b is not kept. The error is ErrMalformed or ErrKind.
func ParseExchange(b []byte) (*Exchange, error) {
	kind, err := KindOf(b)
	if err != nil {
		return nil, err
	}
	if kind != KindExchange || len(b) < exchangeSize {
		return nil, malformed("exchange of kind %d with %d bytes", kind, len(b))
	}
	le := binary.LittleEndian
	x := &Exchange{ID: le.Uint64(b[8:]), Over: b[1] == flagOver}
	steps := int(le.Uint16(b[2:]))
	if b[1]&^flagOver != 0 || le.Uint32(b[4:]) != 0 || x.Over != (steps == 0) {
		return nil, malformed("exchange of %d steps with flags %#x", steps, b[1])
	}
	b = b[exchangeSize:]
	for range steps {
		var s Step
		if s.From, b, err = parseCounted(b); err != nil {
			return nil, err
		}
		if s.To, b, err = parseCounted(b); err != nil {
			return nil, err
		}
		var pair []string
		if pair, b, err = parsePath(b, 2); err != nil {
			return nil, err
		}
		s.Old, s.New = pair[0], pair[1]
		if s.Old == s.New && slices.Equal(s.From, s.To) {
			return nil, malformed("step that goes nowhere")
		}
		x.Steps = append(x.Steps, s)
	}
	if len(b) > 0 {
		return nil, malformed("%d bytes behind the steps", len(b))
	}
	return x, nil
}

// parseCounted reads a path with its count.
func parseCounted(b []byte) (path []string, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, malformed("path")
	}
	n := binary.LittleEndian.Uint32(b)
	if b = b[4:]; uint64(n) > uint64(len(b)) { // each name takes two bytes and more
		return nil, nil, malformed("path of %d names", n)
	}
	return parsePath(b, int(n))
}

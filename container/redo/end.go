package redo

import (
	"encoding/binary"

	"github.com/cofferfs/coffer/container/keys"
)

// End ends what a head with Made began: from here on replay makes the file no more.
type End struct {
	ID keys.ObjectID
	// Removed: the file lost its one name, Path, and has had its last one: replay removes that where the host kept it. Else all of the file is durable on the
	// host, its name included, and what the host has counts.
	Removed bool
	Path    []string
}

const (
	endSize     = 32 // before the path
	flagRemoved = 1
)

// Append appends the encoding of e. A path deeper than 65535 names is left out.
//
//	 0  1  kind = 4
//	 1  1  flags: bit 0: removed
//	 2  2  k: number of names of the path
//	 4 12  0
//	16 16  object id
//	32  …  k names: u8 length, the name
func (e *End) Append(b []byte) []byte {
	var flags byte
	if e.Removed {
		flags = flagRemoved
	}
	path := e.Path
	if len(path) > maxPath {
		path = nil
	}
	b = append(b, byte(KindEnd), flags)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
	b = append(b, make([]byte, 12)...)
	b = append(b, e.ID[:]...)
	return appendPath(b, path)
}

// ParseEnd reads what Append wrote, and nothing else; b is not kept. The error is ErrMalformed or ErrKind.
func ParseEnd(b []byte) (*End, error) {
	kind, err := KindOf(b)
	if err != nil {
		return nil, err
	}
	if kind != KindEnd || len(b) < endSize {
		return nil, malformed("end of kind %d with %d bytes", kind, len(b))
	}
	e := &End{ID: keys.ObjectID(b[16:]), Removed: b[1] == flagRemoved}
	if b[1]&^flagRemoved != 0 || [12]byte(b[4:]) != [12]byte{} {
		return nil, malformed("end with flags %#x", b[1])
	}
	if e.Path, b, err = parsePath(b[endSize:], int(binary.LittleEndian.Uint16(b[2:]))); err != nil {
		return nil, err
	}
	if len(b) > 0 {
		return nil, malformed("%d bytes behind the path", len(b))
	}
	return e, nil
}

package names

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
)

// MaxName is the length of the longest plain name in bytes, as on any host.
const MaxName = 255

const (
	version = 1

	headSize      = 29  // P before the name
	maxPlain      = 175 // P at most: sealed and in base64url these are 255 bytes
	maxShort      = maxPlain - headSize
	padTo         = 16
	maxGeometry   = 9 // FORMAT.md, section 4: nine rows
	hashSize      = sha256.Size
	longPlainSize = (headSize + hashSize + padTo - 1) / padTo * padTo
)

var (
	// ErrForeign says that a host name or target is not one of ours in this
	// place: no canonical base64url, or it does not open under its parent
	// directory or object id.
	ErrForeign = errors.New("foreign name")

	// ErrBadName says that a name is authentic and yet malformed, or that a
	// plain name cannot be one.
	ErrBadName = errors.New("malformed name")

	// ErrSidecar says that a sidecar is not the one of its long name. It is
	// damage, and an ErrBadName too.
	ErrSidecar = fmt.Errorf("%w: sidecar does not belong to its long name", ErrBadName)

	// ErrTooLong says that a plain name has more than MaxName bytes.
	ErrTooLong = errors.New("name too long")
)

// A Link is what a sealed name says: a plain name and the object it names.
type Link struct {
	Type     Type
	Geometry uint8 // geometry id, 1 to 9, where the host object is a container; else 0
	Flags    Flags
	ID       keys.ObjectID
	Seq      uint64 // link sequence
	Name     string // 1 to MaxName bytes, of any encoding; empty for a long name that only Open has seen

	// What stands in the sealed name of a long name; OpenLong checks the
	// sidecar against them. Set by Open only.
	nameLen  uint8
	nameHash [hashSize]byte
}

// IsLong reports whether the name of l is one that needs a sidecar.
func (l Link) IsLong() bool { return l.Flags&Long != 0 || len(l.Name) > maxShort }

// IsContainer reports whether the host object of l is a container: a regular
// file in Coffer's format.
func (l Link) IsContainer() bool { return l.Type == File || l.Flags&ContainerSymlink != 0 }

// HostMode returns the S_IFMT bits that the host object of l must have. They are
// those of its type, except that a symlink with a long target is a container.
func (l Link) HostMode() uint32 {
	if l.IsContainer() {
		return unix.S_IFREG
	}
	return l.Type.Mode()
}

// CheckName reports why a plain name can stand in no sealed name: ErrTooLong
// when it has more than MaxName bytes, ErrBadName when it is empty, "." or
// "..", or has a slash or a NUL. Bytes that are not UTF-8 are fine.
func CheckName(name string) error {
	switch {
	case len(name) > MaxName:
		return ErrTooLong
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return ErrBadName
	}
	return nil
}

// check reports what in l no reader would accept, the name apart.
func (l *Link) check() error {
	switch {
	case !l.Type.Valid():
		return fmt.Errorf("%w: unknown type %d", ErrBadName, l.Type)
	case l.Flags&^knownFlags != 0:
		return fmt.Errorf("%w: unknown flags %#x", ErrBadName, uint8(l.Flags))
	case l.Flags&ContainerSymlink != 0 && l.Type != Symlink:
		return fmt.Errorf("%w: container symlink of type %d", ErrBadName, l.Type)
	case l.IsContainer() != (l.Geometry != 0) || l.Geometry > maxGeometry:
		return fmt.Errorf("%w: geometry %d with type %d", ErrBadName, l.Geometry, l.Type)
	}
	return nil
}

// appendTo appends P, the plaintext of a sealed name, to b. The name of l is
// valid, and Long set as its length demands.
//
//	 0  1  version = 1
//	 1  1  type
//	 2  1  geometry id: 0 unless the host object is a container
//	 3  1  flags
//	 4  1  length of the plain name, 1 to 255
//	 5 16  object id
//	21  8  link sequence, little-endian
//	29  …  the name, or of a long one its SHA-256
//	 …  …  zeros, up to a multiple of 16 but at most to 175
func (l *Link) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, version, byte(l.Type), l.Geometry, byte(l.Flags), byte(len(l.Name)))
	b = append(b, l.ID[:]...)
	b = binary.LittleEndian.AppendUint64(b, l.Seq)
	if l.Flags&Long != 0 {
		hash := sha256.Sum256([]byte(l.Name))
		b = append(b, hash[:]...)
	} else {
		b = append(b, l.Name...)
	}
	for n := paddedSize(len(b) - start); len(b)-start < n; {
		b = append(b, 0)
	}
	return b
}

// paddedSize is the length of P for n bytes before the padding.
func paddedSize(n int) int { return min((n+padTo-1)/padTo*padTo, maxPlain) }

// parse reads P. It accepts exactly what appendTo writes; the error wraps
// ErrBadName.
func (l *Link) parse(p []byte) error {
	if len(p) < headSize {
		return fmt.Errorf("%w: %d bytes", ErrBadName, len(p))
	}
	if p[0] != version {
		return fmt.Errorf("%w: version %d", ErrBadName, p[0])
	}
	l.Type, l.Geometry, l.Flags, l.nameLen = Type(p[1]), p[2], Flags(p[3]), p[4]
	copy(l.ID[:], p[5:21])
	l.Seq = binary.LittleEndian.Uint64(p[21:29])
	if err := l.check(); err != nil {
		return err
	}

	n := int(l.nameLen)
	if (l.Flags&Long != 0) != (n > maxShort) {
		return fmt.Errorf("%w: long flag with a length of %d", ErrBadName, n)
	}
	if l.Flags&Long != 0 {
		n = hashSize
	}
	if len(p) != paddedSize(headSize+n) {
		return fmt.Errorf("%w: padded to %d bytes instead of %d", ErrBadName, len(p), paddedSize(headSize+n))
	}
	text, padding := p[headSize:headSize+n], p[headSize+n:]
	if len(bytes.TrimLeft(padding, "\x00")) != 0 {
		return fmt.Errorf("%w: padding is not zero", ErrBadName)
	}
	if l.Flags&Long != 0 {
		copy(l.nameHash[:], text)
		return nil
	}
	l.Name = string(text)
	if err := CheckName(l.Name); err != nil {
		return fmt.Errorf("%w: no plain name", ErrBadName)
	}
	return nil
}

// Winner decides which of several links under one plain name of a directory
// shows, and which are its losers (FORMAT.md section 8.1). all, which it sorts,
// has one or more; of says what link one is, headerless whether a file with the
// flag NoHeader may lack its header, and does.
func Winner[T any](all []T, of func(T) Link, headerless func(T) bool) (winner T, losers []T) {
	slices.SortFunc(all, func(a, b T) int {
		x, y := of(a), of(b)
		return cmp.Or(-cmp.Compare(x.Seq, y.Seq), bytes.Compare(x.ID[:], y.ID[:]))
	})
	win := 0
	for win < len(all)-1 && of(all[win]).Flags&NoHeader != 0 && headerless(all[win]) {
		win++
	}
	return all[win], slices.Delete(slices.Clone(all), win, win+1)
}

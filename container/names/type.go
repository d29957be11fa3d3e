package names

import "golang.org/x/sys/unix"

// A Type is the type of a plain object as it stands in its sealed name.
type Type uint8

// The types of format version 1.
const (
	File     Type = 1 // host: a regular file, the container
	Dir      Type = 2
	Symlink  Type = 3 // host: a symlink, or a container where the target is too long
	FIFO     Type = 4
	Socket   Type = 5
	CharDev  Type = 6
	BlockDev Type = 7
)

// types holds what the host calls each type, by the S_IFMT bits of its mode, and
// our word for it.
var types = [...]struct {
	mode uint32
	name string
}{
	File:     {unix.S_IFREG, "file"},
	Dir:      {unix.S_IFDIR, "directory"},
	Symlink:  {unix.S_IFLNK, "symlink"},
	FIFO:     {unix.S_IFIFO, "FIFO"},
	Socket:   {unix.S_IFSOCK, "socket"},
	CharDev:  {unix.S_IFCHR, "character device"},
	BlockDev: {unix.S_IFBLK, "block device"},
}

// TypeOfMode returns the type with the S_IFMT bits of a stat mode; 0 when there
// is none.
func TypeOfMode(mode uint32) Type {
	for t := File; t <= BlockDev; t++ {
		if mode&unix.S_IFMT == types[t].mode {
			return t
		}
	}
	return 0
}

// Valid reports whether t is a type of format version 1.
func (t Type) Valid() bool { return t >= File && t <= BlockDev }

// Mode returns the S_IFMT bits of a plain object of type t; 0 when t is not
// valid.
func (t Type) Mode() uint32 {
	if !t.Valid() {
		return 0
	}
	return types[t].mode
}

// String returns the word for t.
func (t Type) String() string {
	if !t.Valid() {
		return "unknown type"
	}
	return types[t].name
}

// Flags are bits of a sealed name.
type Flags uint8

const (
	// NoHeader says that no durable header existed when the link was made; see
	// FORMAT.md, section 8.2.
	NoHeader Flags = 1 << 0
	// Long says that the plain name is in a sidecar. Seal sets it and Open
	// reports it; nobody else decides it.
	Long Flags = 1 << 1
	// ContainerSymlink says that the target of a symlink is in a container.
	ContainerSymlink Flags = 1 << 2

	knownFlags = NoHeader | Long | ContainerSymlink
)

// MayLackHeader reports whether the container of a name with these flags and the link sequence seq may have no header (FORMAT.md section 8.2). unclean
// tells which sequences a session may have drawn that did not end cleanly.
func (f Flags) MayLackHeader(seq uint64, unclean func(seq uint64) bool) bool {
	return f&NoHeader != 0 && unclean(seq)
}

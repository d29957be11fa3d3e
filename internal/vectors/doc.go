// Package vectors reads and writes test vector files: known inputs with the
// bytes that must come out of them, or the error that must. It serves tests
// only.
//
// A vector is a text file of named fields, in the manner of C2SP's CCTV, named
// by what it is about and, where it must fail, by the failure
// (name_wrong_parent). There is one failure per file.
//
//	expect: success
//	comment: what this is about, one line
//	key: 000102030405060708090a0b0c0d0e0f
//	empty:
//	frame: 7f9c2ba4e88f827d…128 characters
//	 616045507605853e…the rest
//
// A field is a name of lower-case letters, digits and underscores, a colon, a
// space and a value. A line that starts with a space continues the value above
// it, without the space. Names do not repeat, their order is kept, and there is
// one spelling only: what Read accepts, Write writes back byte for byte.
//
// The vectors of this project lie in the folders testdata/vectors of container,
// container/redo, container/stream, journal and cmd/mount/bulk. A test builds
// them deterministically, calls Sync, and gives what is committed to Run, which
// checks each; with the flag -update, which the test defines, Sync writes them.
// Changing a committed vector of a released format is a change of the format.
package vectors

// Package keys holds the vault master key, derives every other key from it, and
// writes it down as recovery text (FORMAT.md, sections 3 and 9).
//
//	vault master key ──HKDF-Extract, salt vault id──> PRK
//	   PRK ──HKDF-Expand, one label each──> content  names  config  state
//	                                        journal  xattr  commitment (public)
//	   content ──file id, suite, digest, sizes, epoch──> of one container:
//	                                        Enc  Auth  Commitment (public)
//
// A MasterKey and a Ring keep their secrets outside of Go's heap, in memory
// that is locked (not swapped) and left out of core dumps, and wipe it when
// they are destroyed. That is best effort: where the system refuses to lock,
// the memory is used unlocked and Locked says so. Copies that callers ask for,
// and the key schedules that ciphers make of them, live on the heap like
// everything else.
//
// Every label of the derivation stands in this package and nowhere else, so
// that one look shows them to be distinct.
//
// # The files, in reading order
//
//	id.go master.go secret.go   ids, the master key, and the memory that it is in
//	ring.go stream.go           the keys of a vault, of a container and of a sealed stream
//	recovery.go                 the master key as text
//
// Read next: package suite for what Enc is used with, package names for the
// names key, and package vault for how the master key is wrapped in config.
package keys

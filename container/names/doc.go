// Package names is the codec of sealed names: how a plain name, with the type
// and the identity of what it names, becomes a host name, and how symlink
// targets become host targets (FORMAT.md, section 8). It does no I/O.
//
//	plain:  Link{Type, Geometry, Flags, ID, Seq, Name}   in a parent directory
//	           │ plaintext P, padded to a multiple of 16
//	           │ AES-256-SIV, associated data = label ‖ parent directory id
//	           ▼ base64url
//	host:   "pDGk…Q"                      at most 255 bytes
//	        "pDGk…Q.name"                 beside it for a long name: the sidecar
//
// It promises that a host name opens only under the directory it was sealed
// for, that it says what the object is and which content belongs to it, and
// that what opens seals to the same bytes again. So whoever holds the storage
// can remove a name or put back one that was once there, but cannot move,
// swap, retype or invent one. It hides the length of a name up to 15 bytes.
//
// It does not promise that the host object is of the type its name says
// (compare Link.HostMode with its mode), nor which of two names wins: that is
// the work of package dirs.
//
// # The files, in reading order
//
//	type.go link.go          what a name says, and which of several links shows
//	codec.go sidecar.go      sealed names, and the sidecars of long ones
//	target.go                targets of symlinks
//
// Read next: package dirs.
package names

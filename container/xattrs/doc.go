// Package xattrs keeps what an object has beside its content on the host, sealed (FORMAT.md 8.6 and 8.7): extended attributes, and
// a mode that the host object itself cannot have.
//
//	plain:  user.mime_type = text/plain                     mode 0444
//	           │ AES-256-SIV under K_xattr, associated data = label ‖ object id ‖ …
//	           ▼
//	host:   user.coffer.gH3…w = 16 bytes longer             user.coffer = 20 bytes, beside host mode 0644
//
// Codec seals and opens; its methods on a disk.Xattrs get, set, list and remove. Nothing is cached here, and nothing is durable before the host
// object is synced.
//
// It promises that an attribute opens only on the object it was set on and under its own name. It does not promise that an attribute is
// still there: who holds the storage can remove one, or put an older one back. How many attributes an object has and how long they are, is visible.
//
// # The files, in reading order
//
//	codec.go   names, values and modes: sealed and opened
//	store.go   the attributes of a host object
//	check.go   all of them looked at, and carried to another object
//
// Package fs decides who may do what, and remembers which objects have none.
//
// Read next: container/dirs, which leads to attributes by name.
package xattrs

// Package disk is the only place that calls the host's file API. Everything above works on the two interfaces of disk.go,
// so that tests can cut the power, tear writes and fail the n-th call.
//
//	Dir   an open host directory: names in it, and what happens to them
//	File  an open host file: bytes at offsets, durability, attributes
//
// OpenRoot gives the Linux implementation. It works on descriptors alone: a name is a single path component, resolved
// relative to an open directory, and never followed where it is a symbolic link; "." and ".." and names with a slash are
// EINVAL. No path is ever built, so depth is not limited by PATH_MAX, and no component can be swapped for a link between
// two calls. Interrupted calls (EINTR) are repeated and short transfers continued.
//
// As makes host objects in another user's name; everything else is done as the process itself.
//
// Errors are *fs.PathError around a syscall.Errno (or ErrNotRegular) whose Path is the host name as given, empty for calls on
// the object itself, so that errors.Is(err, syscall.ENOSPC) holds at every layer. ReadAt answers a bare io.EOF.
//
// What it does not do: it caches nothing, keeps no order between calls beyond the host's own, and makes nothing durable
// but by Datasync, Sync, Dir.Sync and Dir.SyncAll.
//
// disk.go has the interfaces, os.go opens a root, osdir.go and osfile.go are the calls, xattr.go those for extended attributes, direct.go, ahead.go and past.go what goes
// past the page cache, served.go what hosts need that syncfs(2) does not reach, identity.go As, and walk.go goes through a tree of any depth with
// few descriptors.
//
// Package disktest holds the conformance suite that every implementation passes. Read container/dirs next: it owns the
// names that live here.
package disk

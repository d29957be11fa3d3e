// Package fs speaks FUSE: it turns requests of the kernel into calls of container/dirs (names and attributes) and cache (bytes), and
// errors into errno. It sees no key and does no data I/O on the host itself.
//
// A read of an open file, and a write until it is on the host:
//
//	application   read(2)                              write(2), close(2)
//	kernel        page cache ── miss ──┐               page cache ── dirty pages ──┐
//	              READ off, len        │               WRITE (≤ 1 MiB), SETATTR(mtime), FLUSH
//	fs            node id → inode → cache.File         inode → cache.File; mtime noted; FLUSH hands over
//	cache         valid frames, else │                 dirty frames, zero-filled and merged
//	container     frames opened straight into          frames sealed in parallel, written to slots,
//	              go-fuse's reply buffer               metadata and header after them
//	fs                                                 Flushed: mtime of the host file put right
//
// FS implements go-fuse's raw interface and not its node interface, because write flags, kill-suid bits and lookup counts are
// needed as the kernel sends them. All state hangs on the inode: a file handle is only two bits, so that every handle of a file
// shares one cache.File and an unlinked open file keeps working. Directory handles hold a snapshot of the names.
//
// Names: an inode knows the links (parent, name) under which the kernel found it. Calls by name go to container/dirs together with
// the object id, which answers dirs.ErrStale when the name carries another object. When the last known link goes, a host
// descriptor is kept until the kernel forgets the inode.
//
// Who owns what, with the kernel's write-back cache (the default): size, mtime and ctime of a regular file are the kernel's from the first LOOKUP
// on. The size in that first answer must be right, and host times that our own flush changes are put back (times.go).
//
// Extended attributes and modes that the host cannot have are sealed by container/xattrs. What an object has of them is asked of the host once and
// remembered on the inode (held.go): the kernel probes every file that is written. ACLs are the host's own (acl.go).
//
// Locks, in this order: inode.xattrMu, inode.loc (links; held over host calls by name), inode.mu (open file), FS.mu (node table), inode.timeMu,
// FS.syncMu. The node table's lock is never held over a call of another package. No notification is sent under a lock, but for attributes alone (killpriv.go).
//
// Errors become errno in errno.go, the only place that does so and the only place that logs.
//
// Read next: package cache, then container.
package fs

// Package fs speaks FUSE: it turns requests of the kernel into calls of container/dirs (names and attributes) and cache (bytes), and
// errors into errno. It sees no key and does no data I/O on the host itself.
//
// # A read, from the application to the disk
//
//	kernel         read(2): pages that the page cache lacks ──> READ off, len
//	fs             FS.Read (fileops.go): node id → inode (table.go) → its open file, which the first request opens (FS.use, file.go)
//	cache          File.ReadAt (read.go): frames that are here, dirty or clean, are copied; whole frames that are not pass it by
//	container      File.ReadAt (read.go): plan looks up the record entry of each frame, by pinned meta blocks (meta.go), and cuts the range into
//	               pieces; readPiece reads each, from the overlay what waits in the journal, else its slots by one host call (readHost, pending.go),
//	               and opens its frames straight into go-fuse's reply buffer, pieces in parallel (pool.go)
//	internal/disk  pread
//
// # A write, until it is where it stays
//
//	kernel         write(2): dirty pages; on close, fsync, pressure or age ──> WRITE (≤ 1 MiB), SETATTR(mtime), FLUSH or FSYNC
//	fs             FS.Write: the mtime is noted (times.go), the request answered when the cache has the bytes
//	cache          File.WriteAt (write.go): frames become dirty; of what the kernel writes back, large pieces go on at once (File.WriteThrough, through.go)
//	               File.Flush (flush.go), by FLUSH, FSYNC, pressure or the timer: WriteFrames for batches of dirty frames, then Flush
//	container      File.WriteFrames (commit.go): frames sealed in parallel (C1); to their slots where nothing is stored yet, else kept for the
//	               transaction and in the overlay (C2); their entries into the records (C3)
//	               File.Flush (flush.go): records, pins, header (C4 to C6), one transaction appended to the journal (File.log, log.go)
//	journal        Journal.Append (append.go): records behind each other in a piece
//	fs             FSYNC, FS.Fsync: then File.Sync (log.go, C7): Journal.Sync; and the names of the file (sync.go), or all of a new file by the
//	               journal alone (made.go, C8)
//	               In the same order, but begun by the last WRITE before it, where a file's FSYNCs can be foreseen (ahead.go)
//	container      some seconds later the applier (run.go): what is durable in the journal to its places, a sync, Journal.Recycle (A1 to A4)
//
// # What it rests on
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
// Errors become errno in errno.go, the only place that does so and the only place that logs.
//
// # Locks
//
// In this order: inode.xattrMu, inode.loc (links; held over host calls by name), inode.mu (open file), FS.mu (node table), inode.timeMu,
// FS.syncMu. That of the trails (trail.go) may be taken under any. The node table's lock is never held over a call of another package. No notification is sent under a lock, but for attributes alone (killpriv.go).
//
// # The files, in reading order
//
//	fs.go mount.go options.go stack.go                     the filesystem, its mount, and the layers of a vault put together
//	fileops.go early.go trail.go ahead.go file.go closings.go orphan.go copy.go
//	                                                       requests on bytes, what of them is foreseen, and the open file behind them; one without a name
//	inode.go table.go links.go prune.go                    objects that the kernel knows, and their names
//	dirops.go rename.go symlink.go tmpfile.go readdir.go told.go
//	                                                       requests on names
//	sync.go made.go                                        what an fsync makes durable beside the bytes
//	attr.go statx.go times.go ctimes.go mode.go access.go killpriv.go
//	xattr.go held.go acl.go statfs.go                      attributes
//	watch.go watchops.go turn.go inuse.go freeze.go        between kernel and FS: counts, who uses what, and holding all changes up
//
// Read next: package cache, then container.
package fs

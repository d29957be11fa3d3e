// Package cache holds plaintext: the dirty frames that the host does not have yet, and the clean frames that partial requests
// touch. It stands between fs, which speaks in byte ranges, and container, which speaks in whole frames.
//
//	fs ── ReadAt, WriteAt, WriteThrough, CopyFrom, Truncate, Discard, Flush, Sync ─> cache.File
//	                                                            │
//	            segment 0        segment 1        segment 2     │  one map of segments per file;
//	          ┌──┬──┬──┬──┐    ┌──┬──┬──┬──┐                    │  a frame is absent, loading, clean, dirty
//	          │ C│  │ D│ D│    │  │  │  │ I│       (absent)     │  or in flight (being written, still readable)
//	          └──┴──┴──┴──┘    └──┴──┴──┴──┘                    │
//	                                                            ▼
//	                                             container.File: ReadAt, WriteFrames, SetSize, …
//
// The kernel keeps plaintext pages itself, so whole frames that nobody wrote are not kept here: they are opened straight into the
// reply; and those that it writes back in large pieces are sealed straight from the request (WriteThrough). What stays is what a request
// covers in part. A segment with dirty frames is in its file's dirty map and cannot be evicted; clean ones are in one LRU for all files,
// evicted by bytes (Config.Clean), whole segments at a time.
//
// # What is promised
//
//   - A read returns what the writes that ended before it wrote, whether that is dirty, in flight or stored.
//   - Bytes between the old end of a file and a write beyond it, and between a cut and a later growth, read as zeros: every
//     cached frame holds zeros beyond the size, always.
//   - After Flush everything written before it is in the host's files; after Sync it is durable there. A frame that could not be
//     written stays dirty and is tried again. A failure in the background is returned by the next Flush, Sync or Close.
//   - Dirty memory is bounded: per file by Config.Window, in all by Config.Dirty (what WriteThrough passes on is its caller's). Data is
//     handed over no later than Config.MaxAge after it was written.
//
// Not promised: that one WriteAt is seen by a concurrent ReadAt as a whole (within one segment it is, as far as the read is
// served from the cache), that Flush survives a power cut (Sync does), or any order between files.
//
// # Locks
//
// In the order in which they are taken; whoever holds one takes only those below it:
//
//	File.flushMu   one hand-over of a file at a time: a batch of WriteFrames, Flush; WriteThrough, Truncate, Discard, Close
//	File.rw        shared for reads and writes; exclusive for Truncate, Discard, Close
//	segment.mu     frames of one segment and their state bits; never held over a call of the store
//	Cache.mu       every map, the LRU, reference counts, byte counts; short, never held over anything that waits
//	shelf.mu       a free list; a leaf
//
// A writer that must wait for room does so before it takes any of them, and writes dirty frames out itself meanwhile, so waiting
// needs no other goroutine. Hooks and events run with none of them held.
//
// While WriteFrames reads a frame, its buffer does not change: a writer that comes puts a copy in its place (segment.inflight).
// The other way, holding the segment's lock over the host, would stop readers of its other frames behind the disk. The
// price is at most one batch (1 MiB) of extra buffers per file, and it counts as dirty.
//
// # The files, in reading order
//
//	cache.go file.go store.go errors.go
//	                                the cache, an open file in it, and what it needs of a container
//	segment.go shelf.go             frames of a segment, and the buffers that they lie in
//	read.go seek.go                 the way out
//	write.go through.go copy.go     the way in
//	flush.go pressure.go            down to the container: on demand, by age, where room is short
//	truncate.go                     what changes the shape of a file
//
// Read next: container, for what is below; fs for who calls.
package cache

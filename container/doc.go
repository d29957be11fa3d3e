// Package container is the encrypted file: its format, its keys at work, and the one way by which plaintext becomes bytes on
// the host and back. It is the only package that sees a key.
//
// A container is a header block, then groups: a meta block with the records of a few segments, followed by the slots of their frames.
// A frame is sealed on its own; its nonce and tag stand in the segment record; the meta block is pinned by a MAC in its parent, up to
// the header, which carries an HMAC of its own. So every read of a frame is checked against the header, and what is stale, moved, zeroed or cut
// is found by the read that touches it:
//
//	header ── pins ──> meta block of groups 0–31 ── entry ──> frame in its slot
//	   └───── pins ──> node ─> node ─> node ─ pin ─> meta block ── entry ──> frame
//
// A read (read.go) looks up the entries of the frames it touches (meta.go), reads neighbouring slots with one host call, and opens whole frames
// straight into the caller's buffer, in the pool (pool.go) where there are several runs. A write (commit.go) is a sequence of numbered
// steps that FORMAT.md section 12 names C1 to C8. SetSize and Discard (shape.go) go through the same steps:
//
//	WriteFrames   C1 seal   C2 fresh slots: write   else: keep in the transaction and the overlay   C3 enter into records
//	Flush         C4 digests, pins, nodes   C5 sync fresh frames if need be   C6 append one transaction to the journal (log.go)
//	Sync          C7 sync the journal; of a new file, the host file      SyncNew   C8 all of a small new file into the journal instead (made.go)
//	applier       A1 journal durable   A2 images to their places, length, holes   A3 sync   A4 recycle (run.go, place.go, checkpoint.go)
//
// A slot is fresh while nothing is stored in it, not even for a replay. What takes the place of something stored is an image: the new bytes of one place
// of the host file (a slot, a meta block, a node, the header). The images of one commit are a transaction; until they are applied the overlay of their file
// has them, and readers look there before they ask the host. Fresh frames that are few ride: they are written to their slots and logged too, which saves C5.
//
// What is stored is never overwritten before its new image is durable in the journal, so that after a power cut every page is the old or the new one;
// container/redo replays. The first flush of a new file needs no journal: everything is fresh. Until its first sync a power cut may take parts of it, which
// become holes at the next opening (salvage.go).
//
// What it does not do: cache plaintext (package cache), know names (container/names, container/dirs), choose keys (container/vault).
//
// # Locks
//
// In this order: File.commit, applier.flushing, File.hostMu, File.slots, File.load (one of each level, from the meta blocks up), File.mu,
// applier.paying, applier.mu, Engine.metaMu. File.mu is never held over a host call. The applier's goroutine takes none of commit, flushing and
// paying, which are held over appends to the journal that may wait for room.
//
// # The files, in reading order
//
//	geometry.go frame.go record.go node.go header.go         the format: where everything lies, and how its bytes are written
//	digest.go errors.go                                      leaves and digests; the classes of errors
//	engine.go open.go file.go                                the containers of a vault, and one that is open
//	read.go meta.go pool.go fetch.go scatter.go seek.go      the way out
//	commit.go body.go flush.go early.go shape.go allocate.go the way in, step by step
//	log.go pending.go patch.go made.go                       what is logged: transactions, their images, and what is cut from these
//	apply.go run.go place.go checkpoint.go settle.go         from the journal to the host, in the background: the queue, and what empties it
//	salvage.go                                               a file that a power cut left without its parts
//	verify.go scrub.go survey.go wreck.go worth.go edge.go   looking at all of a container, and saving what is left of one
//	segment.go segment_open.go                               one segment in wire form, for package stream
//
// Read next: those of the first line, then read.go and commit.go; package journal for what is below.
package container

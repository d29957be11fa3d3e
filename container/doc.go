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
// steps that FORMAT.md section 12 names C1 to C7. SetSize and Discard (shape.go) go through the same steps:
//
//	WriteFrames   C1 seal   C2 fresh slots: write   else: keep in the transaction and the overlay   C3 enter into records
//	Flush         C4 digests, pins, nodes   C5 sync fresh frames if need be   C6 append one transaction to the journal (log.go)
//	Sync          C7 sync the journal; of a new file, the host file
//	applier       A1 journal durable   A2 images to their places, length, holes   A3 sync   A4 recycle (apply.go, place.go, checkpoint.go)
//
// What is stored is never overwritten before its new image is durable in the journal, so that after a power cut every page is the old or the new one;
// container/redo replays. The first flush of a new file needs no journal: everything is fresh. Until its first sync a power cut may take parts of it, which
// become holes at the next opening (salvage.go).
//
// What it does not do: cache plaintext (package cache), know names (container/names, container/dirs), choose keys (container/vault).
//
// # Locks
//
// In this order: File.commit, File.hostMu, File.slots, File.load, File.mu, applier.mu, Engine.metaMu. File.mu is never held over a host call. The
// applier never takes commit, which is held over an append that may wait for room.
//
// Read next: geometry.go for where everything lies, then read.go, commit.go, log.go and apply.go.
package container

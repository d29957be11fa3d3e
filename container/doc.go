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
// steps that FORMAT.md section 12 names C1 to C7: seal, write to slots, enter into records; then, at a flush, digests and pins, meta blocks
// and nodes, host length, header; then, at a sync, the device. SetSize and Discard (shape.go) go through the same steps.
//
// What it does not do: cache plaintext (package cache), know names (container/names, container/dirs), choose keys (container/vault). There is no
// journal yet: a power cut between C2 and C7 may leave frames that were being overwritten unreadable. They then fail with ErrAuth.
//
// # Locks
//
// In this order: File.commit, File.slots, File.load, File.mu, Engine.metaMu. File.mu is never held over a host call.
//
// Read next: geometry.go for where everything lies, then read.go and commit.go.
package container

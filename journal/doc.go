// Package journal is a write-ahead log of opaque transactions in a ring of preallocated host files. What Sync answered for is
// delivered again by the next Open, in order and whole, whatever the power did; of the rest, a prefix is.
//
//	         Append                         Recycle
//	           v                               v
//	log:  ────────────────────────────────────────────────────────────> LSN, a byte position, only grows
//	          │ recycled │ still needed …        │ unsynced │
//	          0          recycled           synced         end
//
//	pieces:   journal.0000   journal.0001   journal.0002   …    8 MiB each, in .coffer
//	          [header|records][header|records][header|records]
//
// The log is cut into pieces by position: piece n of the log holds the bytes n·D up to (n+1)·D, D being the size of a piece without its header. A
// transaction is one record, or several where it does not fit the rest of a piece; the last one carries the commit flag. Records begin at multiples of 512
// bytes, so that a torn sector of one never damages another, and are written by whole blocks of the host (gather.go). A piece that Recycle gave up is used
// again in place for the next part of the log. So an append never grows a file, and an fdatasync has nothing but data to write. What an earlier use left
// in a piece states another position than its own and is never taken for new.
//
// A transaction has a head, which the chain of MACs through all records covers, and bulk, which only a CRC32C covers: it is meant for
// ciphertext that has tags of its own. The package knows no key, only a constructor of a keyed hash, and never looks inside of either.
//
// # Order of host calls
//
// Numbers that code and tests cite:
//
//	J1  a new piece is written with zeros and synced (a host that is full says so here, where nothing has happened yet), then its name
//	    (fsync of the directory), before it is used; mostly in the background, while the one before fills (spare.go)
//	J2  the header of a piece is synced before the first record of that use overwrites what the piece held before; or with the records, where what is durable says that
//	    all of that was recycled, and these wait for a Sync
//	J3  records go to the page cache in order; Sync makes pieces durable in order, then counts them as synced. One that is to be synced at once goes straight to the
//	    disk, where all before it is synced and nobody else waits. It may fly: Append returns while the host writes, and Sync, or the next Append, waits for that
//	J4  a piece is used again only when Recycle gave up all of it; on a full host what it had not filled yet is left out then
//	J5  removal: a header that gives up the whole log is synced to the newest piece; the other pieces are unlinked; that is synced; the
//	    newest is unlinked; that is synced
//
// The header has two places, used in turn, so that a torn one leaves the one before. Why J2: a piece whose old header stands before new records
// would end the log at its front, and take with it the pieces behind. Why J5: what is left after a cut must never read as a shorter log
// than the one that was replayed, because to replay a prefix over its own future rolls blocks back.
//
// # What it does not do
//
// It does not know what is durable elsewhere: the caller says so with Recycle, and only of what it has synced itself. It does not
// notice a removed tail of the log (the last pieces deleted or emptied): nothing durable would be left that tells. It does not retry: after a failed
// write or sync nobody knows what the host kept, so that the first failure ends the journal.
//
// # Locks
//
// In this order: Journal.appending (one Append at a time, held over its host calls and its wait for room), Journal.mu (short, never over
// a host call or a callback). Whoever leads a Sync holds neither over fdatasync, so that transactions gather for the next one; nor does what makes a spare
// piece, of which there is one at a time.
//
// # The files, in reading order
//
//	format.go record.go piece.go             the bytes: headers, records, the file of a piece
//	journal.go append.go payload.go gather.go room.go spare.go sync.go
//	                                         the way in: records, what they are cut from, and pieces to write them to
//	reader.go scan.go each.go                the way back: the pieces, what of them is whole, and that transaction by transaction
//	salvage.go                               what can be had of a journal that is damaged
//	errors.go                                the classes of errors
//
// Read next: package container/redo, for what the transactions of a vault say.
package journal

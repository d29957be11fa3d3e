// Package dirs keeps the directory maps of a mounted vault: which plain name in which directory is which object. It is the only
// owner of sealed names on the host and knows neither FUSE nor the content of files.
//
//	Tree   registry: directory id -> Dir        one Dir per directory, however many look at it
//	  Dir  map: plain name -> link              loaded by one List of the host directory at first use
//	         link: object id, type, sequence    enough to seal the host name again
//
// # What it promises
//
// The map is authoritative: a vault has one writer. A name shows only if it opens under its own directory and the host object
// has its type; everything else is hidden and reported as an event. Of several links under one plain name the highest
// sequence shows, the others are losers (FORMAT.md 8.1): hidden, and removed before their winner is moved, removed or replaced.
// What damage hides keeps no directory from being removed: a directory's own objects go with it, those sealed elsewhere move up.
// Every mutation is one host call that makes the new state visible, so that a crash leaves the old state or the new one, at most
// with a loser or an orphan sidecar beside it. An exchange takes three host calls, and a crash between them leaves one object
// under the plain name ".coffer-exchange-" and a number; nothing is ever hidden by it. With Config.Intend the next mount finishes it.
//
// In read-only mode nothing is written to the host.
//
// # What it does not promise
//
// Nothing is durable before Dir.Sync (sidecars are, before their name goes live). Two host inodes under one file id are not
// noticed here: fs compares inode numbers. Whoever holds the storage can bring back a name that was once valid, with the
// object that had it.
//
// # References
//
// Child answers a Dir with one reference that belongs to the caller; Release gives it back. Methods may be called as long as
// a reference is held. A live Dir keeps its parent live. A Dir whose last reference is gone leaves nothing behind. While it
// is live its map may be dropped (MaxEntries) and its descriptor closed (MaxOpenDirs); both come back at the next use, the
// descriptor through the parents' ones, at any depth. A Dir removed by Rmdir keeps its descriptor until the last Release.
//
// # Host names are not stored
//
// Sealing a link again costs 0.3 to 0.8 us, less than the host call that needs the name, and gives the same name each time. Storing them would
// double the memory of a map: a link takes 32 bytes and its plain name, a host name 86 bytes and more. Each Dir remembers the one that was sealed last.
//
// # Lock order
//
//  1. Tree.moves      renames that move directories, one at a time
//  2. Dir.mu          of several Dirs in ascending order of directory id, whatever their place in the tree
//  3. Tree.place      where each live Dir is: read while a descriptor is reopened, written around the host call that moves or
//     removes a directory
//  4. Tree.mu         registry, reference counts
//  5. Tree.fds.mu     open descriptors
//
// Dir.mu is held during the host calls of its own names; a Dir.mu taken out of order is only ever tried (trim). Callbacks of Config
// run under Dir.mu and must not call into the Tree.
//
// # The files, in reading order
//
//	tree.go dir.go descriptors.go                the registry, one directory, and which descriptors are open
//	load.go                                      from the host's names to a map
//	attr.go birthtime.go ahead.go                looking up, listing, opening; attributes by name; which files are next
//	create.go owner.go tmpfile.go                what is new
//	remove.go rename.go exchange.go whiteout.go  what goes and what moves
//	supersede.go adopt.go                        what only repairs and imports do
//
// Read next: package names, for what a host name says.
package dirs

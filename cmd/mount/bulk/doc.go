// Package bulk copies whole trees out of a vault, with or without a mount (package plain), to the host.
//
//	plain.Node ── walk ──> directories made at once, files handed to a few workers
//	                       worker: file without a name ── data, attributes, fsync ──> its name, at once
//	                       last one out of a directory: attributes of the directory, fsync
//
// It promises that nothing stands under its final name before it is whole, verified (every byte that is read from a vault is) and durable, so that what was
// interrupted is done again by the same call, which leaves alone what it finds finished. It works on directory descriptors, so that a deep tree is no limit and no symlink at
// the destination is followed. It stops at nothing but a destination that takes no more: what fails is reported, and the rest copied.
package bulk

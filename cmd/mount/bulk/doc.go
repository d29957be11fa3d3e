// Package bulk copies whole trees out of a vault, with or without a mount (package plain), to the host, and from the host into a vault that is open for writing. The
// mount of a vault is a directory of the host: what goes into a mounted one is an export to there.
//
//	export: plain.Node ── walk ──> directories made at once, files handed to a few workers
//	          worker: file without a name ── data, attributes ──> small ones wait for others ── fsync, of many a syncfs ──> its name, at once
//	          large: TEMP.part, pieces of it on all cores; each 32 MiB or 1 s, beside the copying: sync, then a resume point behind the data
//	          last one out of a directory: attributes of the directory, fsync; of many one syncfs at the end
//
//	import: host tree ── walk ──> .coffer/import/NAME.part ── sealed in parallel, attributes; small files some at a time, large ones alone
//	          large: each 32 MiB or 1 s, beside the copying: sync, then NAME.record, a resume point
//	          whole: sync, thousands of small ones at a time, beside what comes next ── rename ──> its sealed name, at once
//
// It promises that nothing stands under its final name before it is whole and durable, and, of what comes out of a vault, verified, as every byte that is
// read from one is. So what was interrupted is done again by the same call, which leaves alone what it finds finished. At a destination on the host it
// works on directory descriptors, so that a deep tree is no limit and no symlink is followed. It stops at nothing but a destination that takes no more:
// what fails is reported, and the rest copied.
//
// # The files, in reading order
//
//	export.go exportfile.go exportpart.go dest.go links.go    out: the walk, one file, a large one, the destination, names of one file
//	import.go importtree.go importfile.go partial.go          in: the same, and what an interrupted import left
//	copy.go fill.go segments.go                               the bytes
//	landing.go settle.go checkpoint.go                        what becomes durable together; resume points
//	plan.go count.go remove.go summary.go                     before and after
package bulk

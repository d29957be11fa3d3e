package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// heapGrowth is how much garbage, in percent of what is alive, is collected. Most of it are buffers, in which the collector looks for nothing: it is cheap,
	// and what lies around counts for the daemon's memory.
	heapGrowth = 50

	// heapFloor is how large the heap may get, in bytes, before anything is collected at all. What is alive is often a few MB: by heapGrowth alone a hundred small
	// files that are opened or made were a collection each, which takes processor time and, with it, go-fuse's free buffers of maxRequest.
	heapFloor = 64 << 20

	// smallestHeap is what the runtime takes for a heap that is smaller, at a growth of 100 %; at others in proportion.
	smallestHeap = 4 << 20

	// memoryLimit is what the Go runtime keeps to, garbage and free pages included, in bytes; the program's own pages are some 12 MiB more. Without it the
	// heap got to twice what was alive: half as much garbage, and the free pages of an earlier peak. What may be alive has a bound of its own each:
	//
	//	40 MiB  buffers of requests, 24 as a rule (fs.MaxBuffers)
	//	40      images that wait for their places (container.MostWaiting)
	//	16      verified metadata (container.DefaultMetaBudget)
	//	48      cached frames (cache.DefaultDirty and DefaultClean)
	//
	// Of these 144 some 100 MiB were alive at most where most is, in random writes of 4 KiB.
	memoryLimit = 160 << 20

	// ordinaryLive is how much may be alive before the limit follows: what is beyond are inodes as a rule, about 1 KiB for each that the kernel knows.
	ordinaryLive = 120 << 20

	// limitStep is in what steps the limit follows what is alive: each change stops all goroutines for a moment.
	limitStep = 16 << 20
)

// pace is what the garbage collector is set to, for as many bytes as are alive; 0 where that is the user's, by GOGC or GOMEMLIMIT.
type pace struct {
	growth int
	limit  int64
}

// tuneMemory sets the garbage collector for a daemon, unless the user's GOGC or GOMEMLIMIT says otherwise.
func tuneMemory() {
	keepPace(pace{}, 0)
}

// paceFor is what tuneMemory sets.
func paceFor(live uint64) (p pace) {
	if os.Getenv("GOGC") == "" {
		p.growth = growthFor(live)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		p.limit = limitFor(live)
	}
	return p
}

// growthFor is the percentage that lets a heap with so many live bytes grow to heapFloor, and a large one by heapGrowth.
func growthFor(live uint64) int {
	growth := heapFloor * 100 / smallestHeap
	if live > 0 {
		growth = min(growth, int(heapFloor*100/live)-100)
	}
	return max(growth, heapGrowth)
}

// limitFor is memoryLimit, and more where so much is alive that the collector would run all the time: half of that may be garbage, too.
func limitFor(live uint64) int64 {
	beyond := max(0, int64(live)-ordinaryLive)
	beyond += beyond * heapGrowth / 100
	return memoryLimit + (beyond+limitStep-1)/limitStep*limitStep
}

// keepPace sets what is right for so many live bytes, where now is set, and does so anew whenever a collection has found out what is alive, for as long as the
// process runs.
func keepPace(now pace, live uint64) {
	next := paceFor(live)
	if next.growth != now.growth {
		debug.SetGCPercent(next.growth)
	}
	if next.limit != now.limit {
		debug.SetMemoryLimit(next.limit)
	}
	if next == (pace{}) {
		return
	}
	type sign struct{ _ [64]byte } // which nobody refers to: the next collection finds it
	runtime.AddCleanup(new(sign), func(now pace) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		keepPace(now, live[0].Value.Uint64())
	}, next)
}

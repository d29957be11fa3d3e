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
)

// tuneMemory sets the garbage collector for a daemon, unless the user's GOGC or GOMEMLIMIT says otherwise.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(growthFor(0))
		paceHeap(growthFor(0))
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		limit := int64(machineMemory() / 4)
		debug.SetMemoryLimit(min(max(limit, minHeapLimit), maxHeapLimit))
	}
}

// growthFor is the percentage that lets a heap with so many live bytes grow to heapFloor, and a large one by heapGrowth.
func growthFor(live uint64) int {
	growth := heapFloor * 100 / smallestHeap
	if live > 0 {
		growth = min(growth, int(heapFloor*100/live)-100)
	}
	return max(growth, heapGrowth)
}

// paceHeap sets the percentage anew when a collection has found out what is alive, for as long as the process runs. growth is the present one.
func paceHeap(growth int) {
	type sign struct{ _ [64]byte } // which nobody refers to: the next collection finds it
	runtime.AddCleanup(new(sign), func(growth int) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if next := growthFor(live[0].Value.Uint64()); next != growth {
			debug.SetGCPercent(next)
			growth = next
		}
		paceHeap(growth)
	}, growth)
}

package main

import (
	"testing"
)

// A small heap grows to heapFloor, a large one by heapGrowth, and none much beyond both.
func TestHeapGrowth(t *testing.T) {
	for live := uint64(0); live < 256<<20; live += 1 << 18 {
		growth := uint64(growthFor(live))
		goal := max(live+live*growth/100, smallestHeap*growth/100)
		want := max(heapFloor, live+live*heapGrowth/100)
		if goal > want || goal < want-want/50 {
			t.Errorf("%d bytes alive: collected at %d, want %d", live, goal, want)
		}
	}
}

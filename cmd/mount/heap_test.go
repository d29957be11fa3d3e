package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/fs"
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

// The limit leaves room for what may be alive, and does not follow it before that is more than the ordinary; then it does, so that there is always room for garbage.
func TestMemoryLimit(t *testing.T) {
	const most, own = 192 << 20, 16 << 20 // of the daemon; of it the program's pages
	if limit := limitFor(ordinaryLive); limit != memoryLimit || limit+own > most {
		t.Errorf("the limit is %d bytes, the daemon may have %d", limit, most)
	}
	if bounds := fs.MaxBuffers + container.MostWaiting + container.DefaultMetaBudget + cache.DefaultDirty + cache.DefaultClean; bounds+own > memoryLimit {
		t.Errorf("%d bytes may be alive at the limit of %d", bounds, memoryLimit)
	}
	for live, last := int64(0), int64(0); live < 2<<30; live += 1 << 20 {
		limit := limitFor(uint64(live))
		if limit < last || limit < live+live/4 || live > ordinaryLive && limit > live+live/2+memoryLimit-ordinaryLive {
			t.Errorf("%d bytes alive: the limit is %d", live, limit)
		}
		last = limit
	}
}

// The collector is set when it is tuned, and again after a collection that found much alive, or little again; but not where the user has set it.
func TestKeepPace(t *testing.T) {
	growth, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() { debug.SetGCPercent(growth); debug.SetMemoryLimit(limit) })
	t.Setenv("GOGC", "70")
	t.Setenv("GOMEMLIMIT", "1GiB")
	tuneMemory()
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("the limit is %d, the user's was taken", got)
	}
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	reaches := func(want func(int64) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !want(debug.SetMemoryLimit(-1)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the limit stays at %d", debug.SetMemoryLimit(-1))
			}
			runtime.GC()
		}
	}
	tuneMemory()
	if got := debug.SetMemoryLimit(-1); got != memoryLimit {
		t.Errorf("the limit is %d", got)
	}
	much := make([]byte, 2*ordinaryLive)
	reaches(func(n int64) bool { return n > 2*ordinaryLive })
	runtime.KeepAlive(much)
	reaches(func(n int64) bool { return n == memoryLimit })
}

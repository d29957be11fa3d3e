package cache

import (
	"testing"
	"time"
)

// Benchmarks run over a real container on the host's file system, with the geometry that vaults get by default.
const benchFile = 4 << 20 // fits Window: what is dirty stays so until something else is measured

var benchSizes = []struct {
	name string
	n    int64
}{{"4KiB", 4 << 10}, {"1MiB", 1 << 20}}

func benchOpen(b *testing.B, window int64) *File {
	b.Helper()
	c := newCache(b, Config{Window: window, MaxAge: time.Hour})
	f := c.Open(newReal(b, 64<<10, 4<<10).create("f"), Hooks{})
	b.Cleanup(func() {
		if err := f.Close(); err != nil {
			b.Error(err)
		}
	})
	mustWrite(b, f, make([]byte, benchFile), 0)
	return f
}

// BenchmarkRead reads what is in the cache (dirty), what a request covers in part and stays (clean; 1 MiB are mostly whole frames, and read past the
// cache), and what is not there.
func BenchmarkRead(b *testing.B) {
	for _, state := range []string{"dirty", "partial", "direct"} {
		for _, size := range benchSizes {
			b.Run(state+"/"+size.name, func(b *testing.B) {
				f := benchOpen(b, 64<<20)
				if state != "dirty" {
					mustFlush(b, f)
				}
				shift := int64(0)
				if state == "partial" {
					shift = 512
				}
				dst := make([]byte, size.n)
				b.SetBytes(size.n)
				b.ReportAllocs()
				off := int64(0)
				for b.Loop() {
					if n, err := f.ReadAt(dst[:size.n-shift], off+shift); err != nil || n == 0 {
						b.Fatal(n, err)
					}
					off = (off + size.n) % benchFile
				}
			})
		}
	}
}

// BenchmarkWrite overwrites a file round and round: frames that stay dirty, and with the hand-over to the host that the window forces.
func BenchmarkWrite(b *testing.B) {
	for _, v := range []struct {
		state  string
		window int64
	}{{"dirty", 64 << 20}, {"pressed", 2 << 20}} {
		for _, size := range benchSizes {
			b.Run(v.state+"/"+size.name, func(b *testing.B) {
				f := benchOpen(b, v.window)
				p := make([]byte, size.n)
				b.SetBytes(size.n)
				b.ReportAllocs()
				off := int64(0)
				for b.Loop() {
					if err := f.WriteAt(p, off); err != nil {
						b.Fatal(err)
					}
					off = (off + size.n) % benchFile
				}
			})
		}
	}
}

package names

import (
	"fmt"
	"strings"
	"testing"
)

func BenchmarkSeal(b *testing.B) {
	for _, n := range []int{12, 60, 146, 255} {
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) {
			c, l := testCodec(), link(strings.Repeat("n", n))
			b.ReportAllocs()
			for b.Loop() {
				c.Seal(parentID, l)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{12, 60, 146, 255} {
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) {
			c := testCodec()
			host, _ := c.Seal(parentID, link(strings.Repeat("n", n)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Open(parentID, host); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

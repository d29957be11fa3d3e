package stream

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/container/vault"
)

const benchSize = 64 << 20

// BenchmarkSeal seals 64 MiB a time; x-age is the rate over that of age on the same bytes.
func BenchmarkSeal(b *testing.B) {
	plain := random(1, benchSize)
	ageRate := rate(b, func() { sealAge(b, plain) })
	for _, s := range []suite.ID{suite.XAES256GCM, suite.XChaCha20Poly1305} {
		for _, segment := range []int{64 << 10, 1 << 20, 4 << 20} {
			b.Run(fmt.Sprintf("%v/%d", s, segment), func(b *testing.B) {
				b.SetBytes(benchSize)
				for b.Loop() {
					w, err := NewWriter(io.Discard, Options{Suite: s, SegmentSize: segment}, ToKeyFile(keyFile))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := w.ReadFrom(bytes.NewReader(plain)); err != nil {
						b.Fatal(err)
					}
					if err := w.Close(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(benchSize*float64(b.N)/b.Elapsed().Seconds()/ageRate, "x-age")
			})
		}
	}
}

// rate is bytes per second of the best of three.
func rate(b *testing.B, f func()) float64 {
	best := time.Duration(1 << 62)
	for range 3 {
		start := time.Now()
		f()
		best = min(best, time.Since(start))
	}
	return benchSize / best.Seconds()
}

func sealAge(b *testing.B, plain []byte) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		b.Fatal(err)
	}
	w, err := age.Encrypt(io.Discard, id.Recipient())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, segment := range []int{64 << 10, 1 << 20} {
		sealed := seal(b, random(1, benchSize), Options{SegmentSize: segment})
		b.Run(fmt.Sprint(segment), func(b *testing.B) {
			b.SetBytes(benchSize)
			for b.Loop() {
				r, err := NewReader(bytes.NewReader(sealed), vault.KeyFile(keyFile), ReadOptions{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := r.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSegment is one segment on one core; x-gcm is the rate over that of plain AES-256-GCM with frames of the same size.
func BenchmarkSegment(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	for _, g := range [][2]int{{64 << 10, 4 << 10}, {1 << 20, 32 << 10}} {
		c := crypto(b, g[0], g[1], container.DefaultDigest)
		plain, dst := random(1, g[0]), make([]byte, c.WireLen(g[0]))
		nonce := make([]byte, 12)
		start, n := time.Now(), 0
		for ; time.Since(start) < 200*time.Millisecond; n++ {
			for at := 0; at < g[0]; at += g[1] {
				gcm.Seal(dst[:0], nonce, plain[at:at+g[1]], nil)
			}
		}
		plainRate := float64(n*g[0]) / time.Since(start).Seconds()
		b.Run(c.Geometry().String(), func(b *testing.B) {
			b.SetBytes(int64(g[0]))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.ProcessEncryptSegment(container.EncryptSegmentInput{Plaintext: plain, Dst: dst}, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(g[0])*float64(b.N)/b.Elapsed().Seconds()/plainRate, "x-gcm")
		})
	}
}

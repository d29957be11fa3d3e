package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/stream"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/container/vault"
)

// Seal to a passphrase and open again.
func Example() {
	passphrase := []byte("correct horse battery staple")
	cheap := vault.KDF{Time: 1, MemoryKiB: 1 << 10, Threads: 1} // for the example: vault.KDF{} is the one to use

	var sealed bytes.Buffer
	w, err := stream.NewWriter(&sealed, stream.Options{}, stream.ToPassphrase(passphrase, cheap, nil))
	if err != nil {
		panic(err)
	}
	if _, err := io.Copy(w, strings.NewReader("the plain text\n")); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil { // a stream without its end is refused
		panic(err)
	}

	r, err := stream.NewReader(&sealed, vault.Passphrase(passphrase), stream.ReadOptions{})
	if err != nil {
		panic(err)
	}
	defer r.Close()
	if _, err := io.Copy(os.Stdout, r); err != nil {
		panic(err)
	}
	// Output: the plain text
}

// Read a few bytes of a large stream: only the frames that they lie in are read and opened.
func ExampleReaderAt() {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	var sealed bytes.Buffer
	w, err := stream.NewWriter(&sealed, stream.Options{}, stream.ToAge(id.Recipient()))
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(w, "%s needle %s", strings.Repeat("hay ", 1<<20), strings.Repeat(" hay", 1<<20))
	if err := w.Close(); err != nil {
		panic(err)
	}

	// Any io.ReaderAt of a known size does: a file, ranges of an object.
	r, err := stream.NewReaderAt(bytes.NewReader(sealed.Bytes()), int64(sealed.Len()), vault.Identities(id), stream.ReadOptions{})
	if err != nil {
		panic(err)
	}
	p := make([]byte, 6)
	if _, err := r.ReadAt(p, 4<<20+1); err != nil {
		panic(err)
	}
	fmt.Printf("%s at %d of %d\n", p, 4<<20+1, r.Size())
	// Output: needle at 4194305 of 8388616
}

// A stream that was cut is refused, with the byte where it ends.
func ExampleError() {
	key := bytes.Repeat([]byte{7}, 32) // a key file is random
	var sealed bytes.Buffer
	w, err := stream.NewWriter(&sealed, stream.Options{SegmentSize: 16 << 10}, stream.ToKeyFile(key))
	if err != nil {
		panic(err)
	}
	if _, err := w.Write(make([]byte, 40_000)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	sealed.Truncate(30_000)

	r, err := stream.NewReader(&sealed, vault.KeyFile(key), stream.ReadOptions{})
	if err != nil {
		panic(err)
	}
	n, err := io.Copy(io.Discard, r)
	var at *stream.Error
	if errors.As(err, &at) {
		fmt.Println(n, "good bytes; then, at byte", at.Offset, "of the stream:", errors.Is(err, container.ErrTruncated))
	}
	// Output: 16384 good bytes; then, at byte 30000 of the stream: true
}

// The segment workers by themselves: what goes in comes out in its order, sealed in parallel, and an interrupted run is taken up where what was stored ends.
func ExampleEncrypter() {
	params := keys.FileParams{Suite: suite.XAES256GCM, Digest: uint8(container.BLAKE3), SegmentSize: 64 << 10, FrameSize: 16 << 10}
	key, id := keys.NewMasterKey(), keys.RandomVaultID()
	k := keys.Stream(key, id, params)
	crypto, err := container.NewSegmentCrypto(id, keys.ObjectID{}, params, &k, 4)
	if err != nil {
		panic(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 16<<10) // four segments
	seal := func(resume *container.ResumePoint) (segments []container.EncryptedSegment, totals stream.Totals) {
		in, out := make(chan container.EncryptSegmentInput), make(chan stream.Result[container.EncryptedSegment])
		go func() {
			defer close(in)
			for i := range uint64(4) {
				in <- container.EncryptSegmentInput{SegmentIndex: i, Plaintext: data[i*64<<10 : (i+1)*64<<10], Final: i == 3}
			}
		}()
		done := make(chan struct{})
		go func() {
			defer close(done)
			if totals, err = (&stream.Encrypter{Crypto: crypto}).Run(context.Background(), in, out, resume); err != nil {
				panic(err)
			}
		}()
		for r := range out {
			if r.Err != nil {
				panic(r.Err)
			}
			segments = append(segments, r.Value)
		}
		<-done
		return segments, totals
	}
	first, totals := seal(nil)
	fmt.Println(totals.Segments, "segments,", totals.Frames, "frames")

	// The power went with 40,000 bytes of segment 2 on the disk: two whole frames.
	point := first[2].Resume(40_000)
	again, totals := seal(&point)
	fmt.Println("from segment", point.Segment, "frame", point.NextFrame, "on:", totals.Frames, "frames sealed,", totals.Reused, "not again")
	whole := append(first[2].Wire[:crypto.WireOffset(2)], again[2].Wire...)
	opened, err := crypto.ProcessDecryptSegment(container.DecryptSegmentInput{SegmentIndex: 2, Wire: whole}, nil)
	fmt.Println(bytes.Equal(opened.Plain(), data[2*64<<10:3*64<<10]), err)
	// Output:
	// 4 segments, 16 frames
	// from segment 2 frame 2 on: 6 frames sealed, 10 not again
	// true <nil>
}

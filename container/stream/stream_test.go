package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/container/vault"
)

var (
	keyFile = bytes.Repeat([]byte{0x51}, 64)
	cheap   = vault.KDF{Time: 1, MemoryKiB: 64, Threads: 1}
	small   = Options{SegmentSize: 16 << 10}
)

// seal returns p as a stream for keyFile.
func seal(t testing.TB, p []byte, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, o, ToKeyFile(keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// open reads a whole stream.
func open(b []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(b), vault.KeyFile(keyFile), ReadOptions{Workers: 2})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestRoundTrip(t *testing.T) {
	leaks(t)
	for _, segment := range container.AllowedSegmentSizes {
		for _, s := range []suite.ID{suite.XAES256GCM, suite.XChaCha20Poly1305} {
			frame := container.OptimalFrameSize(segment)
			for _, n := range []int{0, 1, frame - 1, frame, frame + 1, segment - 1, segment, segment + 1, 2 * segment, 3*segment + frame + 7} {
				plain := random(uint64(n), n)
				b := seal(t, plain, Options{Suite: s, Digest: container.BLAKE3, SegmentSize: segment})
				got, err := open(b)
				if err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("%d segments of %d, %v: %d bytes, %v", n, segment, s, len(got), err)
				}
			}
		}
	}
}

// TestChunks: how a stream is written and read makes no difference.
func TestChunks(t *testing.T) {
	leaks(t)
	plain := random(5, 5*16<<10)
	for name, write := range map[string]func(w *Writer) error{
		"byte by byte": func(w *Writer) error {
			for i := range plain {
				if n, err := w.Write(plain[i : i+1]); n != 1 || err != nil {
					return err
				}
			}
			return nil
		},
		"ReadFrom halves": func(w *Writer) error { _, err := w.ReadFrom(iotest.HalfReader(bytes.NewReader(plain))); return err },
		"ReadFrom with data and EOF": func(w *Writer) error {
			_, err := w.ReadFrom(iotest.DataErrReader(bytes.NewReader(plain)))
			return err
		},
		"both": func(w *Writer) error {
			if _, err := w.Write(plain[:40000]); err != nil {
				return err
			}
			n, err := io.Copy(w, bytes.NewReader(plain[40000:]))
			if n != int64(len(plain)-40000) {
				t.Errorf("copied %d", n)
			}
			return err
		},
	} {
		var b bytes.Buffer
		w, err := NewWriter(&b, small, ToKeyFile(keyFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := write(w); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := w.Close(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := w.Totals(); got.Segments != 5 || got.BytesPlain != int64(len(plain)) {
			t.Errorf("%s: %+v", name, got)
		}
		r, err := NewReader(iotest.OneByteReader(bytes.NewReader(b.Bytes())), vault.KeyFile(keyFile), ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, plain); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := r.Totals(); got.Segments != 5 || got.Frames != 20 {
			t.Errorf("%s: read %+v", name, got)
		}
		if _, err := w.Write(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Write after Close: %v", err)
		}
		if err := w.Close(); !errors.Is(err, ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
	}
}

// TestRecipients: each of several opens, others do not.
func TestRecipients(t *testing.T) {
	leaks(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := NewWriter(&b, small, ToPassphrase([]byte("horse"), cheap, nil), ToKeyFile(keyFile), ToAge(other.Recipient()), ToAge(id.Recipient()))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "plain")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, addressee := range []string{id.Recipient().String(), "age1"} {
		if bytes.Contains(b.Bytes(), []byte(addressee)) {
			t.Errorf("the stream says %s", addressee)
		}
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secret vault.Secret
		want   error
	}{
		{vault.Passphrase([]byte("horse")), nil},
		{vault.KeyFile(keyFile), nil},
		{vault.Identities(id), nil},
		{vault.Identities(stranger, other), nil},
		{vault.Passphrase([]byte("cow")), vault.ErrPassphrase},
		{vault.Passphrase(nil), vault.ErrEmptyPassphrase},
		{vault.KeyFile(testKey), vault.ErrKeyFile},
		{vault.KeyFile(testKey[:31]), vault.ErrKeyFileSize},
		{vault.Identities(stranger), vault.ErrIdentity},
	} {
		r, err := NewReader(bytes.NewReader(b.Bytes()), c.secret, ReadOptions{})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%T: %v, want %v", c.secret, err, c.want)
		}
		if err != nil {
			continue
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "plain" {
			t.Errorf("%T: %q, %v", c.secret, got, err)
		}
	}
	asked := 0
	r, err := NewReader(bytes.NewReader(b.Bytes()), nil, ReadOptions{Ask: func(kinds []string) (vault.Secret, error) {
		asked++
		if want := []string{vault.KindPassphrase, vault.KindKeyFile, vault.KindAge}; !slices.Equal(kinds, want) {
			t.Errorf("asked for %v", kinds)
		}
		return vault.KeyFile(keyFile), nil
	}})
	if err != nil || asked != 1 {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	r.Close()
	if _, err := NewReader(bytes.NewReader(b.Bytes()), nil, ReadOptions{}); err == nil {
		t.Error("opened without a secret")
	}
	for _, c := range []struct {
		to   []Recipient
		want error
	}{
		{nil, ErrRecipients},
		{make([]Recipient, maxSlots+1), ErrRecipients},
		{[]Recipient{ToPassphrase([]byte("a"), cheap, nil), ToPassphrase([]byte("b"), cheap, nil)}, ErrRecipients},
		{[]Recipient{ToPassphrase(nil, cheap, nil)}, vault.ErrEmptyPassphrase},
		{[]Recipient{ToPassphrase([]byte("a"), vault.KDF{Time: 17, MemoryKiB: 64, Threads: 1}, nil)}, vault.ErrKDF},
		{[]Recipient{ToKeyFile(nil)}, vault.ErrKeyFileSize},
		{[]Recipient{ToAge(nil)}, vault.ErrRecipient},
	} {
		if _, err := NewWriter(io.Discard, small, c.to...); !errors.Is(err, c.want) {
			t.Errorf("%d recipients: %v, want %v", len(c.to), err, c.want)
		}
	}
	if _, err := NewWriter(io.Discard, Options{SegmentSize: 12345}, ToKeyFile(keyFile)); !errors.Is(err, container.ErrGeometry) {
		t.Errorf("odd segment size: %v", err)
	}
}

// layout is where things begin in a stream of full segments of 16 KiB and a last one of tail bytes.
type layout struct{ header, segment, frame int }

var lay = layout{header: headSize + slotSize + macSize, segment: 4*(4096+72) + 112, frame: 4096 + 72}

// cuts are the places of b where something ends, and their neighbours.
func (l layout) cuts(b []byte) []int {
	set := map[int]bool{}
	add := func(n int) {
		for d := -1; d <= 1; d++ {
			if n+d >= 0 && n+d < len(b) {
				set[n+d] = true
			}
		}
	}
	add(0)
	add(headSize)
	for s := l.header; s < len(b); s += l.segment {
		add(s)
		for f := range 5 {
			add(s + f*l.frame)
			add(s + f*l.frame + 32)
			add(s + f*l.frame + 56)
		}
	}
	add(len(b))
	var cuts []int
	for n := range set {
		cuts = append(cuts, n)
	}
	return cuts
}

// TestTruncated cuts a stream at every boundary: each cut is refused with the byte where the input ends, and what is returned before is the beginning.
func TestTruncated(t *testing.T) {
	leaks(t)
	for _, n := range []int{0, 100, 2*16<<10 + 5000, 3 * 16 << 10} {
		plain := random(uint64(n), n)
		b := seal(t, plain, small)
		for _, cut := range lay.cuts(b) {
			got, err := open(b[:cut])
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, container.ErrTruncated) || e.Offset != int64(cut) {
				t.Errorf("%d plain bytes cut at %d of %d: %v", n, cut, len(b), err)
			}
			if !bytes.HasPrefix(plain, got) || len(got)%(16<<10) != 0 {
				t.Errorf("cut at %d: %d bytes that are not the beginning", cut, len(got))
			}
			if _, err := NewReaderAt(bytes.NewReader(b), int64(cut), vault.KeyFile(keyFile), ReadOptions{}); !errors.As(err, &e) {
				t.Errorf("ReaderAt of %d of %d bytes: %v", cut, len(b), err)
			}
			for _, tail := range [][]byte{{0}, b, make([]byte, 1<<17)} {
				if _, err := open(append(bytes.Clone(b), tail...)); !errors.As(err, &e) || !errors.Is(err, container.ErrCorrupt) || e.Offset != int64(len(b)) {
					t.Errorf("%d plain bytes, trailing %d: %v, want byte %d", n, len(tail), err, len(b))
				}
			}
		}
	}
}

// TestRearranged takes segments and frames out, puts them in twice, elsewhere, or from another stream.
func TestRearranged(t *testing.T) {
	leaks(t)
	plain := random(9, 3*16<<10+5000)
	b, other := seal(t, plain, small), seal(t, plain, small)
	head := b[:lay.header]
	seg := func(b []byte, i int) []byte {
		return b[lay.header+i*lay.segment : min(len(b), lay.header+(i+1)*lay.segment)]
	}
	frame := func(b []byte, i, k int) []byte { return seg(b, i)[k*lay.frame : min(len(seg(b, i)), (k+1)*lay.frame)] }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name string
		b    []byte
		at   int // the byte that is named
		good int // segments returned before
	}{
		{"segments swapped", join(head, seg(b, 1), seg(b, 0), seg(b, 2), seg(b, 3)), lay.header, 0},
		{"later segments swapped", join(head, seg(b, 0), seg(b, 2), seg(b, 1), seg(b, 3)), lay.header + lay.segment, 1},
		{"segment left out", join(head, seg(b, 0), seg(b, 2), seg(b, 3)), lay.header + lay.segment, 1},
		{"segment twice", join(head, seg(b, 0), seg(b, 0), seg(b, 1), seg(b, 2), seg(b, 3)), lay.header + lay.segment, 1},
		{"last segment early", join(head, seg(b, 0), seg(b, 3)), lay.header + lay.segment, 1},
		{"last segment twice", join(b, seg(b, 3)), len(b), 3},
		{"segment of another stream", join(head, seg(b, 0), seg(other, 1), seg(b, 2), seg(b, 3)), lay.header + lay.segment, 1},
		{"end of another stream", join(head, seg(b, 0), seg(b, 1), seg(b, 2), seg(other, 3)), lay.header + 3*lay.segment, 3},
		{"header of another stream", join(other[:lay.header], seg(b, 0), seg(b, 1), seg(b, 2), seg(b, 3)), lay.header, 0},
		{"frames swapped", join(head, frame(b, 0, 1), frame(b, 0, 0), seg(b, 0)[2*lay.frame:], seg(b, 1), seg(b, 2), seg(b, 3)), lay.header, 0},
		{"frame of another segment", join(head, seg(b, 0), frame(b, 0, 0), seg(b, 1)[lay.frame:], seg(b, 2), seg(b, 3)), lay.header + lay.segment, 1},
		{"frame twice", join(head, frame(b, 0, 0), frame(b, 0, 0), seg(b, 0)[lay.frame:], seg(b, 1), seg(b, 2), seg(b, 3)), lay.header + lay.frame, 0},
		{"frame left out", join(head, seg(b, 0)[lay.frame:], seg(b, 1), seg(b, 2), seg(b, 3)), lay.header, 0},
		{"last frame left out", join(head, seg(b, 0), seg(b, 1), seg(b, 2), frame(b, 3, 0), seg(b, 3)[len(seg(b, 3))-112:]), lay.header + 3*lay.segment + lay.frame, 3},
		{"made final", join(head, seg(b, 0), flip(seg(b, 1), 6)), lay.header + lay.segment, 1},
		{"length changed", join(head, seg(b, 0), flip(seg(b, 1), 20)), lay.header + lay.segment, 1},
	} {
		got, err := open(c.b)
		var e *Error
		if !errors.As(err, &e) || e.Offset != int64(c.at) {
			t.Errorf("%s: %v, want byte %d", c.name, err, c.at)
		}
		if !errors.Is(err, container.ErrAuth) && !errors.Is(err, container.ErrCorrupt) && !errors.Is(err, container.ErrDigest) {
			t.Errorf("%s: %v has no class", c.name, err)
		}
		if want := plain[:min(len(plain), c.good*16<<10)]; c.name != "last segment twice" && !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes returned, want %d", c.name, len(got), len(want))
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// TestFlipped flips a bit of every byte of a small stream, and of every place of a larger one.
func TestFlipped(t *testing.T) {
	leaks(t)
	b := seal(t, []byte("some plaintext"), small)
	for i := range b {
		got, err := open(flip(b, i))
		if err == nil || len(got) != 0 {
			t.Fatalf("byte %d flipped: %q, %v", i, got, err)
		}
		var e *Error
		if !errors.As(err, &e) && !errors.Is(err, vault.ErrKeyFile) && !errors.Is(err, vault.ErrTampered) {
			t.Errorf("byte %d flipped: untyped %v", i, err)
		}
		if i > lay.header && (e == nil || e.Offset < int64(lay.header) || e.Offset > int64(i) && !errors.Is(err, container.ErrTruncated)) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	b = seal(t, random(4, 2*16<<10), small)
	for _, i := range lay.cuts(b) {
		if i < lay.header {
			continue
		}
		var e *Error
		if _, err := open(flip(b, i)); !errors.As(err, &e) || e.Offset > int64(i) || e.Offset < int64(i-lay.frame) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
}

// TestHeaderMAC: with a good checksum, it is the MAC that finds what was changed.
func TestHeaderMAC(t *testing.T) {
	b := seal(t, nil, small)
	for i := 14; i < lay.header; i++ {
		bad := flip(b, i)
		le32(bad[8:], headerCRC(bad[:lay.header]))
		if _, err := open(bad); err == nil {
			t.Errorf("byte %d changed under a good checksum", i)
		}
	}
}

func le32(b []byte, v uint32) { b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24) }

func TestReaderAt(t *testing.T) {
	leaks(t)
	for _, n := range []int{0, 1, 4096, 16 << 10, 3*16<<10 + 5000} {
		plain := random(uint64(n), n)
		b := seal(t, plain, small)
		counted := &countingReaderAt{r: bytes.NewReader(b)}
		r, err := NewReaderAt(counted, int64(len(b)), vault.KeyFile(keyFile), ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Size() != int64(n) {
			t.Fatalf("size %d, want %d", r.Size(), n)
		}
		if err := iotest.TestReader(io.NewSectionReader(r, 0, r.Size()), plain); err != nil {
			t.Error(err)
		}
		for _, off := range []int{0, 1, 4095, 4096, 5000, 16383, 16384, 40000} {
			for _, want := range []int{0, 1, 100, 4096, 8192, 20000} {
				p := make([]byte, want)
				counted.n = 0
				k, err := r.ReadAt(p, int64(off))
				have := plain[min(off, n):min(off+want, n)]
				if !bytes.Equal(p[:k], have) || (k < want) != errors.Is(err, io.EOF) || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("%d bytes at %d of %d: %d, %v", want, off, n, k, err)
				}
				if most := (want/4096 + 2) * lay.frame; counted.n > most {
					t.Errorf("%d bytes at %d: %d read from the source", want, off, counted.n)
				}
			}
		}
		if n < 3*16<<10 {
			continue
		}
		bad, err := NewReaderAt(bytes.NewReader(flip(b, lay.header+lay.segment+lay.frame+100)), int64(len(b)), vault.KeyFile(keyFile), ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, n)
		var e *Error
		if k, err := bad.ReadAt(p, 0); k != 5*4096 || !errors.As(err, &e) || !errors.Is(err, container.ErrAuth) || e.Offset != int64(lay.header+lay.segment+lay.frame) || !bytes.Equal(p[:k], plain[:k]) {
			t.Errorf("read over a bad frame: %d, %v", k, err)
		}
		if _, err := bad.ReadAt(p[:20000], 6*4096); err != nil {
			t.Errorf("read beside a bad frame: %v", err)
		}
	}
}

type countingReaderAt struct {
	r io.ReaderAt
	n int
}

func (c *countingReaderAt) ReadAt(p []byte, off int64) (int, error) {
	c.n += len(p)
	return c.r.ReadAt(p, off)
}

// TestBrokenEnds: errors of source and destination come through, and no goroutine stays.
func TestBrokenEnds(t *testing.T) {
	leaks(t)
	plain := random(1, 40*16<<10)
	b := seal(t, plain, small)
	broken := errors.New("broken")
	for _, n := range []int{lay.header, lay.header + 10*lay.segment, lay.header + 10*lay.segment + 99} {
		r, err := NewReader(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken)), vault.KeyFile(keyFile), ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); !errors.Is(err, broken) || !bytes.HasPrefix(plain, got) {
			t.Errorf("source breaks at %d: %d bytes, %v", n, len(got), err)
		}
	}
	for _, n := range []int{0, 1, lay.header + 5, lay.header + 7*lay.segment, lay.header + 39*lay.segment} {
		w, err := NewWriter(&limitedWriter{left: n, err: broken}, small, ToKeyFile(keyFile))
		if err == nil {
			_, err = w.Write(plain)
			if cerr := w.Close(); err == nil {
				err = cerr
			}
			if cerr := w.Close(); !errors.Is(cerr, broken) && !errors.Is(cerr, ErrClosed) {
				t.Errorf("second Close: %v", cerr)
			}
		}
		if !errors.Is(err, broken) {
			t.Errorf("destination breaks at %d: %v", n, err)
		}
	}
	w, err := NewWriter(io.Discard, small, ToKeyFile(keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.ReadFrom(io.MultiReader(bytes.NewReader(plain), iotest.ErrReader(broken))); n != int64(len(plain)) || !errors.Is(err, broken) {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	w.Abort()
	w.Abort()
	if _, err := w.Write(plain); !errors.Is(err, ErrClosed) {
		t.Errorf("Write after Abort: %v", err)
	}
	r, err := NewReader(bytes.NewReader(b), vault.KeyFile(keyFile), ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
}

type limitedWriter struct {
	left int
	err  error
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return l.left, l.err
	}
	l.left -= len(p)
	return len(p), nil
}

func TestNotStream(t *testing.T) {
	for _, b := range []string{"age-encryption.org/v1\n", "COFFERC1", strings.Repeat("x", 4096)} {
		if _, err := open([]byte(b)); !errors.Is(err, ErrNotStream) {
			t.Errorf("%.10q: %v", b, err)
		}
	}
	if err := (&Error{Offset: 7, Err: container.ErrAuth}).Error(); err != "stream: byte 7: authentication failed" {
		t.Error(err)
	}
}

// TestMemory: writing and reading a long stream together take a bounded heap, whatever the segment size.
func TestMemory(t *testing.T) {
	leaks(t)
	for _, segment := range []int{16 << 10, 4 << 20} {
		t.Run(fmt.Sprint(segment), func(t *testing.T) {
			pr, pw := io.Pipe()
			go func() {
				w, err := NewWriter(pw, Options{SegmentSize: segment, Digest: container.NoDigest, Workers: 4}, ToKeyFile(keyFile))
				if err == nil {
					_, err = io.Copy(w, io.LimitReader(zeros{}, 512<<20))
				}
				if err == nil {
					err = w.Close()
				}
				pw.CloseWithError(err)
			}()
			r, err := NewReader(pr, vault.KeyFile(keyFile), ReadOptions{Workers: 4})
			if err != nil {
				t.Fatal(err)
			}
			n, peak := int64(0), uint64(0)
			buf := make([]byte, 1<<20)
			for {
				k, err := r.Read(buf)
				n += int64(k)
				if n>>25 != (n-int64(k))>>25 {
					peak = max(peak, heap())
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if n != 512<<20 || peak > 256<<20 {
				t.Errorf("%d bytes with %d MiB of heap", n, peak>>20)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

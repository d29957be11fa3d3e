package main

import (
	"bytes"
	"context"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func randomBytes(seed byte, n int) []byte {
	p := make([]byte, n)
	mrand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// pipe runs the program with in as its standard input and returns its standard output.
func (b *box) pipe(in []byte, args ...string) (out []byte, r result) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r = b.finish(b.command(ctx, args...), string(in))
	return []byte(r.stdout), r
}

// mustPipe fails the test unless it succeeds, in silence.
func (b *box) mustPipe(in []byte, args ...string) []byte {
	b.t.Helper()
	out, r := b.pipe(in, args...)
	if r.code != 0 || r.stderr != "" {
		b.t.Fatalf("coffer %s: exit %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return out
}

func (b *box) keyFile(name string) string {
	b.t.Helper()
	return b.write(name, strings.Repeat(name[:1], 64))
}

func TestSealOpen(t *testing.T) {
	b := newBox(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key, pass, identity := b.keyFile("key"), b.write("pass", passphrase+"\n"), b.write("id", id.String()+"\n")
	seals := map[string][]string{
		"key file":           {"--keyfile", key},
		"passphrase":         {"--passfile", pass, "--kdf-memory", "8", "--kdf-time", "1"},
		"passphrase command": {"--extpass", "cat " + pass, "--kdf-memory", "8", "--kdf-time", "1"},
		"recipient":          {"--recipient", id.Recipient().String()},
		"all":                {"--keyfile", key, "--passfile", pass, "--recipient", id.Recipient().String(), "--kdf-memory", "8", "--kdf-time", "1", "--suite", "xchacha20-poly1305", "--segment-size", "64K", "--digest", "blake3"},
	}
	opens := map[string][]string{
		"key file": {"--keyfile", key}, "passphrase": {"--passfile", pass}, "passphrase command": {"--extpass", "cat " + pass}, "recipient": {"--identity", identity},
	}
	for _, n := range []int{0, 1, 3<<20 + 17} {
		plain := randomBytes(1, n)
		for name, flags := range seals {
			sealed := b.mustPipe(plain, append([]string{"seal"}, flags...)...)
			if n > 100 && bytes.Contains(sealed, plain[50:100]) {
				t.Fatalf("%s: plaintext in the stream", name)
			}
			for way, with := range opens {
				if name != way && name != "all" {
					continue
				}
				for _, more := range [][]string{nil, {"--all-or-nothing"}} {
					args := append(append([]string{"open"}, with...), more...)
					if got := b.mustPipe(sealed, args...); !bytes.Equal(got, plain) {
						t.Errorf("%s by %s: %d bytes, want %d", name, way, len(got), n)
					}
				}
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	b := newBox(t)
	key, other := b.keyFile("key"), b.keyFile("other")
	plain := randomBytes(2, 300<<10)
	sealed := b.mustPipe(plain, "seal", "--keyfile", key, "--segment-size", "64K")
	flipped := bytes.Clone(sealed)
	flipped[200<<10] ^= 1
	for _, c := range []struct {
		name string
		in   []byte
		code Code
		want string
		out  int // bytes that are written before
	}{
		{"cut", sealed[:200<<10], exitPartial, "byte 204800: ", 192 << 10},
		{"cut between segments", sealed[:280+2*(64<<10+17*72+40-32)], exitPartial, "stream: byte ", 128 << 10},
		{"flipped", flipped, exitPartial, "authentication failed", 192 << 10},
		{"continued", append(bytes.Clone(sealed), sealed...), exitPartial, fmt.Sprintf("byte %d: ", len(sealed)), 256 << 10},
		{"cut at once", sealed[:1000], exitDamage, "byte 1000: ", 0},
		{"header cut", sealed[:100], exitDamage, "byte 100: ", 0},
		{"no stream", []byte("hello"), exitDamage, "not a sealed stream", 0},
		{"empty", nil, exitDamage, "byte 0: ", 0},
		{"other key file", nil, exitPassphrase, "wrong key file", 0},
		{"newer", append(append(bytes.Clone(sealed[:12]), 2), sealed[13:]...), exitConfig, "unknown format version", 0},
	} {
		with := key
		if c.name == "other key file" {
			with, c.in = other, sealed
		}
		for _, all := range []bool{false, true} {
			args := []string{"open", "--keyfile", with}
			code, want := c.code, c.out
			if all {
				args = append(args, "--all-or-nothing")
				want = 0
				if code == exitPartial {
					code = exitDamage
				}
			}
			out, r := b.pipe(c.in, args...)
			if len(out) != want || !bytes.HasPrefix(plain, out) {
				t.Errorf("%s (all %v): %d bytes written, want %d", c.name, all, len(out), want)
			}
			r.stdout = ""
			b.checkFailure(r, code, c.want, args...)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), ".coffer-open-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSealUsage(t *testing.T) {
	b := newBox(t)
	key := b.keyFile("key")
	b.fails(exitUsage, "takes 0 arguments and got 1", "", "seal", "file")
	b.fails(exitReadSecret, "no terminal", "", "seal")
	b.fails(exitDamage, "not a sealed stream", "x", "open")
	sealed := b.mustPipe([]byte("x"), "seal", "--keyfile", key)
	b.fails(exitPassphrase, "does not open with a passphrase", string(sealed), "open")
	b.fails(exitPassphrase, "open it with --keyfile", string(sealed), "open", "--identity", b.path("nope"))
	sealed = b.mustPipe([]byte("x"), "seal", "--passfile", key, "--kdf-memory", "8", "--kdf-time", "1")
	b.fails(exitReadSecret, "no terminal", string(sealed), "open")
	b.fails(exitUsage, "unknown suite", "", "seal", "--suite", "rot13", "--keyfile", key)
	b.fails(exitUsage, "unknown digest", "", "seal", "--digest", "md5", "--keyfile", key)
	b.fails(exitUsage, "no such geometry", "", "seal", "--segment-size", "3M", "--keyfile", key)
	b.fails(exitUsage, "malformed recipient", "", "seal", "--recipient", "age1nonsense")
	b.fails(exitReadSecret, "cannot read the key file", "", "seal", "--keyfile", b.path("nope"))
	b.fails(exitReadSecret, "key file", "", "seal", "--keyfile", b.write("short", "short"))
	b.fails(exitEmpty, "empty", "", "seal", "--passfile", b.write("empty", "\n"))
	b.fails(exitUsage, "different ways", "", "open", "--keyfile", key, "--passfile", key)
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full: ", err)
	}
	defer f.Close()
	v, _ := b.filledVault()
	plain := randomBytes(3, 5<<20)
	sealed = b.mustPipe(plain, "seal", "--keyfile", key)
	for _, c := range []struct {
		in   []byte
		args []string
	}{
		{plain, []string{"seal", "--keyfile", key}}, {sealed, []string{"open", "--keyfile", key}}, {sealed, []string{"open", "--keyfile", key, "--all-or-nothing"}},
		{[]byte(passphrase + "\n"), []string{"cat", v, "big"}},
	} {
		cmd := b.command(context.Background(), c.args...)
		var errOut bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.in), f, &errOut
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != int(exitHostFull) || !strings.Contains(errOut.String(), "hint: make room where the output goes") {
			t.Errorf("%s, full destination: exit %d\n%s", c.args, code, errOut.String())
		}
	}
}

// At a terminal the passphrase is asked for, though standard input is the stream.
func TestSealAtTerminal(t *testing.T) {
	b := newBox(t)
	tm := b.start(append([]string{"seal"}, cheap...)...)
	tm.expectSecret("Passphrase: ")
	tm.typeLine(passphrase)
	tm.expectSecret("Passphrase again: ")
	tm.typeLine(passphrase)
	for end := time.Now().Add(time.Minute); !tm.echo() && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
	}
	tm.typeLine("the plain text\n\x04")
	if code := tm.wait(); code != 0 {
		t.Fatalf("exit %d\n%s", code, tm.text())
	}
	got := b.mustPipe(tm.stdout.Bytes(), "open", "--passfile", b.write("pass", passphrase))
	if !strings.HasPrefix(string(got), "the plain text\n") {
		t.Errorf("opened %q", got)
	}
}

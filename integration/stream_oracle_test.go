package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/internal/vectors"
)

// TestStreamsBySecondReader has the reader in Python, which was written from FORMAT.md, open every vector of sealed streams: it returns the same bytes and
// refuses the same streams.
func TestStreamsBySecondReader(t *testing.T) {
	needPython(t)
	paths, err := filepath.Glob("../container/stream/testdata/vectors/stream_*")
	if err != nil || len(paths) < 30 {
		t.Fatalf("%d vectors, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			v, err := vectors.Read(path)
			if err != nil {
				t.Fatal(err)
			}
			flag, secret := "--keyfile", v.Hex("key_file")
			if v.Has("passphrase") {
				flag, secret = "--passphrase-file", v.Hex("passphrase")
			}
			file := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(file, secret, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(debianPython, "reader/coffer_stream.py", flag, file)
			var errs bytes.Buffer
			cmd.Stdin, cmd.Stderr = bytes.NewReader(v.Hex("stream")), &errs
			out, err := cmd.Output()
			var exit *exec.ExitError
			if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.HasPrefix(errs.Bytes(), []byte("refused: "))) {
				t.Fatalf("%v\n%s", err, errs.String())
			}
			if (err == nil) != (v.Get("expect") == "ok") {
				t.Errorf("%v, want %s\n%s", err, v.Get("expect"), errs.String())
			}
			want := make([]byte, v.Uint("plain_length"))
			for i := range want {
				want[i] = byte(7*i + i>>8)
			}
			if !bytes.Equal(out, want) {
				t.Errorf("%d bytes, want %d", len(out), len(want))
			}
		})
	}
}

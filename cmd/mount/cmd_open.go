package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/stream"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
)

func (a *app) openCmd() *cobra.Command {
	var f unlockFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "open",
		Short: "Open a sealed stream from standard input to standard output",
		Long: `Decrypt a stream of coffer seal from standard input to standard output:

  coffer open --identity key.txt < DIR.sealed | tar x

What is written is authentic, and in its place. A stream that was cut, changed, rearranged or continued is refused with the byte where that is so; what came
before it has been written by then, and exit code ` + fmt.Sprint(int(exitPartial)) + ` says that it is only a part. With --all-or-nothing nothing is written unless all of
it is good: the opened bytes wait in a file without a name, in the directory of the output where that is a file, else in TMPDIR.

The passphrase is asked for on the terminal.`,
		Args: exactArgs(),
		RunE: func(*cobra.Command, []string) error { return a.open(f, all) },
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all-or-nothing", false, "write nothing unless the whole stream is good")
	return cmd
}

func (a *app) open(f unlockFlags, all bool) error {
	kind, err := f.kind()
	if err != nil {
		return err
	}
	var bytes []byte
	defer func() { wipe(bytes) }()
	ask := func(kinds []string) (secret vault.Secret, err error) {
		if !slices.Contains(kinds, kind) {
			return nil, noSuchSlot(kind, kinds)
		}
		secret, bytes, err = a.secretOf(kind, f, func() ([]byte, error) { return a.streamPassphrase(f.secretFlags, false) })
		return secret, err
	}
	r, err := stream.NewReader(a.stdin, nil, stream.ReadOptions{Derive: deriver(), Ask: ask})
	if err != nil {
		return openFailed(err, 0)
	}
	if !all {
		out := &countingWriter{w: a.stdout}
		return a.interruptible("what was written is only a part", func() error {
			if _, err := r.WriteTo(out); err != nil {
				return writeOrOpenFailed(err, out)
			}
			return nil
		})
	}
	buffer, err := namelessFile(outputDir(a.stdout))
	if err != nil {
		return failf(exitOther, "set TMPDIR to a directory with room for all of it", "cannot make a file for the opened bytes: %w", err)
	}
	defer buffer.Close()
	return a.interruptible("the output may be incomplete", func() error {
		hold := &countingWriter{w: buffer}
		if _, err := r.WriteTo(hold); err != nil {
			if hold.err != nil {
				return failf(exitHostFull, "set TMPDIR to a directory with room for all of it", "the opened bytes have no room, nothing was written: %w", hold.err)
			}
			return openFailed(err, 0)
		}
		if _, err := buffer.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err := io.Copy(a.stdout, buffer)
		return outputFailed(err)
	})
}

// noSuchSlot says how a stream opens.
func noSuchSlot(kind string, kinds []string) error {
	with := map[string]string{vault.KindPassphrase: "a passphrase", vault.KindKeyFile: "--keyfile", vault.KindAge: "--identity"}
	var ways []string
	for _, k := range kinds {
		ways = append(ways, with[k])
	}
	return failf(exitPassphrase, "open it with "+strings.Join(ways, " or "), "the stream does not open with %s", with[kind])
}

func writeOrOpenFailed(err error, out *countingWriter) error {
	if out.err != nil {
		return outputFailed(out.err)
	}
	return openFailed(err, out.n)
}

// outputFailed is for what standard output answered, which has nothing to do with a vault's host; err may be nil.
func outputFailed(err error) error {
	if disk.IsFull(err) {
		return failf(exitHostFull, "make room where the output goes; what is there is only a part", "%w", err)
	}
	return err
}

// openFailed gives an error of a stream its code; written is how much is on standard output already.
func openFailed(err error, written int64) error {
	var at *stream.Error
	const another = "get another copy of the stream"
	switch {
	case errors.Is(err, vault.ErrPassphrase), errors.Is(err, vault.ErrKeyFile), errors.Is(err, vault.ErrIdentity):
		return failf(exitPassphrase, "try again, with the passphrase, --keyfile or --identity that the stream was sealed for", "%w", err)
	case errors.Is(err, vault.ErrTampered):
		return failf(exitDamage, another, "the wrapped key of the stream was changed; nothing was written")
	case errors.Is(err, stream.ErrNotStream):
		return failf(exitDamage, "it is made by: coffer seal", "%w", err)
	case errors.Is(err, container.ErrVersion), errors.Is(err, container.ErrFeature):
		return failf(exitConfig, "it was made by a newer coffer: update this one", "%w", err)
	case written > 0:
		return failf(exitPartial, another+"; --all-or-nothing writes none of a bad one", "%w; the %d bytes that were written are good, and not all", err, written)
	case errors.As(err, &at):
		return failf(exitDamage, another, "%w; nothing was written", err)
	}
	return err
}

// outputDir is the directory of w where it is a regular file, else that of temporary files.
func outputDir(w io.Writer) string {
	f, ok := w.(*os.File)
	if !ok {
		return os.TempDir()
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return os.TempDir()
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil || !filepath.IsAbs(name) || unix.Access(filepath.Dir(name), unix.W_OK) != nil {
		return os.TempDir()
	}
	return filepath.Dir(name)
}

// namelessFile makes a file in dir that nobody else can open and that is gone when it is closed.
func namelessFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "(no name)")), nil
	}
	f, err := os.CreateTemp(dir, ".coffer-open-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

package main

import (
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/stream"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/container/vault"
)

// sealFlags are the choices of one stream.
type sealFlags struct {
	pass       secretFlags
	keyfile    string
	recipients []string
	suite      string
	digest     string
	segment    sizeFlag
	frame      sizeFlag
	kdfMiB     uint32
	kdfTime    uint32
}

func (a *app) sealCmd() *cobra.Command {
	var f sealFlags
	cmd := &cobra.Command{
		Use:   "seal",
		Short: "Seal standard input as one encrypted stream on standard output",
		Long: `Encrypt standard input to standard output, as one stream that opens with a passphrase, a key file, or age recipients, without any vault:

  tar c DIR | coffer seal --recipient age1… > DIR.sealed

The passphrase is asked for on the terminal. --keyfile and --recipient do without one, and can be given together: each of them opens the stream, as does a
passphrase of --passfile or --extpass beside them.`,
		Args: exactArgs(),
		RunE: func(*cobra.Command, []string) error { return a.seal(f) },
	}
	fl := cmd.Flags()
	f.pass.register(fl)
	fl.StringVar(&f.keyfile, "keyfile", "", "let the key file `FILE` open the stream")
	fl.StringArrayVar(&f.recipients, "recipient", nil, "let the age recipient `RECIPIENT` open the stream; may be repeated")
	fl.StringVar(&f.suite, "suite", suite.XAES256GCM.String(), "`CIPHER`: xaes-256-gcm or xchacha20-poly1305")
	fl.StringVar(&f.digest, "digest", container.DefaultDigest.String(), "`DIGEST` of the segments: crc32c, blake3, sha256 or none")
	fl.Var(&f.segment, "segment-size", "bytes that are digested together; auto: 1M")
	fl.Var(&f.frame, "frame-size", "bytes that are encrypted together; auto: what suits the segment size")
	registerKDF(fl, &f.kdfMiB, &f.kdfTime)
	return cmd
}

// options checks the choices before anything is asked.
func (f *sealFlags) options() (stream.Options, error) {
	const hint = "see: coffer seal --help"
	id, err := suite.Parse(f.suite)
	if err != nil {
		return stream.Options{}, failf(exitUsage, hint, "unknown suite %q: xaes-256-gcm or xchacha20-poly1305", f.suite)
	}
	digest, err := container.ParseDigest(f.digest)
	if err != nil {
		return stream.Options{}, failf(exitUsage, hint, "unknown digest %q: crc32c, blake3, sha256 or none", f.digest)
	}
	if f.segment == 0 {
		f.segment = stream.DefaultSegmentSize
	}
	if _, err := container.GeometryFor(int(f.segment), int(f.frame)); err != nil {
		return stream.Options{}, failf(exitUsage, hint, "%w", err)
	}
	return stream.Options{Suite: id, Digest: digest, SegmentSize: int(f.segment), FrameSize: int(f.frame)}, nil
}

func (a *app) seal(f sealFlags) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	kdf, err := kdfParams(vault.DefaultKDF(), f.kdfMiB, f.kdfTime)
	if err != nil {
		return err
	}
	if out, ok := a.stdout.(*os.File); ok && isTerminal(out) {
		return failf(exitUsage, "write it to a file or a pipe: coffer seal > FILE", "a sealed stream is not for a terminal")
	}
	to, wipeAll, err := a.recipients(f, kdf)
	defer wipeAll()
	if err != nil {
		return err
	}
	w, err := stream.NewWriter(a.stdout, o, to...)
	if err != nil {
		return outputFailed(kdfUsage(err))
	}
	return a.interruptible("the sealed stream has no end and will not open", func() error {
		if _, err := w.ReadFrom(a.stdin); err != nil {
			w.Abort()
			return outputFailed(err)
		}
		return outputFailed(w.Close())
	})
}

// recipients returns who can open the stream, and what wipes their secrets.
func (a *app) recipients(f sealFlags, kdf vault.KDF) (to []stream.Recipient, wipeAll func(), err error) {
	var secrets [][]byte
	wipeAll = func() {
		for _, s := range secrets {
			wipe(s)
		}
	}
	for _, text := range f.recipients {
		r, err := a.parseRecipient(text)
		if err != nil {
			return nil, wipeAll, err
		}
		to = append(to, stream.ToAge(r))
	}
	if f.keyfile != "" {
		contents, err := readKeyFile(f.keyfile)
		if err != nil {
			return nil, wipeAll, err
		}
		secrets = append(secrets, contents)
		to = append(to, stream.ToKeyFile(contents))
	}
	if len(to) == 0 || f.pass != (secretFlags{}) {
		pass, err := a.streamPassphrase(f.pass, true)
		if err != nil {
			return nil, wipeAll, err
		}
		secrets = append(secrets, pass)
		to = append(to, stream.ToPassphrase(pass, kdf, deriver()))
	}
	return to, wipeAll, nil
}

// streamPassphrase asks on the controlling terminal: standard input is the stream.
func (a *app) streamPassphrase(from secretFlags, twice bool) ([]byte, error) {
	if from != (secretFlags{}) {
		nothing, err := os.Open(os.DevNull) // for the passphrase command
		if err != nil {
			return nil, err
		}
		defer nothing.Close()
		return (&secrets{ctx: a.ctx, stdin: nothing, stderr: a.stderr}).passphrase(from, "", false)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, failf(exitReadSecret, "use --passfile or --extpass, a key file or an age key: see --help", "there is no terminal to ask for the passphrase")
	}
	defer tty.Close()
	return (&secrets{ctx: a.ctx, stdin: tty, stderr: a.stderr}).passphrase(from, "Passphrase", twice)
}

// interruptible runs work until it ends or the user interrupts; what waits for input then ends with the process.
func (a *app) interruptible(consequence string, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-a.ctx.Done():
		return failf(exitInterrupted, "", "interrupted; %s", consequence)
	}
}

// countingWriter remembers how much was written and what went wrong with it.
type countingWriter struct {
	w   io.Writer
	n   int64
	err error
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.err = errors.Join(c.err, err)
	return n, err
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
)

// Bounds of --kdf-memory in MiB, beside the machine's own memory, and of --kdf-time (FORMAT.md section 9). They are checked here
// too, so that a wrong flag is found before anything is asked or made.
const (
	maxKDFMiB  = 16 << 10
	maxKDFTime = 64
)

// createFlags are the choices that are made once, when a vault is made.
type createFlags struct {
	suite, digest string
	segment       sizeFlag
	frame         sizeFlag
	kdfMiB        uint32
	kdfTime       uint32
	recoveryFile  string
}

func (f *createFlags) register(fs *pflag.FlagSet) {
	f.segment, f.frame = 64<<10, 4<<10
	fs.StringVar(&f.suite, "suite", suite.XAES256GCM.String(), "`CIPHER`: xaes-256-gcm or xchacha20-poly1305")
	fs.StringVar(&f.digest, "digest", container.DefaultDigest.String(), "`DIGEST` that finds rot without a key: crc32c, blake3, sha256 or none")
	fs.Var(&f.segment, "segment-size", "bytes that are cached and digested together; auto: 64K")
	fs.Var(&f.frame, "frame-size", "bytes that are encrypted together; auto: what suits the segment size")
	registerKDF(fs, &f.kdfMiB, &f.kdfTime)
	fs.StringVar(&f.recoveryFile, "recovery-file", "", "write the recovery key to this new `FILE` and not to the terminal")
}

func registerKDF(fs *pflag.FlagSet, mib, time *uint32) {
	fs.Uint32Var(mib, "kdf-memory", 0, "memory that a guess at the passphrase costs, in `MIB` (default: 256, at most a quarter of this machine's)")
	fs.Uint32Var(time, "kdf-time", 0, "`PASSES` over that memory (default: 3)")
}

func (f *secretFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.passfile, "passfile", "", "read the passphrase from the first line of `FILE`")
	fs.StringVar(&f.extpass, "extpass", "", "read the passphrase from the first line that `COMMAND` prints; split on spaces, no shell")
}

// params checks the choices before anything is asked or made. frameSet tells whether the frame size was given.
func (f *createFlags) params(frameSet bool) (vault.Params, error) {
	const hint = "see: coffer init --help"
	if _, err := suite.Parse(f.suite); err != nil {
		return vault.Params{}, failf(exitUsage, hint, "unknown suite %q: xaes-256-gcm or xchacha20-poly1305", f.suite)
	}
	if _, err := container.ParseDigest(f.digest); err != nil {
		return vault.Params{}, failf(exitUsage, hint, "unknown digest %q: crc32c, blake3, sha256 or none", f.digest)
	}
	segment, frame := int(f.segment), int(f.frame)
	if segment == 0 {
		segment = 64 << 10
	}
	if !frameSet && segment != 64<<10 {
		frame = 0 // the default pair is 64K/4K; any other segment size takes the frame size of the table
	}
	geo, err := container.GeometryFor(segment, frame)
	if err != nil {
		return vault.Params{}, failf(exitUsage, hint, "%w", err)
	}
	return vault.Params{Suite: f.suite, Digest: f.digest, SegmentSize: uint32(geo.SegmentSize), FrameSize: uint32(geo.FrameSize)}, nil
}

// kdfParams takes what was not asked for from k.
func kdfParams(k vault.KDF, mib, time uint32) (vault.KDF, error) {
	limit := uint64(maxKDFMiB)
	if total := machineMemory() >> 20; total > 0 {
		limit = min(limit, total)
	}
	if uint64(mib) > limit {
		return k, failf(exitUsage, "see: coffer init --help", "--kdf-memory %d is more than %d MiB", mib, limit)
	}
	if time > maxKDFTime {
		return k, failf(exitUsage, "see: coffer init --help", "--kdf-time %d is more than %d", time, maxKDFTime)
	}
	if mib > 0 {
		k.MemoryKiB = mib << 10
	}
	if time > 0 {
		k.Time = time
	}
	return k, nil
}

func (a *app) initCmd() *cobra.Command {
	var create createFlags
	var secret secretFlags
	cmd := &cobra.Command{
		Use:   "init VAULT",
		Short: "Make a vault",
		Long: `Make a vault in VAULT, a directory that is empty or does not exist yet.

The recovery key is shown on the terminal, or written to --recovery-file: it opens the vault without the passphrase, and
is the only help when passphrase or config is lost.

Pairs of segment size and frame size: 16K/4K 32K/8K 64K/16K 128K/16K 256K/16K 1M/32K 2M/64K 4M/64K and 64K/4K.`,
		Args: exactArgs("VAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			pass, err := a.createVault(args[0], create, secret, cmd.Flags().Changed("frame-size"))
			wipe(pass)
			return err
		},
	}
	create.register(cmd.Flags())
	secret.register(cmd.Flags())
	return cmd
}

// createVault makes a vault and hands the recovery key over; it returns the passphrase, which the caller wipes. Where it fails,
// nothing is left of it.
func (a *app) createVault(path string, create createFlags, secret secretFlags, frameSet bool) (pass []byte, err error) {
	path, err = absolute(path)
	if err != nil {
		return nil, err
	}
	params, err := create.params(frameSet)
	if err != nil {
		return nil, err
	}
	kdf, err := kdfParams(vault.DefaultKDF(), create.kdfMiB, create.kdfTime)
	if err != nil {
		return nil, err
	}
	if err := checkNewVault(path); err != nil {
		return nil, err
	}
	sink, err := openRecoverySink(create.recoveryFile)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sink.close()) }()
	pass, err = a.secrets().passphrase(secret, "New passphrase", true)
	if err != nil {
		return nil, err
	}
	made, err := makeDirs(path)
	if err == nil {
		err = syncMade(made)
	}
	if err != nil {
		wipe(pass)
		removeDirs(made)
		return nil, elsewhere("choose another place for the vault", err)
	}
	recovery, err := vault.Create(path, vault.Options{Params: params, KDF: kdf, Derive: deriver()}, pass)
	if err != nil {
		wipe(pass)
		removeDirs(made)
		if disk.IsFull(err) {
			return nil, elsewhere("make room there, or choose another place for the vault", err)
		}
		return nil, kdfUsage(err)
	}
	if cfg, err := vault.ReadConfig(path); err == nil {
		a.renewPin(path, cfg)
	}
	if err := sink.deliver(a, path, recovery); err != nil {
		wipe(pass)
		return nil, err
	}
	return pass, nil
}

// checkNewVault says early why a vault cannot be made at path.
func checkNewVault(path string) error {
	switch _, err := os.Lstat(filepath.Join(path, ".coffer")); {
	case err == nil:
		return failf(exitVaultDir, fmt.Sprintf("mount it with: coffer mount %s MOUNTPOINT; or choose another directory", quote(path)), "%s is a vault already", path)
	case errors.Is(err, fs.ErrPermission):
		return failf(exitPermission, "choose a directory of your own", "vault directory: %w", err)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return failf(exitVaultDir, "check the path", "vault directory: %w", err)
	case !st.IsDir():
		return failf(exitVaultDir, "a vault is a directory", "%s is not a directory", path)
	}
	empty, err := isEmptyDir(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return failf(exitPermission, "choose a directory of your own", "vault directory: %w", err)
	case err != nil:
		return failf(exitVaultDir, "check the path", "vault directory: %w", err)
	case !empty:
		return failf(exitVaultDir, "choose an empty directory, or one that does not exist yet", "%s is not empty", path)
	}
	return checkWritable(path, ", or choose another place")
}

// makeDirs makes path and the directories above it that are missing, private to the user, and returns those it made, the
// deepest last. Where it fails it removes them again.
func makeDirs(path string) (made []string, err error) {
	var missing []string
	for p := path; ; p = filepath.Dir(p) {
		_, err := os.Stat(p)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		missing = append(missing, p)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o700); err != nil {
			removeDirs(made)
			return nil, fmt.Errorf("cannot make a directory: %w", err)
		}
		made = append(made, missing[i])
	}
	return made, nil
}

// syncMade makes the names of what makeDirs made durable, where the directory above can be read and its host syncs directories.
func syncMade(made []string) error {
	for _, dir := range made {
		if err := syncDir(filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot make a directory durable: %w", err)
		}
	}
	return nil
}

// removeDirs takes back what makeDirs made, as far as it is still empty.
func removeDirs(made []string) {
	for i := len(made) - 1; i >= 0; i-- {
		if os.Remove(made[i]) != nil {
			return
		}
	}
}

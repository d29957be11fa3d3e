package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/plain"
)

// readUnit is how much is read from a file at a time, in bytes: enough for all cores to have frames to open.
const readUnit = 4 << 20

func (a *app) catCmd() *cobra.Command {
	var f unlockFlags
	var offset, length int64
	cmd := &cobra.Command{
		Use:   "cat VAULT PATH",
		Short: "Write a file of a vault to standard output, without a mount",
		Long: `Write the file at PATH, which is counted from the root of the vault, to standard output. Only the frames that --offset and --length touch are read and
decrypted. A mounted vault is read through its mount.`,
		Args: exactArgs("VAULT", "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if offset < 0 || length < 0 {
				return failf(exitUsage, "count bytes from 0", "--offset and --length cannot be negative")
			}
			if !cmd.Flags().Changed("length") {
				length = -1
			}
			return a.lookAt(args[0], args[1], true, f, func(_ *source, n plain.Node) error { return a.cat(n, args[1], offset, length) })
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().Int64Var(&offset, "offset", 0, "begin at byte `N`")
	cmd.Flags().Int64Var(&length, "length", 0, "write no more than `N` bytes (default: to the end)")
	return cmd
}

// cat writes a range of the file n, which name says.
func (a *app) cat(n plain.Node, name string, offset, length int64) (err error) {
	file, err := n.Open()
	if err != nil {
		return asDamage(pathFailed(name, err))
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	end := file.Size()
	if length >= 0 {
		end = offset + min(length, max(0, end-offset))
	}
	return a.interruptible("what was written is only a part", func() error { return a.copyRange(name, file, offset, end) })
}

// copyRange writes the bytes from off to end to standard output.
func (a *app) copyRange(name string, file plain.File, off, end int64) error {
	buf := make([]byte, min(readUnit, max(0, end-off)))
	for at := off; at < end; {
		p := buf[:min(int64(len(buf)), end-at)]
		n, err := file.ReadAt(p, at)
		if n < len(p) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return asDamage(fmt.Errorf("%s: %w; %d bytes were written", oneLine(name), err, at-off))
		}
		if _, err := a.stdout.Write(p); err != nil {
			return outputFailed(err)
		}
		at += int64(n)
	}
	return nil
}

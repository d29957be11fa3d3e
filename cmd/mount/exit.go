package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Code is an exit code. The numbers below 40 are gocryptfs's where the meaning is the same.
type Code int

const (
	exitOK          Code = 0
	exitUsage       Code = 1
	exitVaultDir    Code = 6
	exitConfig      Code = 8
	exitReadSecret  Code = 9
	exitMountpoint  Code = 10
	exitOther       Code = 11
	exitPassphrase  Code = 12
	exitRecoveryKey Code = 14
	exitInterrupted Code = 15
	exitDaemon      Code = 17
	exitFUSE        Code = 19
	exitEmpty       Code = 22
	exitDamage      Code = 26
	exitInUse       Code = 41
	exitHostFull    Code = 42
	exitReadOnly    Code = 43
	exitPermission  Code = 44
	exitCopied      Code = 45
	exitBusy        Code = 46
	exitPartial     Code = 47
	exitPending     Code = 48
)

// exitTable is the one list of exit codes: help prints it, and a test compares it with README's.
var exitTable = []struct {
	code Code
	text string
}{
	{exitOK, "success"},
	{exitUsage, "wrong usage: unknown command, flag, mount option, size or key slot"},
	{exitVaultDir, "the vault directory is missing, not a directory, not a vault, or not empty at init"},
	{exitConfig, "the vault's config cannot be loaded: damaged, foreign, or of an unknown version or feature"},
	{exitReadSecret, "a passphrase, key file, identity or recovery key could not be read"},
	{exitMountpoint, "the mount point is missing, not a directory, not empty, or not a coffer mount"},
	{exitOther, "any other error, I/O errors of the host among them"},
	{exitPassphrase, "wrong passphrase, key file or identity"},
	{exitRecoveryKey, "wrong or mistyped recovery key"},
	{exitInterrupted, "interrupted"},
	{exitDaemon, "the daemon could not be started or died"},
	{exitFUSE, "FUSE is missing or refused the mount"},
	{exitEmpty, "empty passphrase"},
	{exitDamage, "the vault, or a sealed stream, is damaged"},
	{exitInUse, "the vault is in use"},
	{exitHostFull, "the host is full"},
	{exitReadOnly, "the host is read-only"},
	{exitPermission, "no permission"},
	{exitCopied, "a copy of a vault that was not cleanly unmounted: see --recover"},
	{exitBusy, "the mount is busy"},
	{exitPartial, "a sealed stream is damaged or cut: what was written is good, but only a part"},
	{exitPending, "scrub: nothing wrong but what an unclean session may have left half-way"},
}

// exitError is an error on its way to the user: what happened, what to do about it, and the code to leave with.
type exitError struct {
	code Code
	hint string // what to do, one line; may be empty
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// failf makes an exitError; format works as in fmt.Errorf, %w included.
func failf(code Code, hint, format string, args ...any) error {
	return &exitError{code: code, hint: hint, err: fmt.Errorf(format, args...)}
}

// report prints err as the user sees it and returns the code to exit with.
func report(w io.Writer, err error) Code {
	if err == nil {
		return exitOK
	}
	var e *exitError
	if !errors.As(err, &e) {
		errors.As(classify(err), &e)
	}
	// The message may wrap the exitError further out: the outermost text is the whole one.
	fmt.Fprintf(w, "coffer: %s\n", oneLine(err.Error()))
	if e.hint != "" {
		fmt.Fprintf(w, "hint: %s\n", oneLine(e.hint))
	}
	return e.code
}

// oneLine keeps a message on one line and free of control characters, whatever a path or a host's error text holds.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return ' '
		case r < ' ', r == 0x7f, r >= 0x80 && r < 0xa0:
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
}

// exitHelp is the table as help prints it.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, row := range exitTable {
		fmt.Fprintf(&b, "  %2d  %s\n", row.code, row.text)
	}
	return b.String()
}

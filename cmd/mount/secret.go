package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// maxSecret bounds a passphrase or recovery key line in bytes: more is a wrong file, not a passphrase.
const maxSecret = 64 << 10

// secretFlags say where one passphrase comes from; all empty: the terminal, or standard input when it is none.
type secretFlags struct {
	passfile string
	extpass  string
}

// secrets reads passphrases for one command. Not for concurrent use.
type secrets struct {
	ctx    context.Context
	stdin  *os.File
	stderr io.Writer
}

// passphrase returns a passphrase that is not empty. With twice, a person at a terminal types it two times; programs give
// it once. The caller owns the slice and wipes it.
func (s *secrets) passphrase(from secretFlags, prompt string, twice bool) ([]byte, error) {
	pass, err := s.read(from, prompt+": ")
	if err != nil {
		return nil, err
	}
	if len(pass) == 0 {
		return nil, failf(exitEmpty, "give one that is not empty: type it, pipe it to standard input, or use --passfile or --extpass",
			"the passphrase is empty")
	}
	if !twice || from != (secretFlags{}) || !isTerminal(s.stdin) {
		return pass, nil
	}
	again, err := promptSecret(s.ctx, s.stdin, prompt+" again: ")
	if err != nil {
		wipe(pass)
		return nil, readFailed(err)
	}
	defer wipe(again)
	if string(again) != string(pass) {
		wipe(pass)
		return nil, failf(exitReadSecret, "try again; nothing was changed", "the two passphrases differ")
	}
	return pass, nil
}

func (s *secrets) read(from secretFlags, prompt string) ([]byte, error) {
	switch {
	case from.passfile != "" && from.extpass != "":
		return nil, failf(exitUsage, "give one of them", "both a passphrase file and a passphrase command are given")
	case from.passfile != "":
		return firstLineOf(from.passfile)
	case from.extpass != "":
		return s.runCommand(from.extpass)
	case isTerminal(s.stdin):
		pass, err := promptSecret(s.ctx, s.stdin, prompt)
		return pass, readFailed(err)
	default:
		pass, err := readLine(s.stdin)
		if err != nil {
			return nil, readFailed(fmt.Errorf("standard input: %w", err))
		}
		return pass, nil
	}
}

// runCommand takes the first line that command prints. It is split on spaces and run without a shell.
func (s *secrets) runCommand(command string) ([]byte, error) {
	args := strings.Fields(command)
	if len(args) == 0 {
		return nil, failf(exitUsage, "give the command and its arguments, separated by spaces", "the passphrase command is empty")
	}
	cmd := exec.CommandContext(s.ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stderr = s.stdin, s.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, readFailed(err)
	}
	if err := cmd.Start(); err != nil {
		return nil, failf(exitReadSecret, "check the command; it is run without a shell", "passphrase command: %w", err)
	}
	pass, readErr := readLine(out)
	// What follows the first line is read and dropped, so that the command does not die of a closed pipe.
	_, drainErr := io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		wipe(pass)
		if s.ctx.Err() != nil {
			return nil, errInterrupted()
		}
		return nil, failf(exitReadSecret, "run it by hand to see why", "passphrase command %q failed: %w", args[0], err)
	}
	return pass, readFailed(errors.Join(readErr, drainErr))
}

// firstLineOf reads the first line of a file; a pipe such as the shell's <(command) is fine.
func firstLineOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, failf(exitReadSecret, "check the path and its permissions", "cannot read the secret: %w", err)
	}
	defer f.Close()
	line, err := readLine(f)
	if err != nil {
		return nil, readFailed(err)
	}
	return line, nil
}

// readLine reads up to a newline or the end, without the newline and byte by byte, so that what follows stays for the next
// reader: `passwd` takes two lines from one standard input.
func readLine(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, 256)
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		if n == 1 {
			if b[0] == '\n' {
				return line, nil
			}
			if len(line) == maxSecret {
				wipe(line)
				return nil, fmt.Errorf("the first line is longer than %d bytes", maxSecret)
			}
			line = append(line, b[0])
		}
		if errors.Is(err, io.EOF) {
			return line, nil
		}
		if err != nil {
			wipe(line)
			return nil, err
		}
	}
}

// readFailed gives an error of reading a secret its code, unless it has one.
func readFailed(err error) error {
	var e *exitError
	if err == nil || errors.As(err, &e) {
		return err
	}
	return failf(exitReadSecret, "type it, pipe it to standard input, or use a file or a command: see --help", "cannot read the secret: %w", err)
}

func wipe(b []byte) { clear(b) }

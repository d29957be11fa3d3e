package main

import (
	"fmt"
	"io"
	"os"
)

// recoverySink is where a recovery key goes: a new file, or the controlling terminal. Never standard output, which ends up in
// pipes and logs.
type recoverySink struct {
	path string
	file *os.File // nil: the terminal
	done bool
}

// openRecoverySink makes the file, so that a path that cannot be written is found before a vault is made.
func openRecoverySink(path string) (*recoverySink, error) {
	if path == "" {
		return &recoverySink{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		code := exitOther
		if os.IsPermission(err) {
			code = exitPermission
		}
		return nil, failf(code, "name a file that does not exist yet, in a directory of your own", "cannot make the recovery file: %w", err)
	}
	return &recoverySink{path: path, file: f}, nil
}

// deliver hands the key over. Without a file and without a terminal it says how to get it later.
func (s *recoverySink) deliver(a *app, vault, key string) error {
	s.done = true
	if s.file != nil {
		_, err := io.WriteString(s.file, key+"\n")
		if err == nil {
			err = s.file.Sync()
		}
		if err != nil {
			return failf(exitOther, "get the key again with: coffer recover --show "+quote(vault), "the recovery key could not be written: %w", err)
		}
		return nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		a.say("the recovery key was not shown: there is no terminal; get it with: coffer recover --show %s", quote(vault))
		return nil
	}
	defer tty.Close()
	_, err = fmt.Fprintf(tty, `
Recovery key of %s:

    %s

It opens the vault without the passphrase, even when its config is lost, and cannot be revoked.
Write it down and keep it apart from the vault.

`, oneLine(vault), key)
	if err != nil {
		return failf(exitOther, "get the key again with: coffer recover --show "+quote(vault), "the recovery key could not be shown: %w", err)
	}
	return nil
}

// close closes the file, and removes it where no key was delivered.
func (s *recoverySink) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if !s.done {
		return os.Remove(s.path)
	}
	return err
}

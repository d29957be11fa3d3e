package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
)

// Pins are to age slots what known_hosts is to ssh. A recipient is public: whoever can write to a vault can put a config with a master
// key of his own in its place that the user's identity opens. So the first use of a vault by an identity remembers which master key
// it has (its public commitment), and each later one compares.
//
// The file has a line "vault-id commitment "path"" for each vault and place, the path quoted as in Go. Lines are only appended:
// the last one of a path counts. A last line without its end was cut by a crash and is none.
const pinsName = "known_vaults"

// maxPins bounds the file in bytes.
const maxPins = 16 << 20

type pin struct{ id, commitment, path string }

func (p pin) line() string {
	return p.id + " " + p.commitment + " " + strconv.QuoteToASCII(p.path) + "\n"
}

func pinOf(path string, cfg *vault.Config) pin {
	return pin{hex.EncodeToString(cfg.VaultID[:]), hex.EncodeToString(cfg.Commitment[:]), path}
}

// checkPin compares cfg, which an age slot has opened, with what was remembered, and remembers it where nothing was. A state
// directory that cannot be written is no reason not to mount; one that cannot be read is.
func (a *app) checkPin(path string, cfg *vault.Config) error {
	path = canonical(path)
	known, err := readPins()
	if err != nil {
		return err
	}
	want, here := pinOf(path, cfg), false
	for _, p := range known {
		if p.id == want.id && p.commitment != want.commitment {
			return pinError("vault %s has another master key than when an identity opened it first", want.id)
		}
		here = here || p == want
	}
	if last := lastPin(known, path); last != nil && last.id != want.id {
		return pinError("another vault was at %s when an identity opened it last", path)
	}
	if here {
		return nil
	}
	if err := appendPin(want); err != nil {
		a.say("warning: the vault's key could not be remembered for the next time: %s", oneLine(err.Error()))
		return nil
	}
	a.say("remembered the key of vault %s, which is used here with age for the first time", want.id)
	return nil
}

// renewPin remembers a vault that was made just now in the place of one that was known.
func (a *app) renewPin(path string, cfg *vault.Config) {
	path = canonical(path)
	known, err := readPins()
	if err == nil && lastPin(known, path) != nil {
		err = appendPin(pinOf(path, cfg))
	}
	if err != nil {
		a.say("warning: the new vault's key could not be remembered: %s", oneLine(err.Error()))
	}
}

func pinError(format string, args ...any) error {
	file, err := pinsPath()
	if err != nil {
		file = pinsName
	}
	return failf(exitConfig, "somebody may have put another config in its place, to read what you write; if you replaced the vault yourself, remove its lines from "+file,
		format, args...)
}

func pinsPath() (string, error) {
	dir, err := stateDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, pinsName), nil
}

func lastPin(known []pin, path string) (last *pin) {
	for i := range known {
		if known[i].path == path {
			last = &known[i]
		}
	}
	return last
}

func readPins() ([]pin, error) {
	path, err := pinsPath()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var data []byte
	if err == nil {
		defer f.Close()
		data, err = io.ReadAll(io.LimitReader(f, maxPins+1))
	}
	if err != nil {
		return nil, failf(exitOther, "check its permissions", "cannot read the keys of known vaults: %w", err)
	}
	var known []pin
	for n := 1; ; n++ {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return known, nil
		}
		p, ok := parsePin(string(line))
		if !ok || len(data) > maxPins {
			return nil, failf(exitOther, "mend it or remove that line", "line %d of %s cannot be read", n, path)
		}
		known, data = append(known, p), rest
	}
}

func parsePin(line string) (pin, bool) {
	words := strings.SplitN(line, " ", 3)
	if len(words) != 3 || len(words[0]) != 32 || len(words[1]) != 64 {
		return pin{}, false
	}
	path, err := strconv.Unquote(words[2])
	return pin{words[0], words[1], path}, err == nil
}

// appendPin appends a line durably, after cutting off one that a crash left without its end.
func appendPin(p pin) error {
	path, err := pinsPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPins))
	if err != nil {
		return err
	}
	end := int64(bytes.LastIndexByte(data, '\n') + 1)
	if err := f.Truncate(end); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(p.line()), end); err != nil {
		return err
	}
	return f.Sync()
}

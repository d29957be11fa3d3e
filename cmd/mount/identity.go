package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"
)

// maxIdentityFile bounds a file of identities in bytes.
const maxIdentityFile = 1 << 20

// readIdentities reads a file as age-keygen and plugins write it: one identity a line, comments with #. What a line holds is never in
// an error.
func (a *app) readIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, failf(exitReadSecret, "check the path and its permissions", "cannot read the identity file: %w", err)
	}
	defer f.Close()
	var ids []age.Identity
	lines := bufio.NewScanner(io.LimitReader(f, maxIdentityFile))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		id, ok := a.parseIdentity(line)
		if !ok {
			return nil, failf(exitReadSecret, "it has lines like AGE-SECRET-KEY-1… or AGE-PLUGIN-…; one that is encrypted itself: --identity <(age -d FILE)",
				"line %d of the identity file is not an age identity", n)
		}
		ids = append(ids, id)
	}
	if err := lines.Err(); err != nil {
		return nil, failf(exitReadSecret, "make one with: age-keygen -o FILE", "cannot read the identity file: %w", err)
	}
	if len(ids) == 0 {
		return nil, failf(exitReadSecret, "make one with: age-keygen -o FILE", "there is no identity in the identity file")
	}
	return ids, nil
}

func (a *app) parseIdentity(s string) (id age.Identity, ok bool) {
	var err error
	switch {
	case strings.HasPrefix(s, "AGE-PLUGIN-"):
		id, err = plugin.NewIdentity(s, a.pluginUI())
	case strings.HasPrefix(s, "AGE-SECRET-KEY-PQ-1"):
		id, err = age.ParseHybridIdentity(s)
	default:
		id, err = age.ParseX25519Identity(s)
	}
	return id, err == nil
}

// parseRecipient knows what age knows, but for keys of SSH.
func (a *app) parseRecipient(s string) (r age.Recipient, err error) {
	switch {
	case strings.HasPrefix(s, "AGE-"):
		return nil, failf(exitUsage, "its recipient is a comment in the same file, or what age-keygen -y prints", "that is an identity, which is secret, and not a recipient")
	case strings.HasPrefix(s, "age1tag1"), strings.HasPrefix(s, "age1tagpq1"):
		r, err = tag.ParseRecipient(s)
	case strings.HasPrefix(s, "age1pq1"):
		r, err = age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1") && strings.Count(s, "1") > 1:
		r, err = plugin.NewRecipient(s, a.pluginUI())
	default:
		r, err = age.ParseX25519Recipient(s)
	}
	if err != nil {
		return nil, failf(exitUsage, "it looks like age1…, as age-keygen prints it", "malformed recipient: %w", err)
	}
	return r, nil
}

// pluginUI lets a plugin ask for a PIN or a touch, on the terminal.
func (a *app) pluginUI() *plugin.ClientUI {
	say := func(format string, v ...any) { a.say("%s", oneLine(fmt.Sprintf(format, v...))) }
	return plugin.NewTerminalUI(say, say)
}

package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestManPages(t *testing.T) {
	b := newBox(t)
	dir := b.mkdir("man")
	b.ok("", "man", dir)
	for page, want := range map[string][]string{
		"coffer.1":               {"coffer-mount(1)", "coffer-status(1)", "Exit codes"},
		"coffer-mount.1":         {"--idle", "--foreground"},
		"coffer-umount.1":        {"--lazy"},
		"coffer-debug-journal.1": {"not cleanly unmounted", "--json"},
		"mount.fuse.coffer.8":    {"MOUNT.FUSE.COFFER", "passfile=", "/etc/fstab"},
	} {
		text := readFile(t, filepath.Join(dir, page))
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", page, w, text)
			}
		}
	}
	if out, err := filepath.Glob(filepath.Join(dir, "*serve*")); err != nil || len(out) > 0 {
		t.Errorf("hidden commands have pages: %v %v", out, err)
	}
	b.fails(exitOther, "man pages", "", "man", b.path("nowhere"))
}

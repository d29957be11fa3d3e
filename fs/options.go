package fs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// mountFlag is a generic mount word: the bit of mount(2) it sets or clears.
type mountFlag struct {
	word string
	bit  uintptr
	on   bool
}

// mountFlags are the words that fusermount3 and mount(2) both know.
func mountFlags() []mountFlag {
	return []mountFlag{
		{"ro", unix.MS_RDONLY, true}, {"rw", unix.MS_RDONLY, false},
		{"nosuid", unix.MS_NOSUID, true}, {"suid", unix.MS_NOSUID, false},
		{"nodev", unix.MS_NODEV, true}, {"dev", unix.MS_NODEV, false},
		{"noexec", unix.MS_NOEXEC, true}, {"exec", unix.MS_NOEXEC, false},
		{"noatime", unix.MS_NOATIME, true}, {"atime", unix.MS_NOATIME, false},
		{"nodiratime", unix.MS_NODIRATIME, true}, {"diratime", unix.MS_NODIRATIME, false},
		{"relatime", unix.MS_RELATIME, true}, {"norelatime", unix.MS_RELATIME, false},
		{"sync", unix.MS_SYNCHRONOUS, true}, {"async", unix.MS_SYNCHRONOUS, false},
		{"dirsync", unix.MS_DIRSYNC, true},
	}
}

// mountWords are parsed mount options.
type mountWords struct {
	flags      uintptr  // for mount(2)
	words      []string // for fusermount3: every flag word as given, the last of contradicting ones winning
	allowOther bool
	checked    bool // the kernel is to check permissions in any case
	fsName     string
	subtype    string
}

// parseWords reads generic mount options, each of them possibly a comma-separated list. An unknown word is an error. nosuid and nodev are
// in force unless taken back.
func parseWords(options []string) (mountWords, error) {
	w := mountWords{flags: unix.MS_NOSUID | unix.MS_NODEV}
	for _, option := range options {
		for word := range strings.SplitSeq(option, ",") {
			if err := w.add(word); err != nil {
				return mountWords{}, err
			}
		}
	}
	return w, nil
}

func (w *mountWords) add(word string) error {
	key, value, hasValue := strings.Cut(word, "=")
	switch {
	case word == "":
		return nil
	case word == "default_permissions":
		w.checked = true
		return nil
	case word == "allow_other":
		w.allowOther = true
		return nil
	case key == "fsname" && hasValue:
		w.fsName = value
		return nil
	case key == "subtype" && hasValue:
		w.subtype = value
		return nil
	}
	for _, f := range mountFlags() {
		if f.word != word {
			continue
		}
		if f.on {
			w.flags |= f.bit
		} else {
			w.flags &^= f.bit
		}
		w.words = append(w.words, word)
		return nil
	}
	return fmt.Errorf("fs: unknown mount option %q", word)
}

// direct returns the flags for go-fuse's direct mount, for which 0 means its own default.
func (w *mountWords) direct() uintptr {
	if w.flags == 0 {
		return unix.MS_MGC_VAL // ignored by the kernel
	}
	return w.flags
}

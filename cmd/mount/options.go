package main

import (
	"slices"
	"strings"
)

// mountWords are the generic mount words of -o, in their effect. The zero value is the default mount: read-write, nosuid,nodev,
// only for its owner, with the kernel checking permissions unless that is root.
type mountWords struct {
	ReadOnly    bool
	AllowOther  bool
	Suid        bool
	Dev         bool
	NoExec      bool
	Checked     bool // by the kernel, though only root may enter
	NoAtime     bool
	NoWriteBack bool
	NoXAttr     bool
	ACL         bool
	FsName      string
}

// knownWords are the words that -o takes, as help and the error for an unknown one list them.
var knownWords = []string{
	"ro", "rw", "allow_other", "default_permissions", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "noatime",
	"fsname=NAME", "nowriteback", "noxattr", "acl",
}

// parseWords reads the values of all -o flags. Of contradicting words the last wins, as in mount(8).
func parseWords(flags []string) (mountWords, error) {
	var w mountWords
	for _, flag := range flags {
		for word := range strings.SplitSeq(flag, ",") {
			if err := w.set(word); err != nil {
				return mountWords{}, err
			}
		}
	}
	if w.ACL && w.NoXAttr {
		return mountWords{}, failf(exitUsage, "leave one of them out", "mount options acl and noxattr contradict each other: ACLs are extended attributes")
	}
	return w, nil
}

func (w *mountWords) set(word string) error {
	key, value, hasValue := strings.Cut(word, "=")
	switch {
	case key == "fsname" && hasValue:
		if value == "" {
			return failf(exitUsage, "give a name, or leave the word out", "mount option fsname= is empty")
		}
		w.FsName = value
		return nil
	case hasValue:
		return unknownWord(word)
	}
	switch key {
	case "": // an empty word, as in "ro,,noatime"
	case "ro":
		w.ReadOnly = true
	case "rw":
		w.ReadOnly = false
	case "allow_other":
		w.AllowOther = true
	case "default_permissions":
		w.Checked = true
	case "suid":
		w.Suid = true
	case "nosuid":
		w.Suid = false
	case "dev":
		w.Dev = true
	case "nodev":
		w.Dev = false
	case "exec":
		w.NoExec = false
	case "noexec":
		w.NoExec = true
	case "noatime":
		w.NoAtime = true
	case "nowriteback":
		w.NoWriteBack = true
	case "noxattr":
		w.NoXAttr = true
	case "acl":
		w.ACL = true
	default:
		return unknownWord(word)
	}
	return nil
}

func unknownWord(word string) error {
	words := slices.Clone(knownWords)
	slices.Sort(words)
	return failf(exitUsage, "known words: "+strings.Join(words, ", "), "unknown mount option %q", word)
}

// flags are the words that reach the kernel, in mount(8)'s spelling. nosuid and nodev are in force without a word.
func (w mountWords) flags() []string {
	var out []string
	for _, f := range []struct {
		on   bool
		word string
	}{{w.ReadOnly, "ro"}, {w.Suid, "suid"}, {w.Dev, "dev"}, {w.NoExec, "noexec"}, {w.NoAtime, "noatime"}, {w.Checked, "default_permissions"}} {
		if f.on {
			out = append(out, f.word)
		}
	}
	return out
}

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// mount(8) mounts a line of fstab(5) of type fuse.coffer by calling mount.fuse.coffer, which is this program under that name:
//
//	mount.fuse.coffer VAULT MOUNTPOINT [-sfnv] [-N namespace] [-o options] [-t type]
//
// Where there is no such name it calls mount.fuse(8) of fuse3, which runs
//
//	coffer VAULT MOUNTPOINT [-o options]
//
// after it has taken some of mount(8)'s words away and, for root, put dev and suid there unless the line says nodev and nosuid.

// helperName is what mount(8) calls.
const helperName = "mount.fuse.coffer"

// Exit codes of mount(8).
const (
	mount8Usage       = 1
	mount8Interrupted = 8
	mount8Failed      = 32
)

// runAs is run for a whole command line: as coffer, or as mount(8) wants it.
func runAs(ctx context.Context, argv []string, stdin *os.File, stdout, stderr io.Writer) int {
	args, ok, err := fromMount8(argv)
	switch {
	case err != nil:
		return mount8Code(report(stderr, err))
	case !ok:
		return run(ctx, argv[1:], stdin, stdout, stderr)
	case args == nil:
		return int(exitOK)
	}
	return mount8Code(Code(run(ctx, args, stdin, stdout, stderr)))
}

// mount8Code is what mount(8) says in place of a code of ours.
func mount8Code(code Code) int {
	switch code {
	case exitOK:
		return int(exitOK)
	case exitUsage, exitPermission:
		return mount8Usage
	case exitInterrupted:
		return mount8Interrupted
	}
	return mount8Failed
}

// fromMount8 turns a call of mount(8) or mount.fuse(8) into the arguments of coffer; none where nothing is to be done. ok is false where it is
// no such call: no command of coffer has a slash in it, and mount(8) makes paths absolute.
func fromMount8(argv []string) (args []string, ok bool, err error) {
	byFuse := false
	if filepath.Base(argv[0]) != helperName {
		if len(argv) < 3 || !strings.Contains(argv[1], "/") {
			return nil, false, nil
		}
		byFuse = true
	}
	var c mount8Call
	if err := c.parse(argv[1:]); err != nil {
		return nil, true, err
	}
	if slices.Contains(c.options, "remount") {
		return nil, true, failf(exitFUSE, "unmount it, and mount it with the options that it is to have", "%s: a mounted vault cannot be given other options", c.mountpoint)
	}
	if c.fake {
		return nil, true, nil
	}
	args = []string{"mount", "--quiet"}
	isFlag := flagWords()
	var words []string
	for _, word := range c.options {
		switch key, value, hasValue := strings.Cut(word, "="); {
		case ignoredWord(key), byFuse && (word == "dev" || word == "suid"):
		case hasValue && isFlag(key):
			args = append(args, "--"+key+"="+value)
		case c.sloppy && new(mountWords).set(word) != nil:
		default:
			words = append(words, word)
		}
	}
	if len(words) > 0 {
		args = append(args, "-o", strings.Join(words, ","))
	}
	return append(args, "--", c.vault, c.mountpoint), true, nil
}

// flagWords tells which options of a line in fstab are flags of coffer mount: those that take a value, as passfile and idle do.
func flagWords() func(key string) bool {
	flags := new(app).mountCmd().Flags()
	return func(key string) bool {
		f := flags.Lookup(key)
		return f != nil && f.Value.Type() != "bool" && key != "options"
	}
}

// ignoredWord tells what mount(8), systemd and others read in fstab, and what is so anyway.
func ignoredWord(key string) bool {
	switch key {
	case "", "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "noowner", "group", "nogroup", "comment",
		"uhelper", "helper", "relatime", "async", "atime", "diratime", "nodiratime", "silent", "loud":
		return true
	}
	return strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "X-")
}

// mount8Call is a call by mount(8)'s convention.
type mount8Call struct {
	vault, mountpoint string
	options           []string
	sloppy, fake      bool
}

func (c *mount8Call) parse(args []string) error {
	const usage = "usage: " + helperName + " VAULT MOUNTPOINT [-sfnv] [-o options]"
	var paths []string
	for i := 0; i < len(args); i++ {
		flags, isFlag := strings.CutPrefix(args[i], "-")
		if !isFlag || flags == "" {
			paths = append(paths, args[i])
			continue
		}
		for j, f := range flags {
			switch f {
			case 's':
				c.sloppy = true
			case 'f':
				c.fake = true
			case 'n', 'v':
			case 'o', 't':
				value := flags[j+1:]
				if value == "" {
					if i++; i == len(args) {
						return failf(exitUsage, usage, "-%c takes a value", f)
					}
					value = args[i]
				}
				if f == 'o' {
					c.options = append(c.options, strings.Split(value, ",")...)
				}
			default:
				return failf(exitUsage, usage, "unknown flag -%c", f)
			}
			if f == 'o' || f == 't' {
				break
			}
		}
	}
	if len(paths) != 2 {
		return failf(exitUsage, usage, "%s takes a vault and a mount point", helperName)
	}
	c.vault, c.mountpoint = paths[0], paths[1]
	return nil
}

// fstabTopic is help that the man page mount.fuse.coffer(8) is made of.
func (a *app) fstabTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "fstab",
		Short: "How mount(8), fstab and systemd mount a vault",
		Long: `A line of /etc/fstab mounts a vault where coffer is also installed as /sbin/` + helperName + `, a link to it:

  /srv/vault  /srv/plain  fuse.coffer  passfile=/etc/coffer/pass,allow_other,nofail  0  0

The options are those of coffer mount -o, and all flags of coffer mount that take a value, as passfile=FILE or idle=30m. What
only mount(8) or systemd read is ignored: defaults, noauto, nofail, _netdev, user, x-… and the like. A comma cannot stand in a
value. Without passfile= or another secret the passphrase is asked for on the terminal, or read from standard input.

Where only mount.fuse(8) of fuse3 is installed it calls coffer itself. dev and suid cannot be had by either way: mount(8) takes them for granted and keeps
them for itself.

umount(8) returns before the daemon has let go of the vault; coffer umount waits for that.

The options of a mounted vault stay what they are: remount fails.

Exit codes are those of mount(8): 1 for wrong usage or no permission, 8 when interrupted, 32 when the mount failed.

As a service of systemd a vault is mounted by the template in cmd/mount/packaging.`,
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
)

// app is what every command needs of its process.
type app struct {
	ctx    context.Context // ends with the first SIGINT or SIGTERM, until takeSignals
	stdin  *os.File
	stdout io.Writer
	stderr io.Writer

	stopNotify func()
}

// run is the whole program: it executes args and returns the exit code. Errors are printed on stderr as in exit.go.
func run(ctx context.Context, args []string, stdin *os.File, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	a := &app{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, stopNotify: stop}
	if err := noCoreDumps(); err != nil {
		return int(report(stderr, failf(exitOther, "", "cannot switch core dumps off: %w", err)))
	}
	root := a.rootCmd()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var e *exitError
	switch {
	case err == nil:
		return int(exitOK)
	case errors.Is(err, errReported) && errors.As(err, &e):
		return int(e.code)
	case ctx.Err() != nil && !errors.As(err, &e):
		// The interrupt reached the children too, and what failed is a consequence.
		return int(report(stderr, failf(exitInterrupted, "", "interrupted: %w", err)))
	}
	return int(report(stderr, err))
}

// takeSignals gives SIGINT and SIGTERM to the caller and ends their meaning "stop the command". SIGHUP and SIGPIPE are ignored from
// then on: a mount must not end because a terminal or a reader of its output is gone.
func (a *app) takeSignals() <-chan os.Signal {
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM)
	a.stopNotify()
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	return ch
}

func (a *app) rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "coffer",
		Short: "Encrypted directories that you can mount",
		Long: `Coffer keeps files encrypted in a directory, the vault, and shows them in another one, the mount point.

First use: coffer mount --create ~/vault ~/plain

` + exitHelp(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			hint := "see: coffer help"
			if len(args) > 0 {
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					hint = "did you mean: coffer " + strings.Join(near, ", coffer ")
				}
				return failf(exitUsage, hint, "unknown command %q", args[0])
			}
			return failf(exitUsage, hint, "a command is missing")
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return failf(exitUsage, "see: "+cmd.CommandPath()+" --help", "%w", flagError(err))
	})
	root.AddCommand(a.initCmd(), a.mountCmd(), a.umountCmd(), a.passwdCmd(), a.keyCmd(), a.recoverCmd(), a.configCmd(), a.infoCmd(), a.verifyCmd(), a.scrubCmd(), a.statusCmd(), a.freezeCmd(), a.thawCmd(),
		a.lsCmd(), a.catCmd(), a.statCmd(), a.exportCmd(), a.importCmd(), a.sealCmd(), a.openCmd(), a.speedCmd(), a.debugCmd(), a.versionCmd(),
		a.fstabTopic(), a.serveCmd(), a.kdfCmd(), a.manCmd())
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(cmd *cobra.Command, args []string) error {
			if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
				return failf(exitUsage, "see: coffer help", "there is no help on %q", strings.Join(args, " "))
			}
			return nil
		}
	}
	return root
}

// flagError says what is wrong with a number in words of its own: those of strconv are for programmers.
func flagError(err error) error {
	var value *pflag.InvalidValueError
	var number *strconv.NumError
	if !errors.As(err, &value) || !errors.As(err, &number) {
		return err
	}
	what := "it takes a whole number from 0 on"
	if errors.Is(number, strconv.ErrRange) {
		what = "the number is too large"
	}
	return fmt.Errorf("invalid argument %q for \"--%s\" flag: %s", value.GetValue(), value.GetFlag().Name, what)
}

// exactArgs is cobra.ExactArgs with an error that says what is expected.
func exactArgs(names ...string) cobra.PositionalArgs {
	return rangeArgs(len(names), len(names), names...)
}

// rangeArgs is cobra.RangeArgs likewise. A most that is less than least is no bound.
func rangeArgs(least, most int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		takes := count(least, "argument")
		switch {
		case len(args) >= least && (len(args) <= most || most < least):
			return nil
		case most < least:
			takes = "at least " + takes
		case most > least:
			takes = fmt.Sprintf("%d or %s", least, count(most, "argument"))
		}
		usage := strings.Join(append([]string{"usage:", cmd.CommandPath()}, names...), " ")
		return failf(exitUsage, usage, "%s takes %s and got %d", cmd.CommandPath(), takes, len(args))
	}
}

// needsCommand is what a command does that only has others below it, when none of these was given; hint names them.
func needsCommand(hint string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return failf(exitUsage, hint, "unknown command %q", cmd.Name()+" "+args[0])
		}
		return failf(exitUsage, hint, "a command is missing")
	}
}

// kdfCommand is the hidden command of the short-lived process that derives a key from a passphrase.
const kdfCommand = "kdf"

func (a *app) kdfCmd() *cobra.Command {
	return &cobra.Command{
		Use:    kdfCommand,
		Hidden: true,
		Args:   exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			return vault.RunKDFWorker(a.stdin, a.stdout)
		},
	}
}

// deriver runs Argon2id in a process of its own, so that its memory does not stay with a daemon.
func deriver() vault.Deriver { return vault.ProcessDeriver("/proc/self/exe", kdfCommand) }

// secrets reads this command's passphrases.
func (a *app) secrets() *secrets { return &secrets{ctx: a.ctx, stdin: a.stdin, stderr: a.stderr} }

// say prints a line about what was done, for people.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.stderr, "coffer: "+format+"\n", args...)
}

// printJSON prints one JSON value, for people as well.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/check"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/event"
)

// findingsHelp is what verify and scrub print.
const findingsHelp = `What is found goes to standard output, one line each, and ends with a summary. Kinds of findings:

  damage     stored bytes or names are not what was written
  pending    looks damaged, and may be what the journal of an unclean session puts right: mount the vault once, and check again
  leftover   what an unclean session left: hidden, or put right at its first use
  foreign    a host file that is nobody's, such as a conflict copy of a tool that synchronizes; a mount ignores it
  unchecked  this user may not look at it

With --json each line is a JSON object with the keys kind, path (plain), host (below the vault), bytes {from, to, size} (to is not lost any
more), segment, frame, what and hint, as far as they apply; the last has kind "summary" and the counts. In paths, bytes that cannot be printed
are written as \xNN. Progress goes to standard error.
`

func (a *app) verifyCmd() *cobra.Command {
	var from unlockFlags
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify VAULT",
		Short: "Check every byte of a vault that is not mounted",
		Long: `Check a vault with its key: every name, symlink and extended attribute, and every byte of every file, at the speed of disk or cipher. Nothing is
changed. Exit code 26 says that there is damage, 47 that there is none but what may be pending.

A file that is gone together with its name leaves nothing to find, and so does what was put back as it once was.

The vault must not be mounted for writing: a mount checks what it reads by itself, and what it has not written yet is not in the vault.

` + findingsHelp,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error { return a.verify(args[0], from, o) },
	}
	fl := cmd.Flags()
	from.register(fl)
	fl.BoolVar(&o.json, "json", false, "print JSON, one object a line")
	fl.BoolVar(&o.forceUnlock, "force-unlock", false, "ignore the lock that a host which is gone left in the vault")
	return cmd
}

type verifyOptions struct {
	json        bool
	forceUnlock bool
}

func (a *app) verify(path string, from unlockFlags, o verifyOptions) error {
	path, err := absolute(path)
	if err != nil {
		return err
	}
	cfg, err := a.loadConfig(path)
	if err != nil {
		return err
	}
	if err := checkUnused(path, true); err != nil {
		return err
	}
	mk, _, err := a.unlock(path, cfg, from, "Passphrase")
	if err != nil {
		return err
	}
	out := &findings{w: a.stdout, json: o.json}
	// A copy of a vault that was in use is looked at like any other: nothing is written.
	v, err := vault.Open(path, cfg, mk, vault.OpenOptions{ReadOnly: true, Recover: true, ForceUnlock: o.forceUnlock, Events: out.event})
	mk.Destroy()
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }() // nothing was written
	out.config(cfg)
	engine, err := container.NewEngine(container.EngineConfig{Ring: v.Ring(), Params: v.Params()})
	if err != nil {
		return err
	}
	progress := a.startProgress()
	sum, err := check.Verify(a.ctx, checkConfig(v, engine, len(journalPieces(path)) > 0, out, progress.counts))
	progress.stop()
	return out.end(sum, err, "see what can be saved: coffer verify --repair --dry-run "+quote(path))
}

// checkConfig is how package check sees an open vault.
func checkConfig(v *vault.Vault, engine *container.Engine, pending bool, out *findings, counts *check.Progress) check.Config {
	return check.Config{
		Root: v.Root(), RootID: v.Config().VaultID.Root(), Codec: names.New(v.Ring().Names()), Attrs: xattrs.New(v.Ring().Xattr()), Engine: engine,
		UncleanSeq: v.UncleanSeq, UncleanTime: v.UncleanTime, Unclean: v.Unclean(), Pending: pending && v.Unclean(),
		Found: out.add, Progress: counts,
	}
}

// journalPieces are the pieces of a journal that lie in a vault, whoever left them.
func journalPieces(path string) []string {
	all, err := filepath.Glob(filepath.Join(escapeGlob(path), ".coffer", "journal.*"))
	if err != nil {
		return nil // the pattern is ours
	}
	return all
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// findings prints what a check finds. add is called one at a time.
type findings struct {
	w     io.Writer
	json  bool
	early check.Summary // what was found before the check began
	err   error         // first one of w
}

func (f *findings) add(x check.Finding) {
	x.Path, x.Host, x.What = printable(x.Path), printable(x.Host), oneLine(x.What)
	if f.json {
		f.line(x)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", x.Kind, f.subject(x))
	if r := x.Bytes; r != nil && r.From < r.To {
		fmt.Fprintf(&b, ": bytes %d to %d of %d", r.From, r.To-1, r.Size)
		if x.Segment != nil && x.Path == "" {
			fmt.Fprintf(&b, " from segment %d, frame %d on", *x.Segment, *x.Frame)
		}
	}
	fmt.Fprintf(&b, ": %s", x.What)
	if x.Hint != "" {
		fmt.Fprintf(&b, " (%s)", x.Hint)
	}
	f.print(b.String())
}

// subject is what a finding is about. What shows under no plain name is called by its host name.
func (f *findings) subject(x check.Finding) string {
	switch {
	case x.Hidden && x.Path != "":
		return fmt.Sprintf("in %s: host file %s", x.Path, x.Host)
	case x.Hidden || x.Path == "" && x.Host != "":
		return "host file " + x.Host
	case x.Path == "":
		return "the root directory"
	}
	return x.Path
}

func (f *findings) print(s string) {
	if _, err := fmt.Fprintln(f.w, s); err != nil && f.err == nil {
		f.err = err
	}
}

func (f *findings) line(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		f.err = errors.Join(f.err, err)
		return
	}
	f.print(string(b))
}

// event takes what opening the vault found.
func (f *findings) event(e event.Event) {
	x := check.Finding{Kind: check.Damage, Host: ".coffer/" + e.Object, What: e.Note, Hint: "a mount for writing puts it right"}
	if e.Err != nil {
		x.What = e.Note + ": " + e.Err.Error()
	}
	switch e.Kind {
	case event.Damage:
		f.early.Damage++
	case event.Info, event.Repaired:
		x.Kind, x.Hint = check.Leftover, ""
		f.early.Leftover++
	default:
		return
	}
	f.add(x)
}

// config reports a config that is not what it should be. Its content was proved by then.
func (f *findings) config(cfg *vault.Config) {
	switch w := cfg.Warning(); {
	case w != nil:
		f.early.Damage++
		f.add(check.Finding{Kind: check.Damage, Host: ".coffer/config", What: w.Error(), Hint: "a mount for writing puts it right"})
	case cfg.BackupDiffers():
		f.early.Damage++
		f.add(check.Finding{Kind: check.Damage, Host: ".coffer/config.bak", What: "not the same as config", Hint: "a mount for writing puts it right"})
	}
}

// end prints the summary and answers how the command ends.
func (f *findings) end(sum check.Summary, err error, hint string) error {
	sum.Damage += f.early.Damage
	sum.Leftover += f.early.Leftover
	sum.Pending += f.early.Pending
	sum.Unchecked += f.early.Unchecked
	if f.json {
		f.line(struct {
			Kind     string `json:"kind"`
			Complete bool   `json:"complete"`
			check.Summary
		}{"summary", err == nil, sum})
	} else {
		f.print(summaryLine(sum))
	}
	switch {
	case err != nil:
		return err
	case f.err != nil:
		return failf(exitOther, "", "cannot print what was found: %w", f.err)
	case sum.Damage > 0:
		return failf(exitDamage, hint, "the vault is damaged: %s", amount(sum))
	case sum.Pending > 0:
		return failf(exitPending, "mount the vault once, which replays its journal; then check again", "%d findings may be what an unclean session left half-way", sum.Pending)
	case sum.Unchecked > 0:
		return failf(exitPermission, "run as the vault's owner", "%d objects could not be looked at", sum.Unchecked)
	}
	return nil
}

func amount(sum check.Summary) string {
	return fmt.Sprintf("%d findings, %d bytes lost", sum.Damage, sum.LostBytes)
}

func summaryLine(s check.Summary) string {
	out := fmt.Sprintf("checked %d objects in %d directories, %s of content", s.Objects, s.Directories, humanBytes(s.Bytes))
	for _, x := range []struct {
		n    int
		what string
	}{{s.Damage, "damaged"}, {s.Pending, "pending"}, {s.Leftover, "leftover"}, {s.Foreign, "foreign"}, {s.Unchecked, "unchecked"}} {
		if x.n > 0 {
			out += fmt.Sprintf("; %d %s", x.n, x.what)
		}
	}
	if s.Damage+s.Pending+s.Unchecked == 0 {
		out += "; no damage"
	}
	return out
}

func humanBytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 {
		v, u = v/1024, u+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/cofferfs/coffer/container/check"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/event"
)

// findings prints what a check finds. add is called one at a time.
type findings struct {
	w      io.Writer
	json   bool
	dryRun bool
	early  check.Summary // what was found before the check began
	err    error         // first one of w
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

// vault reports what an open vault has besides its files.
func (f *findings) vault(v *vault.Vault) {
	f.config(v.Config())
	if d := v.JournalDamage(); d != nil {
		f.journal(d)
	}
	if v.View().Torn() {
		f.early.Leftover++
		f.add(check.Finding{Kind: check.Leftover, Host: ".coffer/journal.*", What: "its end is torn, as a power cut leaves what was not synced yet"})
	}
	if v.View() != nil {
		f.early.Leftover++
		f.add(check.Finding{Kind: check.Leftover, Host: ".coffer/journal.*", What: "the journal of a session that did not end cleanly waits to be replayed", Hint: "the next mount does"})
	}
}

// aside reports what repairs put aside.
func (f *findings) aside(path string) {
	all, err := filepath.Glob(filepath.Join(escapeGlob(path), ".coffer", "lost", "*"))
	if err != nil || len(all) == 0 {
		return
	}
	f.early.Leftover++
	f.add(check.Finding{Kind: check.Leftover, Host: ".coffer/lost", What: fmt.Sprintf("%s of damaged journals that a repair put aside", count(len(all), "piece")), Hint: "they can be removed"})
}

// journal reports a journal that is damaged.
func (f *findings) journal(d *redo.Damage) {
	add := func(x check.Finding) {
		f.early.Damage++
		f.add(x)
	}
	add(check.Finding{Kind: check.Damage, Host: ".coffer/journal.*", What: d.String(), Hint: "a repair replays those, and puts the journal aside in .coffer/lost"})
	for _, l := range d.Files {
		x := check.Finding{Kind: check.Damage, Path: l.Plain, Host: strings.Join(l.Path, "/")}
		if x.Host == "" {
			x.Host = "object " + l.ID.String()
		}
		x.What = fmt.Sprintf("%s of it lost with the journal: the file may be as it was before", count(l.Transactions, "change"))
		add(x)
	}
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
	err = f.summary(sum, err, struct {
		Kind     string `json:"kind"`
		Complete bool   `json:"complete"`
		check.Summary
	}{"summary", err == nil, sum})
	switch {
	case err != nil:
		return err
	case sum.Damage > 0:
		return failf(exitDamage, hint, "the vault is damaged: %s", amount(sum))
	case sum.Pending > 0:
		return failf(exitPending, "mount the vault once, which replays its journal; then check again", "%d findings may be what an unclean session left half-way", sum.Pending)
	case sum.Unchecked > 0:
		return failf(exitPermission, "run as the vault's owner", "%d objects could not be looked at", sum.Unchecked)
	}
	return nil
}

// summary prints how a check ended, as line where that is to be JSON, and answers err, or that not all could be printed.
func (f *findings) summary(sum check.Summary, err error, line any) error {
	if f.json {
		f.line(line)
	} else {
		f.print(summaryLine(sum))
	}
	if err == nil && f.err != nil {
		return failf(exitOther, "", "cannot print what was found: %w", f.err)
	}
	return err
}

// action prints what a repair did.
func (f *findings) action(x check.Action) {
	x.Path, x.Host, x.To, x.What = printable(x.Path), printable(x.Host), printable(x.To), oneLine(x.What)
	if f.json {
		f.line(x)
		return
	}
	var b strings.Builder
	if f.dryRun {
		b.WriteString("would be ")
	}
	path := x.Path
	if path == "" {
		path = "/"
	}
	fmt.Fprintf(&b, "%s: %s", x.Result, path)
	if x.To != "" {
		fmt.Fprintf(&b, ": host file %s to %s", x.Host, x.To)
	}
	if x.What != "" {
		fmt.Fprintf(&b, ": %s", x.What)
	}
	for i, l := range x.Lost {
		if i == 0 {
			b.WriteString("; lost: bytes")
		}
		fmt.Fprintf(&b, " %d to %d", l.From, l.To-1)
		if i == len(x.Lost)-1 {
			fmt.Fprintf(&b, " of %d", l.Size)
		} else {
			b.WriteByte(',')
		}
	}
	f.print(b.String())
}

// repaired is end for a repair; kept is how much is damaged still.
func (f *findings) repaired(sum check.Summary, kept int, err error) error {
	sum.Damage += f.early.Damage
	sum.Leftover += f.early.Leftover
	err = f.summary(sum, err, struct {
		Kind     string `json:"kind"`
		Complete bool   `json:"complete"`
		DryRun   bool   `json:"dry_run"`
		check.Summary
		Left int `json:"left"`
	}{"summary", err == nil, f.dryRun, sum, kept})
	switch {
	case err != nil:
		return err
	case kept > 0:
		return failf(exitDamage, "restore it from a backup, or remove it in a mount", "%d things are damaged that a repair cannot help", kept)
	case sum.Unchecked > 0:
		return failf(exitPermission, "run as the vault's owner", "%d objects could not be looked at", sum.Unchecked)
	case f.dryRun && sum.Damage > 0:
		return failf(exitDamage, "run it without --dry-run", "the vault is damaged: %s", amount(sum))
	}
	return nil
}

func amount(sum check.Summary) string {
	return fmt.Sprintf("%s, %s lost", count(sum.Damage, "finding"), count(sum.LostBytes, "byte"))
}

// count is a number and what it counts.
func count[N int | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func summaryLine(s check.Summary) string {
	where := "1 directory"
	if s.Directories != 1 {
		where = fmt.Sprintf("%d directories", s.Directories)
	}
	out := fmt.Sprintf("checked %s in %s, %s of content", count(s.Objects, "object"), where, humanBytes(s.Bytes))
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

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (a *app) statusCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status MOUNTPOINT",
		Short: "Say how a mount is doing",
		Long: `Ask the daemon that serves MOUNTPOINT for its requests, cache, errors, open files and the last things that went wrong. Only the user who
mounted it and root get an answer, and only that user sees plain paths. Asking is no request to the filesystem: it does not keep a mount
with --idle from ending. The daemon is reached by an abstract socket, so from its own network namespace only.`,
		Args: exactArgs("MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error { return a.status(args[0], asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) status(path string, asJSON bool) error {
	m, err := findMount(path)
	if err != nil {
		return err
	}
	r, err := askStatus(m)
	switch {
	case errors.Is(err, unix.ECONNREFUSED) && isDead(m.mountpoint): // only where nobody listens: one that hangs may have taken the request, and then holds up our end
		return failf(exitMountpoint, "clear it with: coffer umount "+quote(m.mountpoint), "%s is a dead mount, left by a killed daemon", m.mountpoint)
	case err != nil:
		return err
	case r.Refused != "":
		return failf(exitPermission, "run as the one who mounted it", "%s: %s", m.mountpoint, r.Refused)
	case asJSON:
		return a.printJSON(r)
	}
	return r.print(a.stdout)
}

func (r *statusReport) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "vault\t%s\n", printable(r.Vault))
	fmt.Fprintf(t, "mounted on\t%s\n", printable(r.Mountpoint))
	fmt.Fprintf(t, "daemon\tcoffer %s, pid %d, up %s\n", r.Version, r.PID, seconds(r.UptimeSeconds))
	idle := ""
	if r.IdleSeconds > 0 {
		idle = ", unmounts when idle for " + seconds(r.IdleSeconds)
	}
	fmt.Fprintf(t, "last request\t%s ago%s\n", seconds(r.QuietSeconds), idle)
	fmt.Fprintf(t, "requests\t%s\n", counts(r.Requests))
	fmt.Fprintf(t, "errors\t%s\n", counts(r.Errors))
	fmt.Fprintf(t, "findings\t%s\n", counts(r.Findings))
	if r.Panics > 0 {
		fmt.Fprintf(t, "panics\t%d: please report what the log says\n", r.Panics)
	}
	c := r.Cache
	fmt.Fprintf(t, "cache\t%d hits, %d misses, %d reads past it; %d bytes clean, %d bytes dirty\n", c.Hits, c.Misses, c.Bypassed, c.Clean, c.Dirty)
	fmt.Fprintf(t, "frames\t%d opened, %d sealed\n", r.Frames.Opened, r.Frames.Sealed)
	fmt.Fprintf(t, "open\t%d files, %d directories\n", r.OpenFiles, r.OpenDirs)
	if err := t.Flush(); err != nil {
		return err
	}
	if r.PathsHidden {
		fmt.Fprintln(w, "\nPaths are shown only to the user who mounted it.")
	}
	if !r.PathsHidden && len(r.Open) > 0 {
		fmt.Fprintln(w, "\nopen files:")
		for _, o := range r.Open {
			fmt.Fprintf(w, "  %s (%d handles, %d may write)\n", o.Path, o.Handles, o.Writers)
		}
		if left := r.OpenFiles - len(r.Open); left > 0 {
			fmt.Fprintf(w, "  and %d more\n", left)
		}
	}
	if len(r.Events) > 0 {
		fmt.Fprintln(w, "\nrecent events:")
		for _, e := range r.Events {
			fmt.Fprintf(w, "  %s\n", e)
		}
	}
	return nil
}

// String is one line: "2026-01-02T15:04:05Z request READ /a/b at byte 4096: EIO".
func (e recentEvent) String() string {
	s := e.Time.Format(time.RFC3339) + " " + e.Kind
	for _, word := range []string{e.What, e.Path} {
		if word != "" {
			s += " " + word
		}
	}
	if e.Path == "" && e.Object != "" {
		s += " " + e.Object
	}
	if e.Offset >= 0 {
		s += fmt.Sprintf(" at byte %d", e.Offset)
	}
	if e.Error != "" {
		s += ": " + e.Error
	}
	return oneLine(s)
}

// counts is "12 LOOKUP, 3 READ", the largest first.
func counts(m map[string]uint64) string {
	if len(m) == 0 {
		return "none"
	}
	names := slices.Sorted(maps.Keys(m))
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case m[a] > m[b]:
			return -1
		case m[a] < m[b]:
			return 1
		}
		return 0
	})
	for i, n := range names {
		names[i] = fmt.Sprintf("%d %s", m[n], n)
	}
	return strings.Join(names, ", ")
}

func seconds(n int64) string { return (time.Duration(n) * time.Second).String() }

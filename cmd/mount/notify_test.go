package main

import (
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// systemd is told when the mount can be used, by both kinds of socket.
func TestNotify(t *testing.T) {
	needFUSE(t, nil)
	for _, abstract := range []bool{false, true} {
		b := newBox(t)
		v, _ := b.newVault("vault")
		mp := b.mkdir("plain")
		name := b.path("notify")
		if abstract {
			name = "@coffer-test-" + strconv.Itoa(os.Getpid())
		}
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		b.env = []string{"NOTIFY_SOCKET=" + name}
		fg := b.foreground(v, mp, "--idle", "1h")
		if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(buf[:n]), "READY=1\nSTATUS=Mounted on "+mp; got != want {
			t.Errorf("systemd is told %q, want %q", got, want)
		}
		l.Close()
		b.ok("", "umount", mp)
		if err := fg.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// A service manager that is not there is no reason to end.
func TestNotifyNobody(t *testing.T) {
	needFUSE(t, nil)
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	b.env = []string{"NOTIFY_SOCKET=" + b.path("nobody")}
	fg := b.foreground(v, mp)
	b.ok("", "umount", mp)
	if err := fg.cmd.Wait(); err != nil || !strings.Contains(fg.stderr.String(), "cannot notify") {
		t.Errorf("%v: %s", err, fg.stderr.String())
	}
}

// The unit calls commands and flags that exist.
func TestServiceUnit(t *testing.T) {
	unit := readFile(t, "packaging/coffer@.service")
	calls := regexp.MustCompile(`(?m)^Exec\w+=-?/usr/bin/env coffer (.*)$`).FindAllStringSubmatch(unit, -1)
	if len(calls) != 3 {
		t.Fatalf("%d calls of coffer", len(calls))
	}
	for _, call := range calls {
		cmd, args, err := (&app{}).rootCmd().Find(strings.Fields(call[1]))
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil {
			t.Errorf("%s: %v", call[1], err)
		}
	}
}

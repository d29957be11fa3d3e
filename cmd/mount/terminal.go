package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// promptSecret asks on the terminal in without echo. An interrupt restores the terminal before it is reported, and so does what else a terminal or a shell
// sends to end a program: otherwise the shell would be left without echo.
func promptSecret(ctx context.Context, in *os.File, prompt string) ([]byte, error) {
	fd := int(in.Fd())
	old, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGQUIT, unix.SIGHUP)
	defer stop()
	out, closeOut := terminalOut()
	defer closeOut()
	fmt.Fprint(out, prompt)

	type answer struct {
		secret []byte
		err    error
	}
	ch := make(chan answer, 1)
	go func() {
		s, err := term.ReadPassword(fd)
		ch <- answer{s, err}
	}()
	select {
	case <-ctx.Done():
		// The reading goroutine stays in its system call: the process ends with this error.
		err := term.Restore(fd, old)
		fmt.Fprintln(out)
		return nil, errors.Join(errInterrupted(), err)
	case a := <-ch:
		fmt.Fprintln(out)
		if errors.Is(a.err, io.EOF) {
			return nil, nil // ^D on an empty line: nothing was entered
		}
		return a.secret, a.err
	}
}

// terminalOut is where a person reads prompts: the controlling terminal, or standard error where there is none.
func terminalOut() (io.Writer, func()) {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return os.Stderr, func() {}
	}
	return tty, func() { _ = tty.Close() }
}

func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

func errInterrupted() error {
	return failf(exitInterrupted, "", "interrupted; nothing was changed")
}

// hasTerminal says whether the process has a controlling terminal.
func hasTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	_ = tty.Close()
	return true
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal with the program running in it; standard output is a pipe of its own.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd
	stdout bytes.Buffer

	mu     sync.Mutex // guards screen
	screen bytes.Buffer
	hungUp chan struct{} // closed when all that was written is in screen, and nobody can write any more
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// start runs the program in a terminal of its own.
func (b *box) start(args ...string) *terminal {
	b.t.Helper()
	master, slave := openPTY(b.t)
	tm := &terminal{t: b.t, master: master, slave: slave, hungUp: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	tm.cmd = b.command(ctx, args...)
	tm.cmd.Stdin, tm.cmd.Stderr, tm.cmd.Stdout = slave, slave, &tm.stdout
	tm.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0, Credential: b.cred}
	if err := tm.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		defer close(tm.hungUp)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			tm.mu.Lock()
			tm.screen.Write(buf[:n])
			tm.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return tm
}

func (tm *terminal) text() string {
	tm.mu.Lock()
	defer tm.mu.Unlock()
	return tm.screen.String()
}

// expect waits until the screen shows text.
func (tm *terminal) expect(text string) {
	tm.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(tm.text(), text) {
			return
		}
	}
	tm.t.Fatalf("the terminal does not show %q but:\n%s", text, tm.text())
}

// expectSecret waits for a prompt and for the echo to be off: what is typed before that would be shown by the terminal itself.
func (tm *terminal) expectSecret(prompt string) {
	tm.t.Helper()
	tm.expect(prompt)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if !tm.echo() {
			return
		}
	}
	tm.t.Fatal("the echo is not switched off")
}

func (tm *terminal) echo() bool {
	tm.t.Helper()
	s, err := unix.IoctlGetTermios(int(tm.master.Fd()), unix.TCGETS) // the slave's, as the program has left it
	if err != nil {
		tm.t.Fatal(err)
	}
	return s.Lflag&unix.ECHO != 0
}

func (tm *terminal) typeLine(text string) {
	tm.t.Helper()
	if _, err := tm.master.WriteString(text + "\n"); err != nil {
		tm.t.Fatal(err)
	}
}

// wait returns the exit code.
func (tm *terminal) wait() int {
	tm.t.Helper()
	_ = tm.cmd.Wait() // the code says it
	tm.slave.Close()
	select {
	case <-tm.hungUp:
	case <-time.After(time.Minute):
		tm.t.Error("a process keeps the terminal open")
	}
	return tm.cmd.ProcessState.ExitCode()
}

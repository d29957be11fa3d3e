package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
)

// The daemon's end of the two pipes.
const (
	jobFD    = 3 // the job on one line, then the bytes of the master key
	reportFD = 4 // one JSON line when the mount answers, or why it does not
)

// mountJob is what the daemon has to do, as decided and checked by the parent. Paths are absolute.
type mountJob struct {
	Vault       string
	Mountpoint  string
	Words       mountWords
	Recover     bool
	ForceUnlock bool
	Idle        time.Duration // 0: never unmounted by itself
	JournalSize int64         // bytes; 0: the default
}

// daemonReport is the daemon's answer to its parent; Code 0 means that the mount is usable.
type daemonReport struct {
	Code    Code
	Message string
	Hint    string
}

// startDaemon re-executes this program in a new session to serve job, and returns when the mount is usable or the daemon said why
// it is not. log becomes its standard error, so that even a crash is in it. The key crosses a pipe only.
func startDaemon(ctx context.Context, job mountJob, mk *keys.MasterKey, log *os.File) error {
	jobR, jobW, err := os.Pipe()
	if err != nil {
		return failf(exitDaemon, "", "cannot start the daemon: %w", err)
	}
	defer jobR.Close()
	defer jobW.Close()
	repR, repW, err := os.Pipe()
	if err != nil {
		return failf(exitDaemon, "", "cannot start the daemon: %w", err)
	}
	defer repR.Close()
	defer repW.Close()

	cmd := exec.Command("/proc/self/exe", serveCommand, job.Vault, job.Mountpoint) // the paths are for ps(1) only
	cmd.Args[0] = "coffer"
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{jobR, repW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return failf(exitDaemon, "", "cannot start the daemon: %w", err)
	}
	// Only the daemon holds these ends from here on, so that its death is seen as the end of the report.
	_ = jobR.Close()
	_ = repW.Close()

	// A job is far smaller than a pipe's buffer: this does not wait for the daemon.
	if err := sendJob(jobW, job, mk); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return failf(exitDaemon, "see its log", "cannot talk to the daemon: %w", err)
	}
	_ = jobW.Close()

	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(unix.SIGTERM) })
	defer stop()
	err = readReport(repR)
	if ctx.Err() != nil {
		_ = cmd.Process.Signal(unix.SIGTERM) // it was usable already when the interrupt came
		_ = cmd.Wait()
		return errInterrupted()
	}
	if err != nil {
		_ = cmd.Wait()
		return err
	}
	return cmd.Process.Release()
}

// sendJob writes the job as gob and not as JSON, which would spoil paths that are not UTF-8.
func sendJob(w io.Writer, job mountJob, mk *keys.MasterKey) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(job); err != nil {
		return err
	}
	if _, err := io.WriteString(w, base64.StdEncoding.EncodeToString(b.Bytes())+"\n"); err != nil {
		return err
	}
	_, err := w.Write(mk.Bytes())
	return err
}

// readReport waits for the daemon's answer.
func readReport(r io.Reader) error {
	line, err := bufio.NewReader(io.LimitReader(r, 64<<10)).ReadBytes('\n')
	var rep daemonReport
	if err == nil {
		err = json.Unmarshal(line, &rep)
	}
	if err != nil {
		return failf(exitDaemon, "see its log (--log FILE, or coffer.log in the state directory)", "the daemon died before the mount was usable")
	}
	if rep.Code != exitOK {
		return &exitError{code: rep.Code, hint: rep.Hint, err: errors.New(rep.Message)}
	}
	return nil
}

// serveCommand is the hidden command that a daemon runs as.
const serveCommand = "serve"

func (a *app) serveCmd() *cobra.Command {
	return &cobra.Command{
		Use:    serveCommand + " VAULT MOUNTPOINT",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(*cobra.Command, []string) error {
			return a.runDaemon()
		},
	}
}

// runDaemon is the daemon's half: take job and key, serve, report.
func (a *app) runDaemon() error {
	if !isPipe(jobFD) || !isPipe(reportFD) {
		return failf(exitUsage, "use: coffer mount", "this command is for coffer's own use")
	}
	// What was started as /proc/self/exe is "exe" to top, pgrep and killall. Another name is no reason to fail.
	_ = os.WriteFile("/proc/self/comm", []byte("coffer"), 0)
	unix.CloseOnExec(jobFD) // fusermount3 and the KDF must not inherit them
	unix.CloseOnExec(reportFD)
	report := os.NewFile(reportFD, "report")
	job, mk, err := receiveJob(os.NewFile(jobFD, "job"))
	if err == nil {
		defer mk.Destroy()
		log := newLogger(a.stderr, job.Vault)
		usable := false
		err = serve(job, mk, log, a.takeSignals(), func() {
			usable = true
			sendReport(report, daemonReport{})
		})
		switch {
		case err != nil && usable:
			log.Error("the daemon ends with an error", "err", err)
		case err != nil:
			log.Info("not mounted", "err", err) // the parent tells the user
		}
	}
	if err != nil {
		var e *exitError
		if !errors.As(err, &e) {
			errors.As(classify(err), &e)
		}
		// Where the mount was usable the parent is long gone, and the log has it.
		sendReport(report, daemonReport{Code: e.code, Message: err.Error(), Hint: e.hint})
		return &exitError{code: e.code, err: errReported}
	}
	return nil
}

// errReported marks an error that was reported elsewhere: run prints nothing for it.
var errReported = errors.New("reported")

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

func receiveJob(f *os.File) (mountJob, *keys.MasterKey, error) {
	defer f.Close()
	var job mountJob
	line, err := readLine(f)
	if err == nil {
		err = gob.NewDecoder(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(line))).Decode(&job)
	}
	if err != nil {
		return job, nil, failf(exitDaemon, "", "the job did not arrive: %w", err)
	}
	var key [keys.MasterKeySize]byte
	defer clear(key[:])
	if _, err := io.ReadFull(f, key[:]); err != nil {
		return job, nil, failf(exitDaemon, "", "the key did not arrive: %w", err)
	}
	mk, err := keys.MasterKeyFrom(key[:])
	if err != nil {
		return job, nil, failf(exitDaemon, "", "%w", err)
	}
	return job, mk, nil
}

// sendReport writes one report and closes the pipe; only the first one of a daemon reaches anybody.
func sendReport(f *os.File, rep daemonReport) {
	line, err := json.Marshal(rep)
	if err != nil {
		line = fmt.Appendf(nil, `{"Code":%d}`, exitDaemon)
	}
	_, _ = f.Write(append(line, '\n'))
	_ = f.Close()
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// releasePoll is how often umount looks whether the daemon has let go of the vault.
const releasePoll = 20 * time.Millisecond

func (a *app) umountCmd() *cobra.Command {
	var timeout time.Duration
	var lazy bool
	cmd := &cobra.Command{
		Use:     "umount MOUNTPOINT",
		Aliases: []string{"unmount"},
		Short:   "Unmount a vault and wait until everything is on the host",
		Long: `Unmount what is mounted on MOUNTPOINT and return when the daemon has handed everything to the host, marked the vault clean and
released it. A mount that is busy stays mounted, and those who use it are named. With --lazy it is detached then: nobody else can enter, those
who are in go on, and the daemon ends, with everything on the host, when the last of them is gone; the command does not wait for that.
What a killed daemon left mounted is cleared.`,
		Args: exactArgs("MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.umount(args[0], timeout, lazy)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "wait no longer than `DURATION` for the daemon after the mount is gone")
	cmd.Flags().BoolVar(&lazy, "lazy", false, "detach a mount that is busy, and let its daemon end when the last user is gone")
	return cmd
}

// findMount returns the coffer mount at path, a dead one too.
func findMount(path string) (mountEntry, error) {
	mountpoint, err := resolveMountpoint(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mountEntry{}, failf(exitMountpoint, "check the path", "%s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return mountEntry{}, failf(exitPermission, "run as the one who mounted it", "mount point: %w", err)
	case err != nil:
		return mountEntry{}, failf(exitMountpoint, "check the path", "mount point: %w", err)
	}
	m, ok, err := mountAt(mountpoint)
	switch {
	case err != nil:
		return mountEntry{}, failf(exitOther, "", "cannot read the mounts: %w", err)
	case !ok:
		if _, err := os.Stat(mountpoint); errors.Is(err, fs.ErrNotExist) {
			return mountEntry{}, failf(exitMountpoint, "check the path", "%s does not exist", mountpoint)
		}
		return mountEntry{}, failf(exitMountpoint, "mounts are listed by: findmnt -t "+fsType, "nothing is mounted on %s", mountpoint)
	case m.fsType != fsType:
		return mountEntry{}, failf(exitMountpoint, "use: umount "+quote(mountpoint), "%s is not a coffer mount but %s", mountpoint, m.fsType)
	}
	return m, nil
}

func (a *app) umount(path string, timeout time.Duration, lazy bool) error {
	m, err := findMount(path)
	if err != nil {
		return err
	}
	mountpoint := m.mountpoint
	if uid := os.Geteuid(); uid != 0 && m.owner != uint32(uid) {
		return noUnmount(mountpoint)
	}
	daemon := findDaemon(m)
	defer daemon.close()
	if daemon.pidfd < 0 { // only then: to ask one that hangs would keep its mount busy
		note, err := clearDeadMount(mountpoint)
		if err != nil {
			return err
		}
		if note != "" {
			a.say("%s", note)
			return nil
		}
	}
	switch err := unmountBusy(mountpoint); {
	case errors.Is(err, unix.EBUSY) && lazy:
		return a.detach(m, daemon)
	case errors.Is(err, unix.EBUSY):
		return busyError(mountpoint, m.dev())
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return noUnmount(mountpoint)
	case err != nil:
		return failf(exitOther, "", "cannot unmount %s: %w", mountpoint, err)
	}
	if err := a.awaitDaemon(daemon, mountpoint, timeout); err != nil {
		return err
	}
	return daemon.leftClean(mountpoint)
}

func noUnmount(mountpoint string) error {
	return failf(exitPermission, "run as the one who mounted it, or as root", "no permission to unmount %s", mountpoint)
}

// detach takes a busy mount out of the tree and leaves its daemon to those who still use it.
func (a *app) detach(m mountEntry, d daemon) error {
	by := users(m.mountpoint, m.dev())
	if err := unmountPath(m.mountpoint, true); err != nil {
		return failf(exitOther, "", "cannot detach %s: %w", m.mountpoint, err)
	}
	who := "its daemon"
	if d.pid > 0 {
		who += fmt.Sprintf(" (pid %d)", d.pid)
	}
	a.say("detached %s, still used by %s: %s ends when the last of them is gone; until then the vault is in use", oneLine(m.mountpoint), by, who)
	return nil
}

// daemon is the process that serves a mount, found before the mount goes: the pid may be another's afterwards, the pidfd not.
type daemon struct {
	pid   int
	pidfd int    // -1: not known, then there is nothing to wait for
	vault string // that it held for writing, "" where that is not known
}

func (d daemon) close() {
	if d.pidfd >= 0 {
		_ = unix.Close(d.pidfd)
	}
}

// findDaemon finds who serves a mount: by the note in the vault's lock where the mount's source names the vault, as it does unless
// fsname= was given or it is mounted for reading only, else by the arguments of the running processes.
func findDaemon(m mountEntry) daemon {
	none := daemon{pidfd: -1}
	pid, vault := 0, ""
	if filepath.IsAbs(m.source) {
		if s := peekLock(m.source); s.Holder.Mountpoint == m.mountpoint {
			pid, vault = s.Holder.PID, m.source
		}
	}
	if pid == 0 {
		pid = daemonByArgs(m.mountpoint)
	}
	if pid <= 0 || pid == os.Getpid() {
		return none
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return none
	}
	return daemon{pid: pid, pidfd: fd, vault: vault}
}

// leftClean says so where a daemon that has ended could not bring everything to the host: its vault is not clean, and nobody else has it.
func (d daemon) leftClean(mountpoint string) error {
	if d.vault == "" {
		return nil
	}
	if clean, ok := peekState(d.vault); !ok || clean || peekLock(d.vault).Writer {
		return nil
	}
	return failf(exitOther, "see its log; make room on the host if it is full; the next mount replays what is in the journal",
		"%s is unmounted, but the daemon could not bring everything to the host", mountpoint)
}

// daemonByArgs looks for "coffer serve VAULT MOUNTPOINT" among the processes.
func daemonByArgs(mountpoint string) int {
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0
	}
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
		if len(args) == 4 && args[0] == "coffer" && args[1] == serveCommand && args[3] == mountpoint {
			var pid int
			if _, err := fmt.Sscanf(p, "/proc/%d/", &pid); err == nil {
				return pid
			}
		}
	}
	return 0
}

// awaitDaemon waits for the end of the daemon: then the vault is clean and released.
func (a *app) awaitDaemon(d daemon, mountpoint string, timeout time.Duration) error {
	if d.pidfd < 0 {
		return nil
	}
	deadline := time.Now().Add(timeout)
	fds := []unix.PollFd{{Fd: int32(d.pidfd), Events: unix.POLLIN}}
	for {
		if a.ctx.Err() != nil {
			return failf(exitInterrupted, "the daemon goes on by itself", "interrupted: %s is unmounted, but the daemon (pid %d) still writes to the vault", mountpoint, d.pid)
		}
		n, err := unix.Poll(fds, int(releasePoll.Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return failf(exitOther, "", "cannot wait for the daemon (pid %d): %w", d.pid, err)
		case time.Now().After(deadline):
			return failf(exitInUse, "wait, and see its log", "%s is unmounted, but the daemon (pid %d) still writes to the vault after %s", mountpoint, d.pid, timeout)
		}
	}
}

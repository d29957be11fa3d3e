package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Some tests need a second process: another user, another owner of locks, or memory mapped from the mount (a page fault in this
// process would stop the Go runtime while the fault waits for this very process to answer).

const childEnv = "COFFER_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		unix.Umask(0)
		if err := child(what, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, what, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	unix.Umask(0o022)
	// For the children: the race detector would sleep a second at the end of each. Here it has begun already.
	if err := os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// runChild runs one of child's programs as a user.
func runChild(t *testing.T, uid uint32, what string, args ...string) error {
	t.Helper()
	_, err := tryChild(t, uid, what, args...)
	return err
}

// childOutput is runChild for a program that prints something and must not fail.
func childOutput(t *testing.T, uid uint32, what string, args ...string) string {
	t.Helper()
	out, err := tryChild(t, uid, what, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryChild(t *testing.T, uid uint32, what string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	if uid != uint32(os.Geteuid()) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s as %d: %w: %s", what, uid, err, strings.TrimSpace(out.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

const nobody = 65534

func child(what string, args []string) error {
	switch what {
	case "append": // FILE DATA
		f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(args[1])
		return errors.Join(err, f.Close())
	case "create": // FILE
		fd, err := unix.Open(args[0], unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL, 0o6777)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case "tmpfile": // DIR NAME
		fd, err := unix.Open(args[0], unix.O_TMPFILE|unix.O_RDWR, 0o666)
		if err != nil {
			return err
		}
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, args[1], unix.AT_SYMLINK_FOLLOW)
	case "daemon": // VAULT MOUNTPOINT
		return childDaemon(args[0], args[1])
	case "copy": // FROM TO
		return childCopy(args[0], args[1])
	case "direct": // FILE
		fd, err := unix.Open(args[0], unix.O_WRONLY|unix.O_DIRECT, 0)
		if err != nil {
			return err
		}
		page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		_, err = unix.Pwrite(fd, page, 0)
		return errors.Join(err, unix.Close(fd))
	case "fsize": // FILE SOURCE
		return childFileSize(args[0], args[1])
	case "truncate": // FILE
		return os.Truncate(args[0], 1)
	case "opentrunc": // FILE
		f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		return f.Close()
	case "read": // FILE
		_, err := os.ReadFile(args[0])
		return err
	case "listxattr": // FILE
		buf := make([]byte, 4096)
		n, err := unix.Llistxattr(args[0], buf)
		if err != nil {
			return err
		}
		fmt.Println(strings.Join(sorted(string(buf[:n])), " "))
		return nil
	case "setxattr": // FILE NAME VALUE
		return unix.Lsetxattr(args[0], args[1], []byte(args[2]), 0)
	case "lock": // FILE: fails where the parent holds locks
		return childLock(args[0])
	case "mmap": // FILE
		return childMmap(args[0])
	}
	return errors.New("no such program")
}

func childCopy(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	_, err = unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, 1000, 0)
	return errors.Join(err, src.Close(), dst.Close())
}

// childFileSize may make files of 50,000 bytes, and tries to make a longer one in all ways that there are.
func childFileSize(path, source string) error {
	const limit = 50_000
	signals := make(chan os.Signal, 100)
	signal.Notify(signals, unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	src, err := os.Open(source)
	if err != nil {
		return err
	}
	defer src.Close()
	fd, off := int(f.Fd()), int64(limit)
	for what, grow := range map[string]func() error{
		"write":           func() error { _, err := unix.Pwrite(fd, []byte("x"), limit); return err },
		"copy_file_range": func() error { _, err := unix.CopyFileRange(int(src.Fd()), nil, fd, &off, 100, 0); return err },
		"truncate":        func() error { return f.Truncate(limit + 1) },
		"fallocate":       func() error { return unix.Fallocate(fd, 0, 0, limit+1) },
	} {
		if err := grow(); !errors.Is(err, unix.EFBIG) {
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-signals:
		case <-time.After(time.Minute):
			return errors.New("no SIGXFSZ")
		}
	}
	if n, err := unix.Pwrite(fd, make([]byte, 1000), limit-10); n != 10 || err != nil {
		return fmt.Errorf("write up to the limit: %d, %w", n, err)
	}
	return nil
}

func childLock(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("flock: %w", err)
	}
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: 10, Len: 10}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lk); err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	return nil
}

// childMmap writes through a shared mapping, sees write(2) in it, and keeps a private one to itself.
func childMmap(path string) error {
	const size = 64 << 10
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	shared, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("shared: %w", err)
	}
	private, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("private: %w", err)
	}
	for i := range size {
		if shared[i] != pattern(int64(i)) || private[i] != pattern(int64(i)) {
			return fmt.Errorf("byte %d differs", i)
		}
	}
	copy(private[100:], "private")
	copy(shared[5000:], "shared")
	if _, err := f.WriteAt([]byte("written"), 9000); err != nil {
		return err
	}
	if string(shared[9000:9007]) != "written" {
		return errors.New("a write is not seen in the mapping")
	}
	var got [7]byte
	if _, err := f.ReadAt(got[:], 5000); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(got[:6]) != "shared" {
		return errors.New("the mapping's bytes are not read")
	}
	if err := unix.Msync(shared, unix.MS_SYNC); err != nil {
		return fmt.Errorf("msync: %w", err)
	}
	copy(shared[20000:], "unsynced")
	return errors.Join(unix.Munmap(shared), unix.Munmap(private))
}

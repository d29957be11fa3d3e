package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/fs"
	"github.com/cofferfs/coffer/internal/event"
)

// stack is a mounted vault.
type stack struct {
	*fs.Stack
	watch   *fs.Watch
	freezer *fs.Freezer
	record  recorder
}

// serve opens the vault, mounts it, calls ready when the mount answers, and serves until it is unmounted or a signal asks for it. It
// returns when everything is on the host and the vault is released. mk is the caller's.
func serve(job mountJob, mk *keys.MasterKey, log *slog.Logger, signals <-chan os.Signal, ready func()) error {
	if err := raiseFileLimit(); err != nil {
		log.Info("cannot raise the limit of open files", "err", err)
	}
	tuneMemory()
	unix.Umask(0) // the kernel has applied the caller's umask to every mode that arrives
	s, err := openStack(job, mk, log)
	if err != nil {
		return err
	}
	doubleProcs()
	server, err := s.mount(job)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	doubleProcs()
	m, _, err := mountAt(job.Mountpoint)
	if err != nil {
		log.Info("cannot read the mounts", "err", err)
	}
	log.Info("mounted", "mountpoint", job.Mountpoint, "pid", os.Getpid(), "device", fmt.Sprintf("%d:%d", m.major, m.minor))
	debug.FreeOSMemory()
	mon := &monitor{job: job, stack: s, started: time.Now()}
	asks, err := listen(statusAddr(m))
	if err != nil {
		log.Info("there will be no status", "err", err)
	} else {
		go mon.serveStatus(asks)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	control := &controller{stack: s, ctx: ctx}
	orders, err := listen(controlAddr(m))
	if err != nil {
		log.Info("it cannot be frozen and not verified", "err", err)
	} else {
		control.start(orders)
	}
	ready()

	ended := make(chan struct{})
	go func() {
		server.Wait()
		close(ended)
	}()
	idle := idler{after: job.Idle, quiet: s.watch.Quiet, inUse: func() bool { return s.FS.InUse() || control.checks.Load() > 0 }}
	s.wait(ended, signals, idle, log, func() error { return unmountOwn(job.Mountpoint, m) })
	// Not at the end: another mount may have the device number by now, and wants the sockets' names.
	_ = asks.Close() // of nil, too
	_ = orders.Close()
	cancel()
	control.orders.Wait()
	_ = s.freezer.Thaw() // as above; nor may its time run out from here on
	if err := s.Close(); err != nil {
		return err
	}
	log.Info("unmounted; everything is on the host")
	return nil
}

// wait returns when the mount has ended. Until then it unmounts where a signal asks for it, and when the mount is idle.
func (s *stack) wait(ended <-chan struct{}, signals <-chan os.Signal, idle idler, log *slog.Logger, unmount func() error) {
	alarm := time.NewTimer(idle.after)
	if idle.after == 0 {
		alarm.Stop()
	}
	for {
		select {
		case <-ended:
			return
		case <-alarm.C:
			alarm.Reset(idle.end(log, unmount))
		case sig := <-signals:
			log.Info("asked to unmount", "signal", sig.String())
			_ = s.freezer.Thaw() // what the kernel still holds has to pass; most often it is not frozen
			if err := unmount(); err != nil {
				log.Warn("still mounted, and goes on serving", "err", err)
			}
		}
	}
}

// openStack opens the layers; what it opened is closed again where it fails.
func openStack(job mountJob, mk *keys.MasterKey, log *slog.Logger) (*stack, error) {
	cfg, err := vault.ReadConfig(job.Vault)
	if err != nil {
		return nil, err
	}
	cfg.Derive = deriver()
	s := &stack{}
	logged := (&eventLog{log: log}).sink
	sink := func(e event.Event) {
		logged(e)
		s.record.sink(e)
	}
	v, err := vault.Open(job.Vault, cfg, mk, vault.OpenOptions{
		ReadOnly: job.Words.ReadOnly, NoAtime: job.Words.NoAtime, Recover: job.Recover, ForceUnlock: job.ForceUnlock, Mountpoint: job.Mountpoint, Events: sink,
	})
	if err != nil {
		return nil, err
	}
	s.Stack, err = fs.NewStack(v, fs.StackConfig{
		WriteBack: !job.Words.NoWriteBack, ACL: job.Words.ACL, JournalSize: job.JournalSize, Events: sink, Log: log,
	})
	if err != nil {
		return nil, err
	}
	s.watch = fs.NewWatch(s.FS, s.record.failed)
	s.freezer = fs.NewFreezer(s.Stack, s.watch, sink)
	return s, nil
}

func (s *stack) mount(job mountJob) (*fuse.Server, error) {
	server, err := fs.Mount(s.FS, fs.MountOptions{
		Mountpoint: job.Mountpoint, AllowOther: job.Words.AllowOther, FsName: job.Words.FsName, Options: job.Words.flags(),
		Wrap:     func(fuse.RawFileSystem) fuse.RawFileSystem { return s.watch },
		NoXAttrs: job.Words.NoXAttr,
	})
	if err != nil {
		return nil, failf(exitFUSE, "the log has what fusermount3 or the kernel said: see --log in coffer help mount", "mount: %w", err)
	}
	return server, nil
}

// unmountOwn unmounts our own mount m, and nothing else that may have taken its place at the mount point.
func unmountOwn(mountpoint string, m mountEntry) error {
	now, ok, err := mountAt(mountpoint)
	switch {
	case err != nil:
		return err
	case !ok || now.dev() != m.dev():
		return failf(exitBusy, "end them", "detached from %s but still in use by %s", mountpoint, joinHolders(holders(m.dev())))
	}
	err = unmountBusy(mountpoint)
	if errors.Is(err, unix.EBUSY) {
		return busyError(mountpoint, m.dev())
	}
	return err
}

// doubleProcs lets twice as many threads run Go code, unless the environment says how many. A request waits for the
// host in a system call, and the runtime gives the place of a thread that waits to another one only after some time: with as many as processors, other
// requests wait as well. Four jobs that read 4 KiB at random, cold, on two processors: 14.3k reads a second with 2, 21.7k with 8; nothing else got slower.
//
// It is called before the server is made and after: as many goroutines wait for requests as there are places when that begins, and one more, each with its
// place. Were these all that there are, the runtime (sysmon in Go 1.26) would look every 20 µs for one to take away, and each request would have to get
// one back. With fewer that wait, new ones would be started all the time.
func doubleProcs() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/cofferfs/coffer/container/check"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/fs"
)

// checkConfig is what a check needs of an open vault.
func checkConfig(s *fs.Stack) check.Config {
	v := s.Vault
	return check.Config{
		Root: v.Root(), RootID: v.Config().VaultID.Root(), Codec: names.New(v.Ring().Names()), Attrs: xattrs.New(v.Ring().Xattr()), Engine: s.Engine,
		UncleanSeq: v.UncleanSeq, UncleanTime: v.UncleanTime, Unclean: v.Unclean(),
	}
}

const (
	verifyTick = 500 * time.Millisecond // between two words of progress
	// verifyPatience is how long whoever asked may leave what was found unread, as a pager does.
	verifyPatience = 10 * time.Minute
)

// verifyNews is what a daemon sends while it verifies. The last has Summary.
type verifyNews struct {
	Finding *check.Finding `json:"finding,omitempty"`
	Objects int64          `json:"objects,omitempty"`
	Bytes   int64          `json:"bytes,omitempty"`
	Summary *check.Summary `json:"summary,omitempty"`
	orderReply
}

// verify checks the vault while it is mounted, and sends what it finds to c until whoever asked has gone, or the mount has.
func (o *controller) verify(c *net.UnixConn) error {
	o.checks.Add(1)
	defer o.checks.Add(-1)
	ctx, cancel := context.WithCancel(o.ctx)
	defer cancel()
	var mu sync.Mutex // one document at a time
	send := func(n verifyNews) {
		mu.Lock()
		defer mu.Unlock()
		_ = c.SetWriteDeadline(time.Now().Add(verifyPatience))
		if json.NewEncoder(c).Encode(n) != nil {
			cancel()
		}
	}
	cfg := checkConfig(o.stack.Stack)
	cfg.Live = &check.Live{Hold: o.stack.freezer.Hold, HoldSynced: o.stack.freezer.HoldSynced, InSession: o.stack.Vault.InSession}
	cfg.Progress = new(check.Progress)
	cfg.Found = func(f check.Finding) {
		f.Path, f.Host = printable(f.Path), printable(f.Host) // JSON has no other bytes than UTF-8
		send(verifyNews{Finding: &f})
	}
	var telling sync.WaitGroup
	telling.Go(func() {
		tick := time.NewTicker(verifyTick)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				send(verifyNews{Objects: cfg.Progress.Objects.Load(), Bytes: cfg.Progress.Bytes.Load()})
			}
		}
	})
	sum, err := check.Verify(ctx, cfg)
	cancel()
	telling.Wait()
	if err == nil {
		send(verifyNews{Summary: &sum})
	}
	return err
}

// verifyMounted has the daemon that has a vault mounted verify it. out gets what is found.
func (a *app) verifyMounted(path string, holder vault.Holder, mode string, out *findings) error {
	use := &vault.InUseError{Holder: holder, Reason: "it is mounted"}
	if holder.Mountpoint == "" {
		return inUse(use)
	}
	m, err := findMount(holder.Mountpoint)
	if err != nil {
		return errors.Join(inUse(use), err)
	}
	c, err := sendOrder(m, order{Do: orderVerify})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(a.ctx, func() { _ = c.Close() })()
	a.checkMountedConfig(path, out)
	counts := new(check.Progress)
	defer a.showChecked(mode, counts).stop()
	news := json.NewDecoder(c)
	for {
		var n verifyNews
		err := news.Decode(&n)
		switch {
		case a.ctx.Err() != nil:
			err = a.ctx.Err()
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			err = failf(exitDaemon, "", "the daemon of %s ended before it had seen all", m.mountpoint)
		case err != nil:
			err = failf(exitDaemon, "", "the daemon of %s: %w", m.mountpoint, err)
		default:
			err = n.failed(m, "")
		}
		switch {
		case err != nil:
			return err
		case n.Summary != nil:
			return out.end(*n.Summary, nil, "unmount it, and see what can be saved: coffer verify --repair --dry-run "+quote(path))
		case n.Finding != nil:
			out.add(*n.Finding)
		default:
			counts.Objects.Store(n.Objects)
			counts.Bytes.Store(n.Bytes)
		}
	}
}

// checkMountedConfig looks at the config of a vault that is mounted: its key slots were read then, and may have rotted since.
func (a *app) checkMountedConfig(path string, out *findings) {
	cfg, err := vault.ReadConfig(path)
	if err == nil {
		out.config(cfg)
		return
	}
	out.early.Damage++
	out.add(check.Finding{Kind: check.Damage, Host: ".coffer/config", What: err.Error(), Hint: "coffer recover makes a new one"})
}

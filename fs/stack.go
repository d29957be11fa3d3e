package fs

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"golang.org/x/sys/unix"
)

// Stack is every layer of a vault that is in use, from the host up.
type Stack struct {
	Vault  *vault.Vault
	Engine *container.Engine
	Cache  *cache.Cache
	Tree   *dirs.Tree
	FS     *FS
	Attrs  *xattrs.Codec

	events event.Sink
}

// StackConfig says what NewStack puts together, and how.
type StackConfig struct {
	WriteBack   bool // see Config
	ACL         bool
	JournalSize int64 // 0: journal.DefaultSize
	MaxNodes    int   // see Config
	NoJournal   bool  // for who makes new files only, and none that anybody reads before it is synced
	Workers     int   // of the frame pool; 0: as many as processors
	Events      event.Sink
	Log         *slog.Logger
}

// NewStack builds the layers over an open vault, which it takes over: on an error it is closed.
func NewStack(v *vault.Vault, c StackConfig) (*Stack, error) {
	s := &Stack{Vault: v, events: c.Events}
	if err := s.build(c); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stack) build(c StackConfig) (err error) {
	v := s.Vault
	engine := container.EngineConfig{Ring: v.Ring(), Params: v.Params(), Workers: c.Workers, Events: c.Events, View: v.View()}
	if !v.ReadOnly() && !c.NoJournal {
		j := v.Journal()
		j.Size = c.JournalSize
		engine.Journal, engine.Host = &j, v.Root()
	}
	if s.Engine, err = container.NewEngine(engine); err != nil {
		return err
	}
	s.Cache = cache.New(cache.Config{Events: c.Events})
	s.Attrs = xattrs.New(v.Ring().Xattr())
	var seal *xattrs.Codec
	if unix.Geteuid() != 0 {
		seal = s.Attrs
	}
	s.Tree, err = dirs.New(dirs.Config{
		Root: v.Root(), RootID: v.Config().VaultID.Root(), Codec: names.New(v.Ring().Names()), Geometry: v.GeometryID(),
		NextSeq: v.NextSeq, SawSeq: v.SawSeq, Headerless: s.headerless, CleanSeq: s.cleanSeq, ReadOnly: v.ReadOnly(), Events: c.Events,
		Seal: seal, ACL: c.ACL, Intend: s.Engine.Intend(),
	})
	if err != nil {
		return err
	}
	s.FS = New(Config{
		Tree: s.Tree, Engine: s.Engine, Cache: s.Cache, Attrs: s.Attrs, UncleanSeq: v.UncleanSeq, UncleanTime: v.UncleanTime, InSession: v.InSession,
		Ctimes: v.Ctimes(), ReadOnly: v.ReadOnly(), WriteBack: c.WriteBack, ACL: c.ACL, MaxNodes: c.MaxNodes, Events: c.Events, Log: c.Log,
	})
	return nil
}

// headerless tells dirs whether a file whose link says that it may have no header lies in an unclean session and indeed has
// none (FORMAT.md sections 8.1 and 8.2).
func (s *Stack) headerless(l names.Link, d disk.Dir, host string) bool {
	return l.Flags.MayLackHeader(l.Seq, s.Vault.UncleanSeq) && s.Engine.LacksHeader(d, host, l.ID)
}

// cleanSeq tells dirs whether all of a file is durable since the session of its link ended cleanly.
func (s *Stack) cleanSeq(seq uint64) bool { return !s.Vault.InSession(seq) && !s.Vault.UncleanSeq(seq) }

// Close hands everything to the host, from the top, and releases the vault. After a failure the vault is not marked clean, and the journal stays: the
// next mount then knows what to look at.
func (s *Stack) Close() error {
	var errs []error
	if s.FS != nil {
		errs = append(errs, s.FS.Close())
	}
	if s.Cache != nil {
		errs = append(errs, s.Cache.Close())
	}
	if s.Tree != nil {
		errs = append(errs, s.Tree.Close())
	}
	if s.Engine != nil {
		errs = append(errs, s.Engine.Close(errors.Join(errs...) == nil))
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(fmt.Errorf("not everything could be handed to the host: %w", err), s.Vault.CloseUnclean())
	}
	s.saveCtimes()
	return s.Vault.Close()
}

// saveCtimes tells the next session which ctimes files had. No data is lost by a failure.
func (s *Stack) saveCtimes() {
	if s.FS == nil || s.Vault.ReadOnly() {
		return
	}
	if of := s.FS.changedCtimes(); of != nil {
		if err := s.Vault.SaveCtimes(of); err != nil {
			s.events.Emit(event.Event{Kind: event.Failed, Offset: -1, Err: err, Note: "some files will show a later ctime"})
		}
	}
}

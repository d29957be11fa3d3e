package check

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// ScrubConfig says what a scrub works on. No key is needed.
type ScrubConfig struct {
	Root disk.Dir // the vault's directory on the host; stays the caller's
	// Vault is the id that containers must state; nil where the config is lost.
	Vault *keys.VaultID
	// Pending: the vault was not closed cleanly, so that a file may be half-way through a change. What looks damaged is then Pending.
	Pending bool

	Found    func(Finding) // called one at a time; may be nil
	Progress *Progress     // may be nil
}

// scrubber is one run of Scrub.
type scrubber struct {
	ScrubConfig
	report
	eng    *container.Scrubber
	jobs   jobs
	linked map[uint64]bool // inodes with several names that were met
}

// Scrub checks every host file of the vault that has the form of a container's name, by its CRCs and digests. The error is that of ctx; whatever
// else goes wrong is a finding.
func Scrub(ctx context.Context, cfg ScrubConfig) (Summary, error) {
	if cfg.Progress == nil {
		cfg.Progress = new(Progress)
	}
	s := &scrubber{ScrubConfig: cfg, report: report{found: cfg.Found}, eng: container.NewScrubber(0), jobs: newJobs(), linked: map[uint64]bool{}}
	err := disk.Walk(cfg.Root, new(place), func(d disk.Dir, at *place, err error) ([]disk.Below[*place], error) {
		return s.directory(ctx, d, at, err)
	})
	s.jobs.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return s.sum, err
}

// directory checks what is in one directory, and answers its subdirectories. err says why it could not be opened.
func (s *scrubber) directory(ctx context.Context, fd disk.Dir, at *place, err error) (subdirs []disk.Below[*place], _ error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		s.add(Finding{Kind: kindOf(err), Host: at.hostPath(), What: fmt.Sprintf("the directory cannot be opened: %v", err)})
		return nil, nil
	}
	s.count(func(sum *Summary) { sum.Directories++ })
	var all []string
	err = fd.List(func(name string, _ uint64, _ uint8) error {
		if at.up != nil || name != configDir {
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		s.add(Finding{Kind: kindOf(err), Host: at.hostPath(), What: fmt.Sprintf("the directory cannot be listed: %v", err)})
	}
	for _, name := range all {
		if s.object(ctx, fd, at, name) {
			subdirs = append(subdirs, disk.Below[*place]{Name: name, At: &place{up: at, host: name}})
		}
	}
	return subdirs, nil
}

// object checks an object, and reports whether it is a directory to go into.
func (s *scrubber) object(ctx context.Context, fd disk.Dir, at *place, name string) bool {
	if names.IsSidecar(name) {
		return false // nothing in it can be checked without a key
	}
	o := &object{at: at, host: name}
	if !names.HasForm(name) {
		s.add(Finding{Kind: Foreign, Host: o.hostPath(), What: "a foreign object", Hint: foreignHint(name)})
		return false
	}
	s.Progress.Objects.Add(1)
	s.count(func(sum *Summary) { sum.Objects++ })
	err := fd.Stat(name, &o.st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false
	case err != nil:
		s.add(Finding{Kind: kindOf(err), Host: o.hostPath(), What: fmt.Sprintf("the object cannot be looked at: %v", err)})
		return false
	case o.st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return true
	case o.st.Mode&unix.S_IFMT != unix.S_IFREG, s.linked[o.st.Ino]:
		return false
	case o.st.Nlink > 1:
		s.linked[o.st.Ino] = true
	}
	h, err := fd.Open(name, disk.ReadOnly)
	if err != nil {
		s.add(Finding{Kind: kindOf(err), Host: o.hostPath(), What: fmt.Sprintf("the host file cannot be opened: %v", err)})
		return false
	}
	s.jobs.run(func() {
		defer h.Close()
		s.content(ctx, h, o)
	})
	return false
}

// damage is Pending where a replay may put it right.
func (s *scrubber) damage(err error) Kind {
	if kind := kindOf(err); kind != Damage || !s.Pending {
		return kind
	}
	return Pending
}

func (s *scrubber) content(ctx context.Context, h disk.File, o *object) {
	got, err := s.eng.Scrub(ctx, h, func(n int64) { s.Progress.Bytes.Add(n) })
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		f := Finding{Kind: s.damage(err), Host: o.hostPath(), What: err.Error()}
		if errors.Is(err, container.ErrVersion) || errors.Is(err, container.ErrFeature) {
			f.Hint = "written by a newer coffer, or damaged"
		}
		s.add(f)
		return
	}
	s.count(func(sum *Summary) { sum.Bytes += got.Bytes })
	if s.Vault != nil && got.Vault != *s.Vault {
		s.add(Finding{Kind: Damage, Host: o.hostPath(), What: "a container of another vault: " + got.Vault.String()})
	}
	for _, l := range got.Lost {
		f := Finding{Kind: s.damage(l.Err), Host: o.hostPath(), Bytes: &Range{l.From, l.To, got.Size}, What: l.Err.Error()}
		f.locate(got.Geometry, l)
		s.add(f)
	}
	if got.Length != nil {
		s.add(Finding{Kind: s.damage(got.Length), Host: o.hostPath(), What: got.Length.Error()})
	}
}

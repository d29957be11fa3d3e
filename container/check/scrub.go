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
	eng  *container.Scrubber
	jobs jobs
}

// Scrub checks every host file of the vault that has the form of a container's name, by its CRCs and digests. The error is that of ctx; whatever
// else goes wrong is a finding.
func Scrub(ctx context.Context, cfg ScrubConfig) (Summary, error) {
	if cfg.Progress == nil {
		cfg.Progress = new(Progress)
	}
	s := &scrubber{ScrubConfig: cfg, report: report{found: cfg.Found}, eng: container.NewScrubber(0), jobs: newJobs()}
	err := s.directory(ctx, cfg.Root, "", map[uint64]bool{})
	s.jobs.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return s.sum, err
}

// directory checks what is in one directory and below. linked has the inodes with several names that were met.
func (s *scrubber) directory(ctx context.Context, fd disk.Dir, path string, linked map[uint64]bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.count(func(sum *Summary) { sum.Directories++ })
	var all []string
	err := fd.List(func(name string, _ uint64, _ uint8) error {
		if path != "" || name != configDir {
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		s.add(Finding{Kind: kindOf(err), Host: path, What: fmt.Sprintf("the directory cannot be listed: %v", err)})
	}
	for _, name := range all {
		if err := s.object(ctx, fd, path, name, linked); err != nil {
			return err
		}
	}
	return nil
}

func (s *scrubber) object(ctx context.Context, fd disk.Dir, path, name string, linked map[uint64]bool) error {
	host := below(path, name)
	if names.IsSidecar(name) {
		return nil // nothing in it can be checked without a key
	}
	if !names.HasForm(name) {
		s.add(Finding{Kind: Foreign, Host: host, What: "a foreign object", Hint: foreignHint(name)})
		return nil
	}
	s.Progress.Objects.Add(1)
	s.count(func(sum *Summary) { sum.Objects++ })
	var st unix.Stat_t
	err := fd.Stat(name, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		s.add(Finding{Kind: kindOf(err), Host: host, What: fmt.Sprintf("the object cannot be looked at: %v", err)})
		return nil
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		sub, err := fd.OpenDir(name)
		if err != nil {
			s.add(Finding{Kind: kindOf(err), Host: host, What: fmt.Sprintf("the directory cannot be opened: %v", err)})
			return nil
		}
		defer sub.Close()
		return s.directory(ctx, sub, host, linked)
	case st.Mode&unix.S_IFMT != unix.S_IFREG, linked[st.Ino]:
		return nil
	case st.Nlink > 1:
		linked[st.Ino] = true
	}
	h, err := fd.Open(name, true)
	if err != nil {
		s.add(Finding{Kind: kindOf(err), Host: host, What: fmt.Sprintf("the host file cannot be opened: %v", err)})
		return nil
	}
	s.jobs.run(func() {
		defer h.Close()
		s.content(ctx, h, host)
	})
	return nil
}

// damage is Pending where a replay may put it right.
func (s *scrubber) damage(err error) Kind {
	if kind := kindOf(err); kind != Damage || !s.Pending {
		return kind
	}
	return Pending
}

func (s *scrubber) content(ctx context.Context, h disk.File, host string) {
	got, err := s.eng.Scrub(ctx, h, func(n int64) { s.Progress.Bytes.Add(n) })
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		f := Finding{Kind: s.damage(err), Host: host, What: err.Error()}
		if errors.Is(err, container.ErrVersion) || errors.Is(err, container.ErrFeature) {
			f.Hint = "written by a newer coffer, or damaged"
		}
		s.add(f)
		return
	}
	s.count(func(sum *Summary) { sum.Bytes += got.Bytes })
	if s.Vault != nil && got.Vault != *s.Vault {
		s.add(Finding{Kind: Damage, Host: host, What: "a container of another vault: " + got.Vault.String()})
	}
	for _, l := range got.Lost {
		f := Finding{Kind: s.damage(l.Err), Host: host, Bytes: &Range{l.From, l.To, got.Size}, What: l.Err.Error()}
		f.locate(got.Geometry, l)
		s.add(f)
	}
	if got.Length != nil {
		s.add(Finding{Kind: s.damage(got.Length), Host: host, What: got.Length.Error()})
	}
}

package integration

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/event"
)

func TestDamage(t *testing.T) {
	for _, o := range []options{{wantErrors: true}, {writeThrough: true, wantErrors: true}} {
		t.Run(o.String(), func(t *testing.T) {
			m := mount(t, o)
			want := patterned(200_000)
			path := m.write("file", want)
			m.stop()
			host := m.host()[0]
			b, err := os.ReadFile(host)
			m.must(err)
			b[len(b)-100] ^= 1
			m.must(os.WriteFile(host, b, 0o644))
			m.start()
			got := make([]byte, 100_000)
			f, err := os.Open(path)
			m.must(err)
			defer f.Close()
			if _, err := f.ReadAt(got[:1], 199_950); !errors.Is(err, unix.EIO) {
				t.Errorf("damaged frame: %v", err)
			}
			m.must(f.Close())
			m.stop()
			m.must(os.Truncate(host, int64(len(b))/2))
			m.start()
			if st := lstat(t, path); st.Size == 0 {
				t.Error("a file that was cut looks empty")
			}
			if _, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
				t.Errorf("cut file: %v", err)
			}
			m.must(os.Truncate(host, 0))
			m.stop()
			m.start()
			if _, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
				t.Errorf("file cut to nothing: %v", err)
			}
			m.must(os.Remove(path))
		})
	}
}

// A damaged file can be put right with new content: by O_TRUNC, by truncate, or by removing it.
func TestReplaceDamaged(t *testing.T) {
	for _, o := range []options{{wantErrors: true}, {writeThrough: true, wantErrors: true}} {
		t.Run(o.String(), func(t *testing.T) {
			m := mount(t, o)
			path := m.write("file", patterned(200_000))
			want := []byte("new content")
			for name, replace := range map[string]func() error{
				"O_TRUNC": func() error { return os.WriteFile(path, want, 0o644) },
				"truncate": func() error {
					if err := os.Truncate(path, 0); err != nil {
						return err
					}
					f, err := os.OpenFile(path, os.O_WRONLY, 0)
					if err != nil {
						return err
					}
					_, err = f.Write(want)
					return errors.Join(err, f.Close())
				},
			} {
				m.stop()
				host := m.host()[0]
				m.must(os.WriteFile(host, make([]byte, 50_000), 0o644))
				m.start()
				if _, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
					t.Errorf("%s: damaged file: %v", name, err)
				}
				if err := os.Truncate(path, 1); !errors.Is(err, unix.EIO) {
					t.Errorf("%s: what is left of a damaged file is nothing to keep: %v", name, err)
				}
				if err := replace(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				for range 2 {
					if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
						t.Errorf("%s: %q, %v", name, got, err)
					}
					m.stop()
					m.start()
				}
			}
			m.must(os.Remove(path))
		})
	}
}

func TestDuplicate(t *testing.T) {
	m := mount(t, options{wantErrors: true})
	path := m.write("one", []byte("data"))
	m.must(os.Link(path, m.path("two")))
	m.stop()
	host := m.host()
	b, err := os.ReadFile(host[1])
	m.must(err)
	m.must(os.Remove(host[1]))
	m.must(os.WriteFile(host[1], b, 0o644))
	m.start()
	var refused, good string
	for _, name := range []string{"one", "two"} {
		if _, err := os.ReadFile(m.path(name)); errors.Is(err, unix.EIO) {
			refused = m.path(name)
		} else if err == nil {
			good = m.path(name)
		}
	}
	if refused == "" || good == "" || m.findings.count(event.Duplicate) == 0 {
		t.Fatalf("%q is refused, %q is not, %d events", refused, good, m.findings.count(event.Duplicate))
	}
	_, err = os.OpenFile(refused, os.O_WRONLY|os.O_TRUNC, 0)
	for what, err := range map[string]error{
		"opened for writing": err, "truncated": os.Truncate(refused, 1), "changed": os.Chmod(refused, 0o600),
		"linked": os.Link(refused, m.path("three")), "replaced by the other": os.Rename(good, refused), "put over the other": os.Rename(refused, good),
	} {
		if !errors.Is(err, unix.EIO) {
			t.Errorf("the refused file can be %s: %v", what, err)
		}
	}
	// It can be moved and removed, and the other one stays as it is.
	m.must(os.Rename(refused, m.path("away")))
	m.must(os.Remove(m.path("away")))
	for range 2 {
		if b, err := os.ReadFile(good); err != nil || string(b) != "data" || len(m.host()) != 1 {
			t.Errorf("the other file: %q, %v, %d host files", b, err, len(m.host()))
		}
		m.stop()
		m.start()
	}
}

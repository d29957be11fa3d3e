package fs

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	iofs "io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
)

// deep wraps err as the layers do: a typed error with Unwrap, %w twice, a join.
func deep(err error) error {
	err = &container.FrameError{Segment: 7, Frame: 3, Offset: 49984, Err: err}
	err = fmt.Errorf("cache: %w", &container.SegmentError{Op: "read", Segment: 7, Err: err})
	return errors.Join(fmt.Errorf("fs: %w", err), nil)
}

func TestErrnoOfSentinels(t *testing.T) {
	for _, c := range classes() {
		for _, err := range []error{c.err, deep(c.err)} {
			if got := errnoOf(err); got != c.errno {
				t.Errorf("%v: got %v, want %v", err, got, c.errno)
			}
			if got := damage(err); got != c.damage {
				t.Errorf("%v: damage %v, want %v", err, got, c.damage)
			}
		}
		if c.errno == syscall.ENOSYS || c.errno == 0 {
			t.Errorf("%v may not be %v", c.err, c.errno)
		}
	}
}

func TestErrnoOfErrno(t *testing.T) {
	for err, want := range map[error]syscall.Errno{
		nil:                 0,
		syscall.ENOENT:      syscall.ENOENT,
		syscall.ENOSPC:      syscall.ENOSPC,
		syscall.EDQUOT:      syscall.EDQUOT,
		syscall.ENOTEMPTY:   syscall.ENOTEMPTY,
		syscall.EOPNOTSUPP:  syscall.EOPNOTSUPP,
		syscall.EROFS:       syscall.EROFS,
		syscall.ENOSYS:      syscall.EIO,
		syscall.EBADF:       syscall.EIO,
		syscall.EINTR:       syscall.EIO,
		syscall.ELOOP:       syscall.EIO,
		syscall.EMFILE:      syscall.ENFILE,
		errors.New("other"): syscall.EIO,
		&iofs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}:                                     syscall.ENOSPC,
		fmt.Errorf("%w: %w", container.ErrCorrupt, syscall.ENOENT):                                       syscall.EIO,
		fmt.Errorf("%w: %w", &iofs.PathError{Op: "read", Err: syscall.ENXIO}, container.ErrTruncated):    syscall.EIO,
		errors.Join(nil, fmt.Errorf("close: %w", &iofs.PathError{Op: "close", Err: syscall.Errno(122)})): syscall.EDQUOT,
	} {
		if got := errnoOf(err); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
		if err == nil {
			continue
		}
		if got := errnoOf(deep(err)); got != want {
			t.Errorf("%v, wrapped: got %v, want %v", err, got, want)
		}
	}
}

// A sentinel that a request can meet and that nobody put into the table would be EIO by accident.
func TestErrnoTableIsComplete(t *testing.T) {
	// What no request can meet: mounting, and what a user types.
	elsewhere := map[string]bool{
		"vault.ErrNotVault": true, "vault.ErrNotEmpty": true, "vault.ErrConfig": true, "vault.ErrTampered": true, "vault.ErrVersion": true,
		"vault.ErrFeature": true, "vault.ErrParams": true, "vault.ErrKDF": true, "vault.ErrPassphrase": true, "vault.ErrEmptyPassphrase": true,
		"vault.ErrCopied": true, "vault.ErrInUse": true, "vault.ErrRecoveryKey": true, "vault.ErrNoContainer": true,
		"vault.ErrKeyFile": true, "vault.ErrKeyFileSize": true, "vault.ErrIdentity": true, "vault.ErrAgeFailed": true, "vault.ErrRecipient": true,
		"vault.ErrLabel": true, "vault.ErrNoSlot": true, "vault.ErrLastSlot": true, "vault.ErrSlots": true,
		"vault.ErrJournal": true, "vault.ErrUnnamed": true, "vault.ErrOtherVault": true,
	}
	table := map[string]bool{}
	collect(t, "../fs", func(name string, file *ast.File) {
		if filepath.Base(name) != "errno.go" {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok {
					table[x.Name+"."+s.Sel.Name] = true
				}
			}
			return true
		})
	})
	for dir, pkg := range map[string]string{
		"../container": "container", "../container/dirs": "dirs", "../container/suite": "suite", "../container/siv": "siv",
		"../container/names": "names", "../container/vault": "vault", "../cache": "cache", "../internal/disk": "disk",
	} {
		collect(t, dir, func(_ string, file *ast.File) {
			for _, d := range file.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, s := range g.Specs {
					for _, id := range s.(*ast.ValueSpec).Names {
						name := pkg + "." + id.Name
						if strings.HasPrefix(id.Name, "Err") && !table[name] && !elsewhere[name] {
							t.Errorf("%s is not in errno.go", name)
						}
					}
				}
			}
		})
	}
}

func collect(t *testing.T, dir string, fn func(name string, file *ast.File)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files in %s: %v", dir, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		fn(name, file)
	}
}

// Only what nobody could expect is logged, once, with its chain, and not without bound.
func TestStatusLogs(t *testing.T) {
	var b strings.Builder
	fs := &FS{}
	fs.log.to = slog.New(slog.NewTextHandler(&b, nil))
	for _, err := range []error{syscall.ENOENT, dirs.ErrStale, cache.ErrNoData, container.ErrTooLarge} {
		fs.status("lookup", deep(err))
	}
	if b.Len() > 0 {
		t.Errorf("logged: %s", b.String())
	}
	if s := fs.status("read", deep(container.ErrAuth)); s != fuse.EIO {
		t.Errorf("got %v", s)
	}
	if got := b.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "op=read") || !strings.Contains(got, "frame 3 at byte 49984") {
		t.Errorf("log: %q", got)
	}
	b.Reset()
	for range 10 * logBurst {
		fs.status("read", deep(container.ErrAuth))
	}
	if n := strings.Count(b.String(), "\n"); n < logBurst-1 || n > logBurst+2 {
		t.Errorf("%d lines", n)
	}
	dropped, ok := fs.log.admit(time.Now().Add(10 * logPause))
	if !ok || dropped < 8*logBurst {
		t.Errorf("after a pause: %v, %d not logged", ok, dropped)
	}
}

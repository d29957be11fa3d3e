package integration

import (
	"path/filepath"
	"strings"
	"testing"
)

// Go's own tree: unpacked in the mount, built there by itself, committed to git, cloned, and after a remount all of it reads back the same.
func TestGoSourceTree(t *testing.T) {
	longTier(t, "compiles Go's standard library and commands")
	gobin, env := goCommand(t)
	p := program(t, options{}, "git", "tar", "diff")
	goroot := p.run("/", gobin, "env", "GOROOT")
	goroot, err := filepath.EvalSymlinks(strings.TrimSpace(goroot))
	p.must(err)
	archive := filepath.Join(t.TempDir(), "go.tar")
	p.run(goroot, "tar", "-chf", archive, "VERSION", "bin", "pkg/include", "pkg/tool", "src")
	p.sh(p.dir, "mkdir go cache tmp")
	tree := p.path("go")
	p.run(tree, "tar", "-xpf", archive)
	p.equal("compared with the archive", p.run(tree, "tar", "-df", archive), "")

	p.env = append(p.env, env...)
	p.env = append(p.env, "GOROOT="+tree, "GOCACHE="+p.path("cache"), "GOTMPDIR="+p.path("tmp"), "TMPDIR="+p.path("tmp"))
	build := func(v string) string {
		t.Helper()
		return p.run(filepath.Join(tree, "src"), filepath.Join(tree, "bin/go"), "build", v, "-o", p.path("built")+"/", "cmd/go", "cmd/compile", "cmd/link", "cmd/asm", "cmd/vet")
	}
	build("-v")
	p.equal("packages that a second build compiles", build("-v"), "")
	built := p.run("/", p.path("built/go"), "version")
	p.equal("the go that was built", built, p.run("/", filepath.Join(tree, "bin/go"), "version"))

	git := func(dir string, args ...string) string {
		t.Helper()
		return p.run(p.path(dir), "git", args...)
	}
	git("go", "init", "-q", "-b", "main")
	git("go", "add", "-A", "-f", ".")
	git("go", "commit", "-qm", "all of it")
	git(".", "clone", "-q", "go", "linked")
	git(".", "clone", "-q", "--no-hardlinks", "go", "copied")
	git(".", "clone", "-q", "file://"+tree, "packed")
	git("go", "gc", "-q", "--prune=now")
	check := func() {
		t.Helper()
		p.equal("compared with the archive", p.run(tree, "tar", "-df", archive), "")
		for _, clone := range []string{"linked", "copied", "packed"} {
			p.equal(clone, p.run(p.dir, "diff", "-r", "--exclude=.git", "go", clone), "")
			p.equal(clone+": fsck", git(clone, "fsck", "--full", "--strict", "--no-progress"), "")
			p.equal(clone+": status", git(clone, "status", "--porcelain"), "")
		}
	}
	check()
	p.checkRemount()
	check()
	p.equal("packages that a build after the remount compiles", build("-v"), "")
	p.equal("the go that was built", p.run("/", p.path("built/go"), "version"), built)
}

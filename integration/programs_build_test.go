package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goCommand returns the go program that runs this test and the environment that it needs beside cleanEnv: its caches are on the host.
func goCommand(t *testing.T) (gobin string, env []string) {
	t.Helper()
	gobin, err := exec.LookPath("go")
	if err != nil {
		t.Skip("go is not in the path: the test binary runs on its own")
	}
	out, err := exec.Command(gobin, "env", "GOCACHE", "GOMODCACHE", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Split(strings.TrimSpace(string(out)), "\n")
	return gobin, []string{"GOCACHE=" + dirs[0], "GOMODCACHE=" + dirs[1], "GOROOT=" + dirs[2], "GOFLAGS=-buildvcs=false", "GOPROXY=off", "GOTOOLCHAIN=local", "CGO_ENABLED=0", "GOENV=off"}
}

// A Go build with its module, its cache and its temporary files in the mount. The cache is content-addressed, full of renames, mtimes
// that are compared and executables that run from where they were linked.
func TestGoBuild(t *testing.T) {
	gobin, env := goCommand(t)
	p := program(t, options{})
	p.env = append(p.env, env...)
	p.env = append(p.env, "GOCACHE="+p.path("cache"), "GOTMPDIR="+p.path("tmp"), "TMPDIR="+p.path("tmp"))
	pkg := "errors" // the quick version compiles little of the standard library
	if long() {
		pkg = "net/http"
	}
	p.sh(p.dir, fmt.Sprintf(`
		mkdir -p cache tmp mod/{a,b}; cd mod
		printf 'module example.org/m\n\ngo 1.24\n' > go.mod
		printf 'package a\n\nimport "example.org/m/b"\n\nfunc A() int { return b.B() + 1 }\n' > a/a.go
		printf 'package a\n\nimport "testing"\n\nfunc TestA(t *testing.T) {\n\tif A() != 42 {\n\t\tt.Fatal(A())\n\t}\n}\n' > a/a_test.go
		printf 'package b\n\nimport _ "%s"\n\nfunc B() int { return 41 }\n' > b/b.go
		printf 'package main\n\nimport "example.org/m/a"\n\nfunc main() { println(a.A()) }\n' > main.go`, pkg))
	mod := p.path("mod")
	p.run(mod, gobin, "build", "-o", "prog", ".")
	p.equal("the program", p.run(mod, "./prog"), "42")
	upToDate := func() {
		t.Helper()
		p.equal("packages that a second build compiles", p.run(mod, gobin, "build", "-v", "-o", "prog", "."), "")
	}
	upToDate()
	p.checkRemount()
	upToDate()
	p.equal("the program after a remount", p.run(mod, "./prog"), "42")
	p.sh(mod, "sed -i s/41/40/ b/b.go; sed -i s/42/41/ a/a_test.go")
	p.equal("packages after a change", p.sh(mod, "'"+gobin+"' build -v -o prog . 2>&1 | sort"), "example.org/m\nexample.org/m/a\nexample.org/m/b")
	p.equal("the changed program", p.run(mod, "./prog"), "41")
	if long() {
		p.run(mod, gobin, "vet", "./...")
		p.run(mod, gobin, "test", "./...")
		if out := p.run(mod, gobin, "test", "./a"); !strings.Contains(out, "(cached)") {
			t.Errorf("a test was run again: %s", out)
		}
		p.run(mod, gobin, "build", "-o", "tools/", "cmd/go", "cmd/gofmt", "cmd/vet")
		p.equal("gofmt built in the mount", p.run(mod, "tools/gofmt", "-l", "."), "")
	}
	p.checkRemount()
	upToDate()
}

// The tests of Go's own library that ask most of a filesystem, with their temporary directory in the mount.
func TestGoStandardLibrary(t *testing.T) {
	gobin, env := goCommand(t)
	p := program(t, options{})
	p.env = append(p.env, env...)
	p.env = append(p.env, "GOTMPDIR="+p.dir, "TMPDIR="+p.dir)
	// The kernel lets every file of every FUSE filesystem be polled, where those of other filesystems refuse: it is not for us to change.
	skip := "-skip=^TestNonpollableDeadline$"
	args := []string{"test", "-vet=off", "-count=1", "-short", skip + "|^TestRootMulti", "os", "path/..."} // those make tens of thousands of directories each
	if long() {
		args = []string{"test", "-vet=off", "-count=1", skip, "os", "path/...", "io/fs", "io/ioutil", "archive/tar", "archive/zip", "internal/poll", "syscall"}
	}
	out, err := p.try("/", gobin, args...)
	if err != nil {
		t.Error(err)
	}
	t.Log(strings.TrimSpace(out))
	p.checkRemount()
}

// gcc with its sources, its temporary files and its output in the mount.
func TestGCC(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		p.env = append(p.env, "TMPDIR="+p.dir)
		p.sh(p.dir, fmt.Sprintf(`
			for i in $(seq %d); do
				{ echo '#include <stdio.h>'; echo '#include <stdlib.h>'; for k in $(seq 60); do echo "int f${i}_$k(int x) { return x * $k + %%i; }" | sed s/%%i/$i/; done; } > f$i.c
				gcc -O2 -g -fPIC -c f$i.c
			done
			gcc -shared -o libf.so f*.o; ar rcs libf.a f*.o; strip -o stripped.so libf.so
			printf 'int f1_2(int); int printf(const char *, ...);\nint main(void) { printf("%%%%d\\n", f1_2(20)); }\n' > main.c
			gcc -save-temps -o static main.c libf.a; gcc -pipe -o dynamic main.c -L. -lf -Wl,-rpath,'$ORIGIN'; gcc -flto -O2 -o lto main.c f1.c`, times(2, 60)))
		run := func() {
			t.Helper()
			p.equal("programs", p.sh(p.dir, "./static; ./dynamic; ./lto"), "41\n41\n41")
			p.equal("symbols", p.sh(p.dir, "nm libf.a | grep -c ' T f1_'; objdump -d libf.so | grep -c '<f2_[0-9]*>:'"), "60\n60")
		}
		run()
		p.checkRemount()
		run()
	}, "gcc", "ar", "objdump")
}

// Python compiles what it imports into a directory beside it and believes times and sizes.
func TestPython(t *testing.T) {
	p := program(t, options{}, "python3")
	p.env = append(p.env, "TMPDIR="+p.dir)
	p.sh(p.dir, fmt.Sprintf(`
		mkdir pkg; for i in $(seq %d); do echo "x = $i" > pkg/m$i.py; done; echo > pkg/__init__.py
		python3 -c 'import pkg.m1, pkg.m2; print(pkg.m2.x)' | grep -qx 2
		echo 'x = 30' > pkg/m2.py; python3 -c 'import pkg.m2; print(pkg.m2.x)' | grep -qx 30
		python3 -m compileall -q pkg; python3 -m venv --without-pip --copies venv; venv/bin/python -c 'import sys; print(sys.prefix)' | grep -q venv
		python3 -m zipapp pkg -m m1:x -o app.pyz; python3 -c 'import shutil; shutil.make_archive("a", "gztar", "pkg"); shutil.unpack_archive("a.tar.gz", "unpacked"); shutil.copytree("pkg", "copied", symlinks=True)'
		diff -r pkg copied; diff -r pkg unpacked`, times(20, 500)))
	if entries, err := os.ReadDir(filepath.Join(p.dir, "pkg", "__pycache__")); err != nil || len(entries) < times(20, 500) {
		t.Errorf("compiled: %d, %v", len(entries), err)
	}
	before := state(t, p.path("pkg"), seen{})
	p.checkRemount()
	p.sh(p.dir, `python3 -m compileall -q pkg; python3 -c 'import pkg.m1, pkg.m2; print(pkg.m2.x)' | grep -qx 30`)
	p.sameState("compiled again", state(t, p.path("pkg"), seen{}), before)
	p.checkRemount()
}

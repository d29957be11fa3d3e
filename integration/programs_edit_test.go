package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// vim in each of its ways to save: over the file, by a new file and rename, with swap, undo and backup files beside it.
func TestVim(t *testing.T) {
	vim := "vim.tiny"
	if _, err := os.Stat("/usr/bin/vim.tiny"); err != nil {
		vim = "vim"
	}
	p := program(t, options{}, vim)
	for _, copies := range []string{"yes", "no", "auto"} {
		for _, backup := range []string{"backup", "nobackup writebackup", "nobackup nowritebackup"} {
			name := strings.ReplaceAll(copies+" "+backup, " ", "-")
			p.sh(p.dir, fmt.Sprintf("seq 3000 > %s; chmod 640 %s; ln %s %s.link", name, name, name, name))
			before := lstat(t, p.path(name))
			for i := range times(2, 20) {
				p.run(p.dir, vim, "-u", "NONE", "-i", "NONE", "-es", "-N", "-c", "set fsync swapfile backupcopy="+copies, "-c", "set "+backup,
					"-c", fmt.Sprintf("%d,%ds/$/ edited/", i*10+1, i*10+5), "-c", `$s/$/\rmore/`, "-c", "wq", name)
			}
			after := lstat(t, p.path(name))
			if after.Mode != before.Mode || copies == "yes" && after.Ino != before.Ino {
				t.Errorf("%s: mode %o, inode %d; was %o, %d", name, after.Mode, after.Ino, before.Mode, before.Ino)
			}
			p.equal(name, p.sh(p.dir, "grep -c edited "+name+"; grep -c more "+name+"; wc -l < "+name),
				fmt.Sprintf("%d\n%d\n%d", times(2, 20)*5, times(2, 20), 3000+times(2, 20)))
		}
	}
	p.equal("swap files left behind", p.sh(p.dir, "find . -name '*.sw?'"), "")
	p.checkRemount()
}

// The ways in which editors save. A reader in another process sees the old text or the new, where the way promises that.
func TestSaves(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		p.write("doc", saved(0))
		rounds := times(50, 1000)
		p.write("doc2", saved(rounds))
		// Reads until it is told to stop, whole files only.
		b := p.background(p.dir, "python3", "-c", `
import os, select, sys
print('reading', flush=True)
stop, last = False, 0
while not stop:
    stop = select.select([sys.stdin], [], [], 0)[0]
    with open('doc') as f: text = f.read()
    lines = text.split('\n')
    k = int(lines[0])
    if len(lines) != 2002 + k or lines[-1] != 'end' or set(lines[1:-1]) != {'line of %d' % k}: sys.exit('torn: %r, %d lines' % (lines[0], len(lines)))
    if k < last: sys.exit('%d after %d' % (k, last))
    last = k
print(last, flush=True)
`)
		b.expect("reading")
		for k := 1; k <= rounds; k++ {
			saveByRename(p, "doc", saved(k), k%3 == 0)
		}
		b.say("stop")
		b.expect(fmt.Sprint(rounds))
		b.end()
		p.want(p.path("doc"), saved(rounds))
		for k := 1; k <= rounds; k++ {
			if k%2 == 0 {
				saveInPlace(p, "doc2", saved(rounds-k))
			} else {
				saveWithBackup(p, "doc2", saved(rounds-k))
				p.want(p.path("doc2~"), saved(rounds-k+1))
			}
			p.want(p.path("doc2"), saved(rounds-k))
		}
		p.checkRemount()
		p.want(p.path("doc"), saved(rounds))
		p.want(p.path("doc2"), saved(0))
	}, "python3")
}

// saved is the k-th text: longer for greater k.
func saved(k int) []byte {
	return []byte(fmt.Sprintf("%d\n", k) + strings.Repeat(fmt.Sprintf("line of %d\n", k), 2000+k) + "end")
}

// saveByRename writes a new file and moves it over the old one, as most editors and atomic writers do.
func saveByRename(p *prog, name string, text []byte, backup bool) {
	p.t.Helper()
	tmp, err := os.CreateTemp(p.dir, "."+name)
	p.must(err)
	_, err = tmp.Write(text)
	p.must(errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()))
	if backup {
		_ = os.Remove(p.path(name + ".bak"))
		p.must(os.Link(p.path(name), p.path(name+".bak")))
	}
	p.must(os.Rename(tmp.Name(), p.path(name)))
	d, err := os.Open(p.dir)
	p.must(err)
	p.must(errors.Join(d.Sync(), d.Close()))
}

// saveWithBackup moves the old file away first, as vim and Emacs may.
func saveWithBackup(p *prog, name string, text []byte) {
	p.t.Helper()
	p.must(os.Rename(p.path(name), p.path(name+"~")))
	p.must(os.WriteFile(p.path(name), text, 0o644))
}

// saveInPlace truncates and writes, in small pieces.
func saveInPlace(p *prog, name string, text []byte) {
	p.t.Helper()
	f, err := os.OpenFile(p.path(name), os.O_WRONLY|os.O_TRUNC, 0)
	p.must(err)
	for len(text) > 0 {
		n := min(len(text), 1021)
		_, err = f.Write(text[:n])
		p.must(err)
		text = text[n:]
	}
	p.must(errors.Join(f.Sync(), f.Close()))
}

// Stream editors and patch write a new file and rename it; the result is that of the host.
func TestSedAndPatch(t *testing.T) {
	p := program(t, options{}, "sed", "patch", "perl", "diff")
	p.twin("edited", fmt.Sprintf(`
		for i in $(seq %d); do seq $i 3000 > f$i; done; chmod 600 f1; chmod 755 f2; ln -s f3 link; cp -a . ../before
		sed -i 's/7/seven/' f*; sed -i.orig -e '1d' -e '$a end' f2 f3; sed -i --follow-symlinks 's/9/nine/g' link; sed -i '5q' f4
		perl -pi -e 's/seven/7/ if $. %% 2' f*; perl -i.bak -ne 'print unless /8/' f1
		test ! -L f3; test -L link; rm link
		mv ../before before; rm -f before/link; diff -Nru before . -x before > ../p.diff || test $? = 1
		patch -s -R -p1 < <(sed 's|^--- before/|--- a/|; s|^+++ ./|+++ b/|' ../p.diff); for i in $(seq %d); do cmp f$i before/f$i; done
		patch -s -b -z .was -p1 < <(sed 's|^--- before/|--- a/|; s|^+++ ./|+++ b/|' ../p.diff);
		rm ../p.diff; ls`, times(8, 200), times(8, 200)), seen{noTimes: true})
	p.checkRemount()
}

// make believes times of files: what is up to date stays so over a remount, and one newer header rebuilds what needs it, no more.
func TestMake(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		p.sh(p.dir, fmt.Sprintf(`
			mkdir src out; n=%d
			for i in $(seq $n); do echo "int f$i(void) { return $i; }" > src/f$i.c; done
			echo 'extern int f1(void);' > src/one.h; printf '#include "one.h"\nint main(void) { return f1() != 1; }\n' > src/main.c
			cat > Makefile <<'END'
OBJ = $(patsubst src/%%.c,out/%%.o,$(wildcard src/*.c))
all: out/prog
out/prog: out/lib.a out/main.o ; gcc -o $@ out/main.o out/lib.a
out/lib.a: $(filter-out out/main.o,$(OBJ)) ; ar rcs $@ $^
out/%%.o: src/%%.c ; gcc -O1 -MMD -c -o $@ $<
-include $(OBJ:.o=.d)
END
			TMPDIR=$PWD make -j2 >/dev/null; out/prog`, times(8, 100)))
		upToDate := func() {
			t.Helper()
			p.equal("make again", p.run(p.dir, "make", "-j2"), "make: Nothing to be done for 'all'.")
		}
		upToDate()
		p.checkRemount()
		upToDate()
		p.run(p.dir, "touch", "src/one.h")
		p.equal("after a header changed", p.run(p.dir, "make"), "gcc -O1 -MMD -c -o out/main.o src/main.c\ngcc -o out/prog out/main.o out/lib.a")
		upToDate()
		p.checkRemount()
		upToDate()
	}, "make", "gcc", "ar")
}

// Locks by flock and fcntl keep the increments of many processes apart, O_APPEND and O_EXCL their lines and files.
func TestLocksOfScripts(t *testing.T) {
	const workers = 4
	rounds := times(100, 3000)
	bothPrograms(t, func(t *testing.T, p *prog) {
		for _, name := range []string{"flock", "lockf", "perl", "lockfile"} {
			p.write(name, []byte("0\n"))
		}
		p.together(workers, p.dir, "python3", "-c", fmt.Sprintf(`
import fcntl, os, sys, time
who = sys.argv[1]
for i in range(%d):
    for name, lock, unlock in (('flock', lambda f: fcntl.flock(f, fcntl.LOCK_EX), lambda f: fcntl.flock(f, fcntl.LOCK_UN)),
                               ('lockf', lambda f: fcntl.lockf(f, fcntl.LOCK_EX), lambda f: fcntl.lockf(f, fcntl.LOCK_UN))):
        with open(name, 'r+') as f:
            lock(f)
            n = int(f.read()); f.seek(0); f.truncate(); f.write('%%d\n' %% (n + 1)); f.flush()
            unlock(f)
    while True:
        try: os.close(os.open('lock', os.O_CREAT | os.O_EXCL)); break
        except FileExistsError: time.sleep(0.001) # who spins takes the processor from who holds it
    with open('lockfile', 'r+') as f: n = int(f.read()); f.seek(0); f.write('%%d\n' %% (n + 1))
    os.unlink('lock')
    with open('appended', 'a') as f: f.write('%%s %%d\n' %% (who, i))
`, rounds))
		p.together(workers, p.dir, "perl", "-e", fmt.Sprintf(`
use Fcntl ':flock';
for (1..%d) {
	open(my $f, '+<', 'perl') or die $!; flock($f, LOCK_EX) or die $!;
	my $n = <$f>; seek($f, 0, 0); truncate($f, 0); print $f $n + 1, "\n"; close($f) or die $!;
}`, rounds))
		for _, name := range []string{"flock", "lockf", "perl", "lockfile"} {
			p.equal(name, p.run(p.dir, "cat", name), fmt.Sprint(workers*rounds))
		}
		p.equal("appended lines", p.sh(p.dir, "sort -u appended | wc -l; wc -l < appended"), fmt.Sprintf("%d\n%d", workers*rounds, workers*rounds))
		// Who dies gives its locks back.
		b := p.background(p.dir, "python3", "-c", "import fcntl, time\nf = open('flock', 'r+'); fcntl.flock(f, 2); fcntl.lockf(f, 2); print('held', flush=True); input()")
		b.expect("held")
		if out, err := p.try(p.dir, "flock", "-n", "flock", "true"); exitCode(err) != 1 {
			t.Errorf("a lock did not keep others out: %s %v", out, err)
		}
		b.kill()
		p.run(p.dir, "flock", "-n", "flock", "true")
		p.checkRemount()
	}, "python3", "perl", "flock")
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// Special files between programs: a FIFO and a socket of the mount.
func TestPipesOfScripts(t *testing.T) {
	p := program(t, options{}, "python3", "mkfifo")
	p.equal("through a FIFO", p.sh(p.dir, `mkfifo pipe; seq 100000 > pipe & sha256sum < pipe; wait; seq 100000 | sha256sum`+" | cat"), strings.Repeat(p.sh("/", "seq 100000 | sha256sum"), 2))
	p.run(p.dir, "python3", "-c", `
import os, socket
s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen()
if os.fork() == 0:
    c = socket.socket(socket.AF_UNIX); c.connect('sock'); c.sendall(b'hello'); os._exit(0)
assert s.accept()[0].recv(5) == b'hello'
assert os.wait()[1] == 0
`)
	if st := lstat(t, p.path("sock")); st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		t.Errorf("mode of a socket: %o", st.Mode)
	}
	p.checkRemount()
}

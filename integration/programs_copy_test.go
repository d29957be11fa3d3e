package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rsync -a copies everything once: the second run finds nothing to do, also after a remount, in both directions.
func TestRsync(t *testing.T) {
	needRoot(t) // it changes a file of mode 0444
	p := program(t, options{}, "rsync", "python3")
	src := filepath.Join(t.TempDir(), "src")
	p.sample(src)
	want := state(t, src, seen{})
	sync := func(from, to string, extra ...string) string {
		t.Helper()
		return p.run("/", "rsync", append([]string{"-aHS", "--itemize-changes", "--stats", from + "/", to + "/"}, extra...)...)
	}
	nothing := func(from, to string, extra ...string) {
		t.Helper()
		items, stats, _ := strings.Cut(sync(from, to, extra...), "\nNumber of files:")
		p.equal("moved", items, "")
		if !strings.Contains(stats, "\nNumber of regular files transferred: 0\n") || !strings.Contains(stats, "\nNumber of created files: 0\n") {
			t.Errorf("a second run moved something: %s", stats)
		}
	}
	dst, back := p.path("dst"), filepath.Join(t.TempDir(), "back")
	sync(src, dst)
	p.sameState("copy", state(t, dst, seen{}), want)
	nothing(src, dst)
	p.checkRemount()
	nothing(src, dst)
	nothing(src, dst, "--checksum")
	sync(dst, back)
	p.sameState("copy of the copy", state(t, back, seen{}), want)
	nothing(dst, back)

	p.sh(src, `printf changed >> size-4097; truncate -s 5000 size-65536; rm -r dir1 size-1000; mkdir dir1; echo new > dir1/new; mv dir2 moved; chmod 711 empty; ln -sf elsewhere link
		dd if=/dev/urandom of=size-3000001 bs=1000 count=3 seek=1500 conv=notrunc status=none
		find . -mmin -60 -exec touch -hd '2021-03-03 03:03:03.123456789' {} +`) // rsync leaves times alone that differ by less than a second
	want = state(t, src, seen{})
	sync(src, dst, "--delete", "--inplace", "--no-whole-file", "--no-sparse")
	p.sameState("update in place", state(t, dst, seen{}), want)
	nothing(src, dst, "--delete")
	p.checkRemount()
	nothing(src, dst, "--delete", "--checksum")
	sync(dst, p.path("within"), "--no-whole-file", "--fsync")
	p.sameState("copy within", state(t, p.path("within"), seen{}), want)
	p.checkRemount()
}

// What goes into an archive and out again has the same metadata.
func TestTar(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		out := t.TempDir()
		src := filepath.Join(out, "src")
		p.sample(src)
		want := state(t, src, seen{})
		p.must(os.Mkdir(p.path("in"), 0o755))
		p.must(os.Mkdir(p.path("again"), 0o755))
		// in: archive on the host, tree in the mount; then the archive itself in the mount too.
		p.run(src, "tar", "--format=posix", "-cSf", out+"/1.tar", ".")
		p.run(p.path("in"), "tar", "-xpSf", out+"/1.tar", "--same-owner")
		p.sameState("extracted", state(t, p.path("in"), seen{}), want)
		p.equal("compare", p.run(p.path("in"), "tar", "-df", out+"/1.tar"), "")
		p.checkRemount()
		p.equal("compare after the remount", p.run(p.path("in"), "tar", "-df", out+"/1.tar"), "")
		p.run(p.path("in"), "tar", "--format=posix", "-cSf", p.path("2.tar"), ".")
		p.run(p.path("again"), "tar", "-xpSf", p.path("2.tar"), "--same-owner")
		p.sameState("extracted from the mount", state(t, p.path("again"), seen{}), want)
		p.must(os.Mkdir(out+"/back", 0o755))
		p.run(out+"/back", "tar", "-xpSf", p.path("2.tar"), "--same-owner")
		p.sameState("back on the host", state(t, out+"/back", seen{}), want)
		p.sh(p.dir, `tar --format=posix -czf 3.tgz -C in .; tar -rf 2.tar -C in link; gzip -t 3.tgz; tar -tf 2.tar >/dev/null`)
		p.checkRemount()
	}, "tar", "python3", "gzip")
}

// bothPrograms is bothModes for programs.
func bothPrograms(t *testing.T, test func(t *testing.T, p *prog), names ...string) {
	for _, o := range []options{{}, {writeThrough: true}} {
		t.Run(o.String(), func(t *testing.T) { test(t, program(t, o, names...)) })
	}
}

func TestCopyArchive(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		src := filepath.Join(t.TempDir(), "src")
		p.sample(src)
		want := state(t, src, seen{})
		p.run("/", "cp", "-a", src, p.path("a"))
		p.sameState("cp -a into the mount", state(t, p.path("a"), seen{}), want)
		p.run(p.dir, "cp", "-a", "a", "b")
		p.sameState("cp -a within the mount", state(t, p.path("b"), seen{}), want)
		p.checkRemount()
		p.run(p.dir, "cp", "-a", "--sparse=always", "b", "c")
		p.sameState("cp --sparse=always", state(t, p.path("c"), seen{}), want)
		p.run(p.dir, "cp", "-a", "--reflink=auto", "--sparse=never", "c/sparse", "full")
		p.run(p.dir, "cmp", "c/sparse", "full")
		p.run("/", "cp", "-a", p.path("b"), filepath.Join(filepath.Dir(src), "back"))
		p.sameState("cp -a out of the mount", state(t, filepath.Join(filepath.Dir(src), "back"), seen{}), want)
		p.sh(p.dir, `mv c moved; rm -r b; cp -al a linked; cp -as "$PWD/a" symlinked; mv "moved/dir0" .; rm -rf linked symlinked`)
		p.sameState("after links were made and removed", state(t, p.path("a"), seen{}), want)
		p.checkRemount()
	}, "cp", "python3")
}

// sparseWriter writes one byte stripe after the other and says so; it keeps the file open, so that the data may be anywhere between its
// kernel pages and the host. Between stripes are holes.
const sparseWriter = `
import mmap, os, sys
how, stride, size = sys.argv[2], 98304 + 512, 5000
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
view = None
if how == 'mmap':
    os.ftruncate(fd, int(sys.argv[3]) << 20)
    view = mmap.mmap(fd, int(sys.argv[3]) << 20)
n = 0
for line in sys.stdin:
    for i in range(int(line)):
        data = bytes([n % 255 + 1]) * size
        if view: view[n * stride:n * stride + size] = data
        else: os.pwrite(fd, data, n * stride)
        n += 1
        print(n, flush=True)
`

// cp of a sparse file looks for its data by SEEK_DATA, which must know of data that another process has just written and not synced.
func TestCopyWhileWriting(t *testing.T) {
	const stride, size = 98304 + 512, 5000
	check := func(t *testing.T, path string, stripes int) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := range stripes {
			at := min(n*stride, len(data))
			if got := data[at:min(at+size, len(data))]; !bytes.Equal(got, bytes.Repeat([]byte{byte(n%255 + 1)}, size)) {
				t.Fatalf("%s: stripe %d of %d is lost", path, n, stripes)
			}
		}
	}
	bothPrograms(t, func(t *testing.T, p *prog) {
		for _, how := range []string{"write", "mmap"} {
			b := p.background(p.dir, "python3", "-c", sparseWriter, how, how, fmt.Sprint(times(24, 128)))
			written := 0
			for _, sparse := range []string{"auto", "always", "never"} {
				for range times(3, 20) {
					b.say("10") // and wait for all of it: nothing written by now may be missing
					for range 10 {
						written++
						b.expect(fmt.Sprint(written))
					}
					p.run(p.dir, "cp", "--sparse="+sparse, how, "copy")
					check(t, p.path("copy"), written)
				}
				b.say("40") // and copy while that goes on
				written++
				b.expect(fmt.Sprint(written))
				p.run(p.dir, "cp", "--sparse="+sparse, how, "copy")
				check(t, p.path("copy"), written)
				for range 39 {
					written++
					b.expect(fmt.Sprint(written))
				}
				p.run(p.dir, "tar", "-cSf", "copy.tar", how)
			}
			b.end()
			check(t, p.path(how), written)
		}
		p.checkRemount()
	}, "cp", "python3")
}

func TestZip(t *testing.T) {
	p := program(t, options{}, "zip", "unzip", "python3")
	src := p.path("src")
	p.sample(src)
	p.sh(p.dir, `rm src/fifo src/sparse src/*newline; chmod -R u+rw,u-s,g-s,-t src; find src -exec touch -hd '2020-02-02 02:02:02' {} +`)
	p.sh(p.dir, `(cd src && zip -qry ../a.zip . -x './-rf' && zip -q ../a.zip -- -rf) && unzip -tqq a.zip && mkdir dst && cd dst && unzip -qq -X ../a.zip`)
	alike := seen{noLinks: true, noDirs: true, noTimes: true} // zip knows no hard links and no times of symlinks
	p.sameState("unzipped", state(t, p.path("dst"), alike), state(t, p.path("src"), alike))
	p.equal("times", p.sh(p.path("dst"), "find . -type f -printf '%T@\n' | sort -u"), "1580608922.0000000000")
	p.sh(p.dir, `zip -qd a.zip link 'dir0/*'; zip -qu a.zip -r src/dir1; zip -q0 stored.zip -r src; zip -qF stored.zip -O fixed.zip; unzip -tqq fixed.zip`)
	p.checkRemount()
	p.sh(p.dir, `unzip -tqq a.zip; unzip -tqq fixed.zip`)
}

// What find, du and ls say of a tree is what they say of the same tree on the host.
func TestFindDuLs(t *testing.T) {
	p := program(t, options{}, "find", "du", "ls", "python3")
	ref := filepath.Join(t.TempDir(), "ref")
	p.sample(ref)
	p.run("/", "cp", "-a", ref, p.path("tree"))
	both := func(script string) {
		t.Helper()
		p.equal(script, p.sh(p.path("tree"), script), p.sh(ref, script))
	}
	all := func() {
		t.Helper()
		both(`find . ! -type d -printf '%P %y %m %n %s %U:%G %T@ %l\n' | sort`)
		both(`find . -type d -printf '%P %m %n %U:%G %T@\n' | sort`)
		for _, test := range []string{"-newer size-4096", "-links +1", "-size +64k", "-size -3", "-empty ! -type d", "-perm /6000", "-type l", "-samefile hard1", "-name 'f*' -path '*sub1*'", "-uid 3"} {
			both("find . " + test + " | sort")
		}
		both(`ls -lR --time-style=full-iso | grep -v '^total\|^d'`)
		both(`ls -a | wc -l; ls -U deep/*/*; ls -d */ | sort; stat -c '%n %F %a %h %s' hole sparse fifo link`)
		both(`du -a --apparent-size -B1 --exclude-from=<(find . -type d -printf '%P\n') sparse hole size-*`)
		both(`grep -rlZ . dir0 | sort -z | xargs -0 sha256sum; wc -c size-* dir*/*/*; tree=$(find . | wc -l); echo $tree`)
	}
	all()

	// Holes take no space: four stripes of 5000 bytes, each in at most three frames, with their records.
	used := func(name string) (n int) {
		t.Helper()
		_, err := fmt.Sscan(p.run(p.path("tree"), "du", "-B1", name), &n)
		p.must(err)
		return n
	}
	p.checkRemount()
	if n := used("sparse"); n < 20000 || n > 1<<20 {
		t.Errorf("a sparse file with 20000 bytes takes %d", n)
	}
	if n := used("hole"); n > 64<<10 {
		t.Errorf("a hole takes %d", n)
	}
	if n := used("size-3000001"); n < 3000001 || n > 3000001*11/10 {
		t.Errorf("3000001 bytes take %d", n)
	}
	all()
	p.sh(p.path("tree"), `truncate -s 1G big; printf x | dd of=big bs=1 seek=500M conv=notrunc status=none; test "$(du -B1 big | cut -f1)" -lt 1000000; test "$(du -b big | cut -f1)" = 1073741824
		fallocate -p -o 0 -l 8M sparse; fallocate -d size-3000001; cmp size-3000001 `+filepath.Join(ref, "size-3000001"))
	p.checkRemount()
}

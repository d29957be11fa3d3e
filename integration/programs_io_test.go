package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dd with block sizes around those of pages, frames and segments does the same as on the host.
func TestDD(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		input := filepath.Join(t.TempDir(), "input")
		p.run("/", "dd", "if=/dev/urandom", "of="+input, "bs=1M", fmt.Sprintf("count=%d", times(4, 64)), "status=none")
		p.twin("dd", `
			in=`+input+`
			dd() { command dd status=none "$@"; }
			for bs in 511 513 4095 4096 4097 16383 65535 65536 65537 131073 1048575 1048577; do
				dd if=$in of=whole-$bs bs=$bs
				dd if=$in of=seek-$bs bs=$bs seek=3 count=5 skip=1
				dd if=$in of=seek-$bs bs=$bs seek=1 count=1 conv=notrunc
				dd if=$in of=append-$bs bs=$bs count=2; dd if=$in of=append-$bs bs=$bs count=2 conv=notrunc oflag=append
				dd if=$in of=cut-$bs bs=$bs; dd if=/dev/null of=cut-$bs bs=$bs seek=1
				dd if=$in of=sync-$bs bs=$bs count=3 oflag=sync; dd if=sync-$bs of=copy-$bs bs=$((bs / 2 + 1)) iflag=fullblock conv=fsync
				dd if=whole-$bs of=back-$bs bs=$bs conv=sparse,fdatasync
				cmp whole-$bs $in; cmp back-$bs $in; rm back-$bs whole-$bs
			done
			for bs in 1 7; do dd if=$in of=small-$bs bs=$bs count=5000; dd if=$in of=small-$bs bs=$bs seek=4090 count=100 conv=notrunc; done
			for bs in 4096 65536 1048576; do dd if=$in of=direct-$bs bs=$bs oflag=direct; dd if=direct-$bs bs=$bs iflag=direct | cmp - $in; done
			dd if=direct-4096 of=mixed bs=12345 iflag=fullblock; dd if=$in of=mixed bs=4096 seek=7 count=3 oflag=direct conv=notrunc; dd if=mixed bs=4096 skip=6 count=5 | sha256sum
			dd if=/dev/zero of=zeros bs=65536 count=20 conv=sparse; truncate -s 3M zeros; dd if=$in of=zeros bs=4096 seek=100 count=1 conv=notrunc
			(dd bs=100 count=1; dd bs=1000 count=1) < $in > shared; (dd bs=77 count=1 >&3; cat >&3) < $in 3> shared2`, seen{noTimes: true})
		p.checkRemount()
	}, "dd", "cmp")
}

// Mapped readers see what writers write, by write(2) or through their own mapping, at once and never backwards.
func TestMmapReaders(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		const pages = 70 // more than a segment, less than a round number
		p.write("shared", make([]byte, pages*4096))
		var readers []*background
		for range 2 {
			b := p.background(p.dir, "python3", "-c", fmt.Sprintf(`
import mmap, select, struct, sys
f = open('shared', 'rb'); m = mmap.mmap(f.fileno(), %d, prot=mmap.PROT_READ)
last = [0] * %d
print('reading', flush=True)
stop = False
while not stop:
    stop = select.select([sys.stdin], [], [], 0)[0]
    for i in range(len(last)):
        k = struct.unpack_from('<Q', m, i * 4096 + 8 * (i %% 500))[0]
        if k < last[i]: sys.exit('page %%d: %%d after %%d' %% (i, k, last[i]))
        last[i] = k
    if len(m) != len(last) * 4096: sys.exit('length')
print(min(last), max(last), flush=True)
`, pages*4096, pages))
			b.expect("reading")
			readers = append(readers, b)
		}
		rounds := times(100, 3000)
		p.run(p.dir, "python3", "-c", fmt.Sprintf(`
import mmap, os, struct
fd = os.open('shared', os.O_RDWR); m = mmap.mmap(fd, 0)
for k in range(1, %d + 1):
    for i in range(%d):
        at, data = i * 4096 + 8 * (i %% 500), struct.pack('<Q', k)
        if (i + k) %% 2: os.pwrite(fd, data, at)
        else: m[at:at + 8] = data
        if i %% 16 == 0 and os.pread(fd, 8, at) != data: raise SystemExit('read(2) does not see page %%d' %% i)
    if k %% 25 == 0: m.flush()
    if k %% 40 == 0: os.fsync(fd)
`, rounds, pages))
		for _, b := range readers {
			b.say("stop")
			b.expect(fmt.Sprintf("%d %d", rounds, rounds))
			b.end()
		}
		// Maps of growing files, private maps, maps that outlive their descriptor and their name.
		p.equal("maps", p.run(p.dir, "python3", "-c", `
import mmap, os
fd = os.open('grow', os.O_RDWR | os.O_CREAT)
for n in range(1, 60):
    os.ftruncate(fd, n * 5000)
    with mmap.mmap(fd, 0) as m: m[(n - 1) * 5000:n * 5000] = bytes([n]) * 5000
with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE) as m: m[:100] = b'p' * 100
m = mmap.mmap(fd, 0); os.close(fd); m[:4] = b'last'; os.rename('grow', 'grown'); m[4:8] = b'name'; m.close()
fd = os.open('gone', os.O_RDWR | os.O_CREAT); os.write(fd, b'x' * 100000); m = mmap.mmap(fd, 0); os.unlink('gone'); m[50000:50003] = b'abc'; m.flush()
os.close(fd); assert m[:3] == b'xxx' and m[50000:50003] == b'abc'; m.close()
data = open('grown', 'rb').read()
want = b'lastname' + bytes([1]) * 4992 + b''.join(bytes([n]) * 5000 for n in range(2, 60))
print(data == want)
`), "True")
		p.checkRemount()
	}, "python3")
}

// fio writes with checks in each block, reads them back, and once more after a remount.
func TestFio(t *testing.T) {
	bothPrograms(t, func(t *testing.T, p *prog) {
		size := fmt.Sprintf("%dm", times(3, 200))
		jobs := []struct {
			name string
			args []string
		}{
			{"psync", []string{"--ioengine=psync", "--rw=randwrite", "--bsrange=512-100k", "--blockalign=512"}},
			{"seq", []string{"--ioengine=psync", "--rw=write", "--bs=127k", "--end_fsync=1"}},
			{"fsync", []string{"--ioengine=psync", "--rw=randwrite", "--bs=8k", "--fdatasync=8"}},
			{"direct", []string{"--ioengine=psync", "--rw=randwrite", "--bs=4k,4k", "--direct=1"}},
			{"vectors", []string{"--ioengine=pvsync2", "--rw=randrw", "--bs=16k"}},
			{"mmap", []string{"--ioengine=mmap", "--rw=randwrite", "--bs=4k"}},
			{"libaio", []string{"--ioengine=libaio", "--rw=randwrite", "--bs=64k", "--direct=1", "--iodepth=16"}},
			{"io_uring", []string{"--ioengine=io_uring", "--rw=randwrite", "--bs=16k", "--iodepth=16"}},
			{"io_uring-direct", []string{"--ioengine=io_uring", "--rw=randwrite", "--bs=8k", "--direct=1", "--iodepth=8"}},
		}
		fio := func(dir, name string, args ...string) (string, error) {
			return p.try(dir, "fio", append([]string{"--name=" + name, "--filename=" + name, "--size=" + size, "--verify=crc32c", "--verify_fatal=1",
				"--randseed=7", "--allrandrepeat=1", "--output-format=terse", "--numjobs=1"}, args...)...)
		}
		for _, j := range jobs {
			if strings.HasPrefix(j.name, "io_uring") {
				// Containers often forbid it, and it is then missing on every filesystem.
				if out, err := fio(t.TempDir(), j.name, append(j.args, "--size=64k")...); err != nil {
					t.Logf("%s is not available on the host either: %s %v", j.name, out, err)
					continue
				}
			}
			if _, err := fio(p.dir, j.name, append(j.args, "--do_verify=1")...); err != nil {
				t.Errorf("%s: %v", j.name, err)
			}
		}
		// Several jobs share one file.
		shared := []string{"--output-format=terse"}
		for i := range 4 {
			shared = append(shared, fmt.Sprintf("--name=part%d", i), "--filename=together", fmt.Sprintf("--offset=%dm", i), "--size=1m", "--rw=randwrite", "--bs=4k",
				"--ioengine=psync", "--verify=sha256", "--verify_fatal=1", "--do_verify=1")
		}
		p.run(p.dir, "fio", shared...)
		p.checkRemount()
		for _, j := range jobs {
			if _, err := os.Stat(p.path(j.name)); err != nil {
				continue
			}
			if j.name == "vectors" {
				continue // its reads and writes are mixed by chance: nothing to repeat
			}
			if _, err := fio(p.dir, j.name, append(j.args, "--verify_only")...); err != nil {
				t.Errorf("%s after a remount: %v", j.name, err)
			}
		}
	}, "fio")
}

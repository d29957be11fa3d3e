package integration

import (
	"bytes"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// O_DIRECT at any offset and length, between buffered reads and writes and those of a mapping in another process.
func TestDirectIO(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 2))
		const size = 600_000
		want := patterned(size)
		path := m.write("file", want)
		direct, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
		m.must(err)
		buffered, err := os.OpenFile(path, os.O_RDWR, 0)
		m.must(err)
		memory, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		m.must(err)
		defer unix.Munmap(memory)
		for i := range times(200, 2000) {
			off, n := r.IntN(size), 1+r.IntN(100_000)
			skew := 0
			if i%2 == 0 { // as a database does it
				off, n = off&^4095, (n+4095)&^4095
			} else {
				skew = r.IntN(4096)
			}
			n = min(n, len(want)-off)
			buf := memory[skew : skew+n]
			f := direct
			if r.IntN(2) == 0 {
				f = buffered
			}
			if r.IntN(2) == 0 {
				_, err := f.ReadAt(buf, int64(off))
				m.must(err)
				same(t, f.Name(), buf, want[off:off+n])
				continue
			}
			for k := range buf {
				buf[k] = byte(r.Uint32())
			}
			_, err := f.WriteAt(buf, int64(off))
			m.must(err)
			copy(want[off:], buf)
		}
		// Beyond the end, with and without a hole.
		for _, gap := range []int{0, 4096, 10_001} {
			off := len(want) + gap
			_, err := direct.WriteAt(memory[:8192], int64(off))
			m.must(err)
			want = append(append(want, make([]byte, gap)...), memory[:8192]...)
			if st := lstat(t, path); st.Size != int64(len(want)) {
				t.Errorf("%d bytes, want %d", st.Size, len(want))
			}
		}
		if n, err := direct.ReadAt(memory[:8192], int64(len(want))-100); n != 100 || err == nil {
			t.Errorf("read over the end: %d, %v", n, err)
		}
		copy(want, patterned(64<<10))
		_, err = direct.WriteAt(want[:64<<10], 0)
		m.must(err)
		m.must(runChild(t, uint32(os.Geteuid()), "mmap", path))
		copy(want[5000:], "shared")
		copy(want[9000:], "written")
		copy(want[20000:], "unsynced")
		got := make([]byte, 64<<10)
		_, err = direct.ReadAt(got, 0)
		m.must(err)
		same(t, "direct, after the mapping", got, want[:64<<10])
		m.must(direct.Close())
		m.must(buffered.Close())
		m.want(path, want)
		m.remount()
		m.want(path, want)
	})
}

// Asynchronous direct writes beside buffered reads: once a write has ended, nobody reads what was there before it.
func TestAsyncDirectIO(t *testing.T) {
	m := mount(t, options{})
	const size = 640 << 10
	path := m.write("file", make([]byte, size))
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	m.must(err)
	defer f.Close()
	var ctx uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&ctx)), 0); errno != 0 {
		t.Skipf("no asynchronous I/O: %v", errno)
	}
	defer unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0)
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	m.must(err)
	defer unix.Munmap(memory)

	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := os.ReadFile(path); err != nil {
					t.Errorf("read: %v", err)
					return
				}
			}
		})
	}
	got := make([]byte, size)
	for i := range times(150, 2000) {
		for k := range memory {
			memory[k] = byte(i + 1)
		}
		cb := iocb{opcode: iocbPwrite, fd: uint32(f.Fd()), buf: uint64(uintptr(unsafe.Pointer(&memory[0]))), n: size}
		list := [1]*iocb{&cb}
		if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, 1, uintptr(unsafe.Pointer(&list[0]))); errno != 0 {
			t.Fatalf("io_submit: %v", errno)
		}
		var done ioEvent
		for {
			n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, ctx, 1, 1, uintptr(unsafe.Pointer(&done)), 0, 0)
			if n == 1 {
				break
			}
			if errno != unix.EINTR {
				t.Fatalf("io_getevents: %v", errno)
			}
		}
		runtime.KeepAlive(&cb)
		if done.res != size {
			t.Fatalf("wrote %d bytes", done.res)
		}
		r, err := os.Open(path)
		m.must(err)
		_, err = r.ReadAt(got, 0)
		m.must(err)
		r.Close()
		if !bytes.Equal(got, memory) {
			t.Errorf("round %d: a read shows what was there before", i)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// iocb and ioEvent are those of linux/aio_abi.h, as far as they are used here.
type iocb struct {
	_      [2]uint64
	opcode uint16
	_      int16
	fd     uint32
	buf    uint64
	n      uint64
	_      [3]uint64 // offset 0 and flags
}

type ioEvent struct {
	_   [2]uint64
	res int64
	_   int64
}

const iocbPwrite = 1

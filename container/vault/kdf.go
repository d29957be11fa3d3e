package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sys/unix"
)

// KDF are the parameters of Argon2id (RFC 9106): passes, memory in KiB, lanes. The zero value stands for DefaultKDF.
type KDF struct {
	Time      uint32
	MemoryKiB uint32
	Threads   uint8
}

// Bounds of FORMAT.md section 9. They are checked before a parameter is used, so that a config cannot make a mount run for a
// week or exhaust the machine.
const (
	maxTime      = 64
	maxThreads   = 64
	maxMemoryKiB = 16 << 20 // 16 GiB
	perLaneKiB   = 8        // Argon2's own minimum

	derivedSize   = 64 // key-encrypting key ‖ slot commitment
	saltSize      = 32
	maxPassphrase = 1 << 20 // bytes; a bound for the worker's input
)

// Default memory: RFC 9106 recommends t=3, p=4 with 64 MiB where memory is scarce and 2 GiB with t=1 where it is not. An
// encrypted directory is mounted on laptops and small servers alike, and the memory must be there again at every mount, on
// every machine that the vault may move to: 256 MiB costs an attacker four times the RFC's second choice and any current
// machine about half a second.
const (
	defaultTime        = 3
	defaultThreads     = 4
	defaultMemoryKiB   = 256 << 10
	defaultMemoryShare = 4 // of the machine's memory: a quarter at most
)

// DefaultKDF returns t=3, p=4 and 256 MiB, or a quarter of this machine's memory where that is less.
func DefaultKDF() KDF {
	k := KDF{Time: defaultTime, MemoryKiB: defaultMemoryKiB, Threads: defaultThreads}
	if total := machineMemoryKiB(); total > 0 {
		k.MemoryKiB = uint32(min(uint64(k.MemoryKiB), total/defaultMemoryShare))
	}
	k.MemoryKiB = max(k.MemoryKiB, perLaneKiB*defaultThreads)
	return k
}

// check tests the bounds that hold on every machine.
func (k KDF) check() error {
	if k.Time < 1 || k.Time > maxTime || k.Threads < 1 || k.Threads > maxThreads ||
		k.MemoryKiB < perLaneKiB*uint32(k.Threads) || k.MemoryKiB > maxMemoryKiB {
		return fmt.Errorf("t=%d, m=%d KiB, p=%d: %w", k.Time, k.MemoryKiB, k.Threads, ErrKDF)
	}
	return nil
}

// checkMachine tests all bounds, this machine's memory included. A machine that does not tell its memory is trusted.
func (k KDF) checkMachine() error {
	if err := k.check(); err != nil {
		return err
	}
	if total := machineMemoryKiB(); total > 0 && uint64(k.MemoryKiB) > total {
		return fmt.Errorf("key derivation needs %d MiB and this machine has %d MiB: %w", k.MemoryKiB>>10, total>>10, ErrKDF)
	}
	return nil
}

// machineMemoryKiB returns 0 where the kernel does not say.
func machineMemoryKiB() uint64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return si.Totalram * uint64(si.Unit) >> 10
}

// A Deriver runs Argon2id over passphrase and salt and returns 64 bytes, which the caller owns and wipes. It keeps neither
// argument. Its parameters have been checked. Safe for concurrent use.
type Deriver func(passphrase, salt []byte, k KDF) ([]byte, error)

// DeriveInProcess is the Deriver that runs here. Its memory, up to MemoryKiB, stays with this process until the garbage
// collector gives it back: a daemon wants ProcessDeriver.
func DeriveInProcess(passphrase, salt []byte, k KDF) ([]byte, error) {
	if err := k.checkMachine(); err != nil { // IDKey panics on zeros
		return nil, err
	}
	return argon2.IDKey(passphrase, salt, k.Time, k.MemoryKiB, k.Threads, derivedSize), nil
}

// The worker's input. The passphrase travels through a pipe only: arguments and environment are visible to others.
//
//	 0  8  magic "CKDF0001"
//	 8  4  time
//	12  4  memory, KiB
//	16  4  threads
//	20 32  salt
//	52  4  length of the passphrase
//	56  …  passphrase
const (
	workerMagic = "CKDF0001"
	workerHead  = 56
)

// ProcessDeriver returns a Deriver that runs name with args and an environment with nothing but the race detector's options, as a process
// that lives for one derivation and hands its memory back to the system by ending. The program must call RunKDFWorker with its standard
// input and output. To re-execute the running program, name is "/proc/self/exe".
func ProcessDeriver(name string, args ...string) Deriver {
	return func(passphrase, salt []byte, k KDF) ([]byte, error) {
		if err := k.checkMachine(); err != nil {
			return nil, err
		}
		if len(salt) != saltSize || len(passphrase) > maxPassphrase {
			return nil, fmt.Errorf("vault: derive key: passphrase or salt too long: %w", ErrKDF)
		}
		in := encodeJob(passphrase, salt, k)
		defer clear(in)
		out, err := runWorker(exec.Command(name, args...), in)
		if err != nil {
			return nil, fmt.Errorf("vault: derive key in a process of its own: %w", err)
		}
		return out, nil
	}
}

func encodeJob(passphrase, salt []byte, k KDF) []byte {
	in := make([]byte, 0, workerHead+len(passphrase)) // never grown: no copy of the passphrase is left behind
	in = append(in, workerMagic...)
	in = binary.LittleEndian.AppendUint32(in, k.Time)
	in = binary.LittleEndian.AppendUint32(in, k.MemoryKiB)
	in = binary.LittleEndian.AppendUint32(in, uint32(k.Threads))
	in = append(in, salt...)
	in = binary.LittleEndian.AppendUint32(in, uint32(len(passphrase)))
	return append(in, passphrase...)
}

// runWorker writes in to the process and reads exactly one derived key.
func runWorker(cmd *exec.Cmd, in []byte) ([]byte, error) {
	cmd.Env = []string{}
	if race, ok := os.LookupEnv("GORACE"); ok {
		cmd.Env = append(cmd.Env, "GORACE="+race)
	}
	var complaint strings.Builder
	cmd.Stderr = &limitedWriter{w: &complaint, left: 512}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// The worker reads all of its input before it writes, so this order cannot block. EPIPE only says that it has died,
	// which Wait tells better.
	_, werr := stdin.Write(in)
	stdin.Close()
	out := make([]byte, derivedSize)
	_, rerr := io.ReadFull(stdout, out)
	if err := cmd.Wait(); err != nil {
		clear(out)
		if text := strings.TrimSpace(complaint.String()); text != "" {
			return nil, fmt.Errorf("%w: %s", err, text)
		}
		return nil, err
	}
	if err := errors.Join(werr, rerr); err != nil {
		clear(out)
		return nil, err
	}
	return out, nil
}

// limitedWriter takes everything and passes on the first bytes, so that a worker's panic does not fill a message.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// RunKDFWorker is the whole life of a derivation process: it reads one job from stdin, to its end, and writes 64 bytes to
// stdout. The process should have core dumps off and must end afterwards.
func RunKDFWorker(stdin io.Reader, stdout io.Writer) error {
	var head [workerHead]byte
	if _, err := io.ReadFull(stdin, head[:]); err != nil {
		return fmt.Errorf("vault: key derivation job: %w", err)
	}
	le := binary.LittleEndian
	threads, n := le.Uint32(head[16:]), le.Uint32(head[52:])
	if string(head[:8]) != workerMagic || threads > maxThreads || n > maxPassphrase {
		return errors.New("vault: key derivation job: malformed")
	}
	passphrase := make([]byte, n)
	defer clear(passphrase)
	if _, err := io.ReadFull(stdin, passphrase); err != nil {
		return fmt.Errorf("vault: key derivation job: %w", err)
	}
	k := KDF{Time: le.Uint32(head[8:]), MemoryKiB: le.Uint32(head[12:]), Threads: uint8(threads)}
	out, err := DeriveInProcess(passphrase, head[20:52], k)
	if err != nil {
		return err
	}
	defer clear(out)
	_, err = stdout.Write(out)
	return err
}

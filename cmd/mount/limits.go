package main

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// noCoreDumps keeps keys and plaintext out of core files, for this process and what it starts.
func noCoreDumps() error {
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

// raiseFileLimit takes all the descriptors that the system grants: every open file of the mount is one on the host. Root may go beyond the hard limit
// that it was given, which every program on the mount has for itself alone.
func raiseFileLimit() error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	if most := systemFileLimit(); most > lim.Max && unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}) == nil {
		return nil
	}
	if lim.Cur >= lim.Max {
		return nil
	}
	lim.Cur = lim.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
}

// systemFileLimit is the most that one process may have; 0 where the kernel does not say.
func systemFileLimit() uint64 {
	text, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// machineMemory is in bytes; 0 where the kernel does not say.
func machineMemory() uint64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return si.Totalram * uint64(si.Unit)
}

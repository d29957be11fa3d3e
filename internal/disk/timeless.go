package disk

import "golang.org/x/sys/unix"

// StatTimeless fills st with what the host says of an open file, or what else has a Stat, and leaves mtime and ctime as they are in st where the host can do
// without being asked for them. Who needs neither asks so: under write-back a clock that was moved costs a SETATTR for each fsync after it.
func StatTimeless(f interface{ Stat(st *unix.Stat_t) error }, st *unix.Stat_t) error {
	if h, ok := f.(interface{ StatTimeless(st *unix.Stat_t) error }); ok && h.StatTimeless(st) == nil {
		return nil
	}
	return f.Stat(st)
}

// StatNew is Stat of a file that was just made. Where the host tells the time of birth mtime and ctime are that, as after StatTimeless.
func StatNew(f File, st *unix.Stat_t) error {
	if h, ok := f.(interface{ StatNew(st *unix.Stat_t) error }); ok && h.StatNew(st) == nil {
		return nil
	}
	return f.Stat(st)
}

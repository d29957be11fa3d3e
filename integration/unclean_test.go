package integration

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// crash ends the mount as a kill of the daemon would: the kernel's pages were handed over, nothing else is, and the session stays open in
// the state.
func (m *mounted) crash() {
	m.t.Helper()
	m.must(m.server.Unmount())
	m.server.Wait()
	m.server = nil
	m.must(m.engine.Close(false))
	m.must(m.v.CloseUnclean())
}

// After an unclean session a host length tells nothing and a new file may lack its header; outside of it both are damage.
func TestUncleanSession(t *testing.T) {
	m := mount(t, options{wantErrors: true})
	data := patterned(100_000)
	for _, name := range []string{"old", "oldtorn"} {
		m.write(name, data)
	}
	m.remount() // they are of a clean session
	for _, name := range []string{"long", "short", "none", "zeros", "torn", "fine"} {
		m.write(name, data)
	}
	hostOf := map[string]string{}
	byIno := map[uint64]string{}
	for _, h := range m.host() {
		byIno[lstat(t, h).Ino] = h
	}
	for _, name := range []string{"old", "oldtorn", "long", "short", "none", "zeros", "torn", "fine"} {
		hostOf[name] = byIno[lstat(t, m.path(name)).Ino]
	}
	m.crash()
	resize := func(name string, size int64) { m.must(os.Truncate(hostOf[name], size)) }
	end := lstat(t, hostOf["long"]).Size
	resize("long", end+4096)
	resize("short", end+7)
	resize("none", 0)
	resize("zeros", 0)
	resize("zeros", 8192)
	resize("torn", 100)
	resize("oldtorn", 100)
	m.start()
	for name, want := range map[string][]byte{"old": data, "long": data, "short": data, "fine": data, "none": {}, "zeros": {}, "torn": {}} {
		if st := lstat(t, m.path(name)); st.Size != int64(len(want)) {
			t.Errorf("%s: size %d, want %d", name, st.Size, len(want))
		}
		m.want(m.path(name), want)
	}
	if _, err := os.ReadFile(m.path("oldtorn")); !errors.Is(err, unix.EIO) {
		t.Errorf("torn header of a clean session: %v", err)
	}
	// They are files as any other again.
	for _, name := range []string{"long", "short", "none", "zeros", "torn"} {
		f, err := os.OpenFile(m.path(name), os.O_RDWR|os.O_APPEND, 0)
		m.must(err)
		_, err = f.WriteString("more")
		m.must(errors.Join(err, f.Close()))
	}
	m.remount()
	for name, want := range map[string][]byte{"long": data, "short": data, "none": nil, "zeros": nil, "torn": nil} {
		m.want(m.path(name), append(append([]byte{}, want...), "more"...))
	}
	if got := lstat(t, hostOf["long"]).Size; got != end+4 {
		t.Errorf("host length %d was not put right: want %d", got, end+4)
	}
}

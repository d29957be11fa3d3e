package vault

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/event"
)

// What SaveCtimes wrote is what Ctimes reads in the next session; whatever is not authentic is reported and counts for nothing.
func TestCtimes(t *testing.T) {
	path, _ := newVault(t)
	var damage int
	session := func(use func(v *Vault)) {
		t.Helper()
		cfg, mk := unlock(t, path, testPass)
		defer mk.Destroy()
		v, err := Open(path, cfg, mk, OpenOptions{Events: func(e event.Event) {
			if e.Kind == event.Damage {
				damage++
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		use(v)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(want map[keys.ObjectID]Ctime, reported int) {
		t.Helper()
		damage = 0
		session(func(v *Vault) {
			if got := v.Ctimes(); !maps.Equal(got, want) || damage != reported {
				t.Errorf("got %v, want %v; %d reports, want %d", got, want, damage, reported)
			}
		})
	}
	none := map[keys.ObjectID]Ctime{}
	of := map[keys.ObjectID]Ctime{
		{1}: {unix.Timespec{Sec: 1, Nsec: 2}, unix.Timespec{Sec: 3, Nsec: 999999999}},
		{2}: {unix.Timespec{Sec: -5}, unix.Timespec{Sec: 1 << 40}},
	}
	read(none, 0)
	session(func(v *Vault) {
		if err := v.SaveCtimes(of); err != nil {
			t.Fatal(err)
		}
	})
	read(of, 0)

	file := filepath.Join(path, ".coffer", ctimesName)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		write(bad)
		if i%16 == 0 { // a session takes a while
			read(none, 1)
		}
	}
	for _, n := range []int{0, 1, 15, 16, len(good) - 40, len(good) - 1} {
		write(good[:n])
		read(none, 1)
	}
	write(append(good[:len(good):len(good)], 0))
	read(none, 1)
	write(good)
	read(of, 0)

	first := path
	path, _ = newVault(t)
	file = filepath.Join(path, ".coffer", ctimesName)
	write(good)
	read(none, 1) // another vault's
	path = first
	read(of, 0)
}

package integration

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Much of this once more as a user who is not root: fusermount3 mounts, the host refuses what it refuses to users, and files keep their owner.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is a user already, so every other test runs as one")
	}
	if path, err := exec.LookPath("fusermount3"); err != nil {
		t.Skipf("users cannot mount: %v", err)
	} else if st, err := os.Stat(path); err != nil || st.Mode()&os.ModeSetuid == 0 {
		t.Skipf("users cannot mount: %s is not setuid", path)
	}
	if st, err := os.Stat(os.TempDir()); err != nil || st.Mode()&0o003 != 0o003 {
		t.Skipf("users cannot write to %s", os.TempDir())
	}
	const run = "^(TestPosix|TestRename|TestUnlinkOpen|TestTruncate|TestUtimes|TestMtimeOfWrites|TestHardLinks|TestSymlinks|TestNames|TestRemountAndCompare|TestXattr|TestXattrTooLargeForHost|TestXattrUnlinked|TestXattrDamage|TestACL|TestNoACL|TestModesOfUser|TestSetIDs|TestTmpfile|TestBirthTime|TestCopyFileRange|TestCopyOfDirtyPages|TestFallocateBesideWrites|TestExchangeInUse|TestLongestNames|TestDeepTree|TestReadOnly)$"
	cmd := exec.Command("/proc/self/exe", "-test.run", run, "-test.v")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "--- PASS"); n < 80 {
		t.Errorf("only %d tests ran:\n%s", n, out)
	}
}

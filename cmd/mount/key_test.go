package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/cofferfs/coffer/container/vault"
)

// runTestPlugin is a plugin of age whose keys are X25519's. The test binary is it under the name age-plugin-cofferpin.
func runTestPlugin() int {
	p, err := plugin.New(testPlugin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	p.HandleRecipient(func(data []byte) (age.Recipient, error) { return age.ParseX25519Recipient(string(data)) })
	p.HandleIdentity(func(data []byte) (age.Identity, error) { return age.ParseX25519Identity(string(data)) })
	return p.Main()
}

const testPlugin = "cofferpin"

// slots are those of `key list --json`.
func (b *box) slots(v string) (slots []slotInfo) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.ok("", "key", "list", "--json", v).stdout), &slots); err != nil {
		b.t.Fatal(err)
	}
	return slots
}

// opens says whether flags open the vault, with nothing on standard input.
func (b *box) opens(v string, flags ...string) result {
	b.t.Helper()
	out := b.path("shown")
	defer os.Remove(out)
	return b.run("", append([]string{"recover", "--show", "--recovery-file", out, v}, flags...)...)
}

func (b *box) wantOpens(v string, flags ...string) {
	b.t.Helper()
	if r := b.opens(v, flags...); r.code != 0 {
		b.t.Errorf("%v: exit %d\n%s", flags, r.code, r.stderr)
	}
}

func (b *box) wantShut(code Code, want, v string, flags ...string) {
	b.t.Helper()
	b.checkFailure(b.opens(v, flags...), code, want, flags...)
}

// identity makes an identity file and returns it and the recipient.
func (b *box) identity(name string) (file, recipient string) {
	b.t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		b.t.Fatal(err)
	}
	return b.write(name, "# created: today\n\n"+id.String()+"\n"), id.Recipient().String()
}

// All kinds at once, added and removed while the vault is mounted.
func TestKeySlots(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "mp")
	pass, second := b.write("pass", passphrase+"\n"), b.write("second", "second one\n")
	id, recipient := b.identity("id")
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	pqFile := b.write("pq", pq.String()+"\n")

	b.ok(passphrase+"\nsecond one\n", append([]string{"key", "add", "--label", "laptop", v}, cheap...)...)
	made := b.path("made")
	b.ok("", "key", "add", "--passfile", pass, "--keyfile", made, "--label", "stick", v)
	if st, err := os.Stat(made); err != nil || st.Mode() != 0o600 || st.Size() != madeKeyFile {
		t.Errorf("key file: %v, %v", st, err)
	}
	var added slotInfo
	r := b.ok("", "key", "add", "--unlock-keyfile", made, "--recipient", recipient, "--json", v)
	if err := json.Unmarshal([]byte(r.stdout), &added); err != nil || added.Recipient != recipient || added.Kind != vault.KindAge {
		t.Errorf("%v: %s", err, r.stdout)
	}
	b.ok("", "key", "add", "--identity", id, "--recipient", pq.Recipient().String(), v)

	all := [][]string{{"--passfile", pass}, {"--passfile", second}, {"--keyfile", made}, {"--identity", id}, {"--identity", pqFile}}
	slots := b.slots(v)
	if len(slots) != len(all) || slots[1].Label != "laptop" || slots[3].ID != added.ID || slots[4].Recipient != pq.Recipient().String() || slots[0].KDF == nil {
		t.Fatalf("slots %+v", slots)
	}
	for _, text := range []string{b.ok("", "key", "list", v).stdout, b.ok("", "info", v).stdout, b.ok("", "info", "--json", v).stdout} {
		for _, want := range []string{slots[0].ID, slots[4].ID, "laptop", recipient, "keyfile", "argon2id"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in\n%s", want, text)
			}
		}
		if strings.Contains(text, "wrapped") || strings.Contains(text, "age_file") {
			t.Errorf("more than a list:\n%s", text)
		}
	}
	for _, flags := range all {
		b.wantOpens(v, flags...)
	}
	writeFile(t, filepath.Join(mp, "file"), "written while slots changed")
	b.ok("", "umount", mp)
	for _, flags := range all[1:] {
		b.ok("", append([]string{"mount", v, mp}, flags...)...)
		readFile(t, filepath.Join(mp, "file"))
		b.ok("", "umount", mp)
	}

	b.ok("", "key", "remove", "--identity", id, v, "laptop")
	b.wantShut(exitPassphrase, "wrong passphrase", v, all[1]...)
	b.ok("", "key", "remove", "--passfile", pass, v, slots[0].ID) // with itself
	b.wantShut(exitPassphrase, "no passphrase slot", v, all[0]...)
	b.ok("", "key", "rm", "--keyfile", made, v, "stick")
	b.ok("", "key", "rm", "--identity", id, v, slots[4].ID)
	b.fails(exitUsage, "last key slot", "", "key", "remove", "--identity", id, v, slots[3].ID)
	b.wantOpens(v, all[3]...)
}

func TestKeyErrors(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	pass := b.write("pass", passphrase+"\n")
	id, recipient := b.identity("id")
	other, _ := b.identity("other")
	good, short := b.write("good", strings.Repeat("random", 10)), b.write("short", strings.Repeat("x", 31))
	add := []string{"key", "add", "--passfile", pass, v}
	b.ok("", append(add, "--keyfile", good)...)
	b.ok("", append(add, "--recipient", recipient)...)
	unchanged(t, func() {
		b.fails(exitUsage, "command is missing", "", "key")
		b.fails(exitUsage, "unknown command", "", "key", "frob")
		b.fails(exitUsage, "takes 2 arguments", "", "key", "remove", v)
		b.fails(exitUsage, "a slot is for", "", append(add, "--keyfile", good, "--recipient", recipient)...)
		b.fails(exitUsage, "different ways", "", append(add, "--unlock-keyfile", good)...)
		b.fails(exitUsage, "malformed recipient", "", append(add, "--recipient", recipient+"q")...)
		b.fails(exitUsage, "is an identity", "", append(add, "--recipient", strings.TrimSpace(strings.Split(readFile(t, id), "\n")[2]))...)
		b.fails(exitUsage, "label", "", append(add, "--label", strings.Repeat("x", 65))...)
		b.fails(exitUsage, "inside of the vault", "", append(add, "--keyfile", filepath.Join(v, "key"))...)
		b.fails(exitReadSecret, "length of the key file", "", append(add, "--keyfile", short)...)
		b.fails(exitOther, "cannot make the key file", "", append(add, "--keyfile", b.path("no/such/dir"))...)
		b.fails(exitReadSecret, "could not be used", "", append(add, "--keyfile", good, "--passfile", "", "--identity", b.pluginFile("nosuchplugin"))...)
		b.fails(exitPassphrase, "wrong passphrase", "wrong\n", "key", "add", "--keyfile", b.path("new"), v)
		b.fails(exitPassphrase, "wrong passphrase", "wrong\n", "key", "remove", v, b.slots(v)[1].ID)
		b.fails(exitUsage, "no such key slot", "", "key", "remove", "--passfile", pass, v, "0123456789abcdef")
		b.fails(exitUsage, "no key slot", "", "key", "remove", "--passfile", pass, v, "nope")
		b.fails(exitVaultDir, "does not exist", "", "key", "list", b.path("nope"))
		b.fails(exitUsage, "nothing else to unlock", "", "recover", "--keyfile", good, v)
		b.fails(exitUsage, "no key file and no recipient", "", "mount", "--create", "--keyfile", good, b.path("v2"), b.path("m2"))
	}, v)
	if _, err := os.Stat(b.path("new")); err == nil {
		t.Error("a key file was made for nothing")
	}
	b.wantShut(exitPassphrase, "wrong key file", v, "--keyfile", b.write("bad", strings.Repeat("rAndom", 10)))
	b.wantShut(exitReadSecret, "length of the key file", v, "--keyfile", short)
	b.wantShut(exitReadSecret, "no such file", v, "--keyfile", b.path("nope"))
	b.wantShut(exitPassphrase, "wrong identity", v, "--identity", other)
	b.wantShut(exitReadSecret, "line 1", v, "--identity", good)
	b.wantShut(exitReadSecret, "no identity", v, "--identity", b.write("empty", "# nothing\n"))
	b.wantShut(exitUsage, "different ways", v, "--identity", id, "--keyfile", good)
}

func (b *box) pluginFile(name string) string {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		b.t.Fatal(err)
	}
	return b.write(name+".id", "# recipient: "+plugin.EncodeRecipient(name, []byte(id.Recipient().String()))+"\n"+
		plugin.EncodeIdentity(name, []byte(id.String()))+"\n")
}

// A plugin is a program in PATH that speaks age's protocol, as those of YubiKeys and TPMs do.
func TestKeyPlugin(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	bin := b.mkdir("bin")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "age-plugin-"+testPlugin)); err != nil {
		t.Fatal(err)
	}
	file := b.pluginFile(testPlugin)
	recipient := regexp.MustCompile(`age1\S+`).FindString(readFile(t, file))
	pass := b.write("pass", passphrase+"\n")
	b.fails(exitReadSecret, "could not be used", "", "key", "add", "--passfile", pass, "--recipient", recipient, v)
	b.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	b.ok("", "key", "add", "--passfile", pass, "--recipient", recipient, v)
	if s := b.slots(v); len(s) != 2 || s[1].Recipient != recipient {
		t.Errorf("slots %+v", s)
	}
	b.wantOpens(v, "--identity", file)
	b.env = nil
	b.wantShut(exitReadSecret, "could not be used", v, "--identity", file)
}

// With other ways to unlock, passwd changes the passphrase that is meant.
func TestPasswdOfSlots(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	pass, key := b.write("pass", passphrase+"\n"), b.path("key")
	b.ok("", "key", "add", "--passfile", pass, "--keyfile", key, v)
	b.ok("forgotten no more\n", "passwd", "--keyfile", key, v)
	one, two, three := b.write("one", "forgotten no more\n"), b.write("two", "two\n"), b.write("three", "three\n")
	b.wantOpens(v, "--passfile", one)
	b.wantShut(exitPassphrase, "wrong passphrase", v, "--passfile", pass)
	b.ok("", append([]string{"key", "add", "--keyfile", "", "--unlock-keyfile", key, "--new-passfile", two, "--label", "second", v}, cheap...)...)
	b.fails(exitUsage, "has 2 passphrases", "", "passwd", "--keyfile", key, "--new-passfile", three, v)
	b.fails(exitUsage, "has no passphrase", "", "passwd", "--keyfile", key, "--slot", b.slots(v)[1].ID, "--new-passfile", three, v)
	b.ok("", "passwd", "--passfile", two, "--new-passfile", three, v) // the one that opened
	b.wantOpens(v, "--passfile", one)
	b.wantOpens(v, "--passfile", three)
	b.ok("", "passwd", "--keyfile", key, "--slot", "second", "--new-passfile", two, v)
	b.wantOpens(v, "--passfile", one)
	b.wantShut(exitPassphrase, "wrong passphrase", v, "--passfile", three)
	b.wantOpens(v, "--keyfile", key)
	b.ok("", "key", "remove", "--keyfile", key, v, "second")
	if s := b.slots(v); len(s) != 2 {
		t.Errorf("slots %+v", s)
	}
}

// Two processes that add slots at once both succeed.
func TestKeyAddAtOnce(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	pass := b.write("pass", passphrase+"\n")
	var wg sync.WaitGroup
	results := make([]result, 4)
	for i := range results {
		wg.Go(func() {
			results[i] = b.run("", "key", "add", "--passfile", pass, "--keyfile", b.path(fmt.Sprint("key", i)), v)
		})
	}
	wg.Wait()
	for i, r := range results {
		if r.code != 0 {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
		b.wantOpens(v, "--keyfile", b.path(fmt.Sprint("key", i)))
	}
}

// The attack that pins are for: somebody who knows the recipient, and no secret, puts in a config of his own.
func TestKeyPins(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	pass := b.write("pass", passphrase+"\n")
	id, recipient := b.identity("id")
	b.ok("", "key", "add", "--passfile", pass, "--recipient", recipient, v)
	pins := b.path("state/coffer/" + pinsName)
	if got := readFile(t, pins); strings.Count(got, "\n") != 1 {
		t.Errorf("pins after the recipient was added:\n%s", got)
	}
	// On another machine the first use is believed, and remembered.
	mine := readFile(t, pins)
	if err := os.Remove(pins); err != nil {
		t.Fatal(err)
	}
	if r := b.opens(v, "--identity", id); r.code != 0 || !strings.Contains(r.stderr, "first time") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if r := b.opens(v, "--identity", id); r.code != 0 || strings.Contains(r.stderr, "first time") {
		t.Errorf("the second time: exit %d: %s", r.code, r.stderr)
	}
	if got := readFile(t, pins); got != mine {
		t.Errorf("pins\n%swant\n%s", got, mine)
	}

	// Another vault in its place.
	evil, _ := b.newVault("evil")
	b.ok("", "key", "add", "--passfile", pass, "--recipient", recipient, evil)
	swap := func(a, c string) {
		t.Helper()
		tmp := b.path("tmp")
		if err := exec.Command("sh", "-c", `mv "$1" "$3" && mv "$2" "$1" && mv "$3" "$2"`, "sh", a, c, tmp).Run(); err != nil {
			t.Fatal(err)
		}
	}
	swap(v, evil)
	b.wantShut(exitConfig, "another vault", v, "--identity", id)
	b.wantOpens(v, "--passfile", pass) // a passphrase cannot be used like that
	swap(v, evil)
	b.wantOpens(v, "--identity", id)

	// The same vault id and another master key.
	commitment := strings.Fields(mine)[1]
	writeFile(t, pins, strings.Replace(mine, commitment, strings.Repeat("0", 64), 1))
	b.wantShut(exitConfig, "another master key", v, "--identity", id)

	// A line without its end is none; a malformed one is not passed over.
	writeFile(t, pins, mine+"torn")
	b.wantOpens(v, "--identity", id)
	writeFile(t, pins, "nonsense\n"+mine)
	b.wantShut(exitOther, "line 1 of", v, "--identity", id)

	// The user's own new vault in the place of the old one is no attack.
	writeFile(t, pins, mine+"torn")
	if err := os.RemoveAll(v); err != nil {
		t.Fatal(err)
	}
	b.ok(passphrase+"\n", append([]string{"init", "--recovery-file", b.path("r2"), v}, cheap...)...)
	b.ok("", "key", "add", "--passfile", pass, "--recipient", recipient, v)
	b.wantOpens(v, "--identity", id)
	if got := readFile(t, pins); bytes.Contains([]byte(got), []byte("torn")) || strings.Count(got, "\n") != 2 {
		t.Errorf("pins\n%s", got)
	}
}

func TestKeyOnTerminal(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	tm := b.start(append([]string{"key", "add", v}, cheap...)...)
	for _, step := range []struct{ prompt, answer string }{
		{"Current passphrase: ", passphrase}, {"New passphrase: ", "another"}, {"New passphrase again: ", "another"},
	} {
		tm.expectSecret(step.prompt)
		tm.typeLine(step.answer)
	}
	if code := tm.wait(); code != 0 {
		t.Errorf("exit %d\n%s", code, tm.text())
	}
	b.wantOpens(v, "--passfile", b.write("another", "another\n"))
}

package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/event"
)

func TestConfigFile(t *testing.T) {
	path := t.TempDir()
	p := Params{Suite: "xchacha20-poly1305", Digest: "sha256", SegmentSize: 1 << 20, FrameSize: 32 << 10}
	if _, err := Create(path, Options{Params: p, KDF: testKDF}, testPass); err != nil {
		t.Fatal(err)
	}
	c, _ := unlock(t, path, testPass)
	if c.VaultParams() != p || c.GeometryID() != 6 || c.Warning() != nil || c.Slots[0].KDF != testKDF {
		t.Errorf("read back %+v", c)
	}
	file := read(t, coffer(path, configName))
	if !bytes.Equal(file, read(t, coffer(path, backupName))) || !bytes.Equal(file, c.file()) {
		t.Error("config, config.bak and the parsed config are not the same bytes")
	}
	body, err := encodeConfig(c)
	if err != nil || !bytes.Equal(body, c.body) {
		t.Errorf("re-encoded differently: %v\n%s", err, body)
	}
}

func TestParams(t *testing.T) {
	for _, p := range []Params{
		{Suite: "aes-gcm"}, {Digest: "md5"}, {SegmentSize: 48 << 10}, {SegmentSize: 64 << 10, FrameSize: 32 << 10}, {FrameSize: 4096},
	} {
		path := t.TempDir()
		_, err := Create(path, Options{Params: p, KDF: testKDF}, testPass)
		wantErr(t, err, ErrParams)
		if list, _ := os.ReadDir(path); len(list) != 0 {
			t.Errorf("%+v: left %v", p, list)
		}
	}
}

// form returns a good config file and its parts.
func form(t testing.TB) (body, trailer string) {
	path, _ := newVault(t)
	file := string(read(t, coffer(path, configName)))
	return file[:len(file)-trailerSize], file[len(file)-trailerSize:]
}

func TestParseRejects(t *testing.T) {
	body, trailer := form(t)
	if _, err := parseConfig([]byte(body + trailer)); err != nil {
		t.Fatal(err)
	}
	sub := func(old, new string) string {
		s := strings.Replace(body, old, new, 1)
		if s == body {
			t.Fatalf("%q does not occur in the config", old)
		}
		return s + trailer
	}
	for _, c := range []struct {
		name, data string
		want       error
	}{
		{"empty", "", ErrConfig},
		{"no trailer", body, ErrConfig},
		{"trailing data", body + trailer + "\n", ErrConfig},
		{"trailing object", strings.TrimSuffix(body, "\n") + "{}\n" + trailer, ErrConfig},
		{"second newline", body + "\n" + trailer, ErrConfig},
		{"leading space", " " + body + trailer, ErrConfig},
		{"upper-case MAC", body + strings.ToUpper(trailer), ErrConfig},
		{"cut MAC", body + trailer[:len(trailer)-2] + "\n", ErrConfig},
		{"other format", sub(`"coffer-vault"`, `"coffer-volt"`), ErrConfig},
		{"version 2", sub(`"version": 1`, `"version": 2`), ErrVersion},
		{"version 2 and anything", `{"format": "coffer-vault", "version": 2, "x": null}`, ErrVersion},
		{"incompat feature", sub(`"incompat": 0`, `"incompat": 1`), ErrFeature},
		{"unknown key", sub(`"version": 1`, `"version": 1, "extra": 0`), ErrConfig},
		{"unknown key in features", sub(`"compat": 0`, `"compat": 0, "extra": 0`), ErrConfig},
		{"unknown key in slot", sub(`"kdf":`, `"extra": 0, "kdf":`), ErrConfig},
		{"repeated key", sub(`"version": 1`, `"version": 1, "version": 1`), ErrConfig},
		{"repeated key in slot", sub(`"time": 1`, `"time": 1, "time": 1`), ErrConfig},
		{"repeated key, escaped", sub(`"version": 1`, `"version": 1, "\u0076ersion": 1`), ErrConfig},
		{"key in another case", sub(`"suite"`, `"Suite"`), ErrConfig},
		{"missing key", sub(`"key_epoch": 0,`, ``), ErrConfig},
		{"null", sub(`"key_epoch": 0`, `"key_epoch": null`), ErrConfig},
		{"fraction", sub(`"key_epoch": 0`, `"key_epoch": 0.5`), ErrConfig},
		{"negative", sub(`"key_epoch": 0`, `"key_epoch": -1`), ErrConfig},
		{"too large", sub(`"key_epoch": 0`, `"key_epoch": 4294967296`), ErrConfig},
		{"text for number", sub(`"key_epoch": 0`, `"key_epoch": "0"`), ErrConfig},
		{"object for text", sub(`"key_epoch": 0`, `"key_epoch": {}`), ErrConfig},
		{"features no object", regexp.MustCompile(`(?s)"features": \{.*?\}`).ReplaceAllString(body, `"features": 0`) + trailer, ErrConfig},
		{"slots no array", regexp.MustCompile(`(?s)"slots": \[.*\]`).ReplaceAllString(body, `"slots": {}`) + trailer, ErrConfig},
		{"no slot", regexp.MustCompile(`(?s)"slots": \[.*\]`).ReplaceAllString(body, `"slots": []`) + trailer, ErrConfig},
		{"not UTF-8", sub(`"crc32c"`, "\"cr\xffc32c\""), ErrConfig},
		{"unknown suite", sub(`"xaes-256-gcm"`, `"aes-128-gcm"`), ErrFeature},
		{"unknown digest", sub(`"crc32c"`, `"crc64"`), ErrFeature},
		{"unknown geometry", sub(`"frame_size": 4096`, `"frame_size": 8192`), ErrFeature},
		{"unknown kdf", sub(`"argon2id"`, `"pbkdf2"`), ErrFeature},
		{"unknown slot kind", sub(`"passphrase"`, `"smoke signals"`), ErrFeature},
		{"short salt", sub(`"salt": "`, `"salt": "00`), ErrConfig},
		{"no hex", regexp.MustCompile(`"vault_id": ".`).ReplaceAllString(body, `"vault_id": "g`) + trailer, ErrConfig},
		{"time", regexp.MustCompile(`"created": "20`).ReplaceAllString(body, `"created": "+20`) + trailer, ErrConfig},
		{"time with offset", regexp.MustCompile(`Z",`).ReplaceAllString(body, `+00:00",`) + trailer, ErrConfig},
		{"t 0", sub(`"time": 1`, `"time": 0`), ErrKDF},
		{"t 65", sub(`"time": 1`, `"time": 65`), ErrKDF},
		{"p 0", sub(`"threads": 1`, `"threads": 0`), ErrKDF},
		{"p 65", sub(`"threads": 1`, `"threads": 65`), ErrKDF},
		{"p 257", sub(`"threads": 1`, `"threads": 257`), ErrKDF},
		{"m below 8p", sub(`"memory_kib": 8`, `"memory_kib": 7`), ErrKDF},
		{"m above 16 GiB", sub(`"memory_kib": 8`, `"memory_kib": 16777217`), ErrKDF},
		{"large", "{" + strings.Repeat(" ", maxConfigSize) + body[1:] + trailer, ErrConfig},
		{"deep", strings.Repeat(`{"format":`, 20000), ErrConfig},
	} {
		_, err := parseConfig([]byte(c.data))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
		if err != nil && errors.Is(err, ErrKDF) && !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v is no ErrConfig", c.name, err)
		}
	}
}

func TestTooManySlots(t *testing.T) {
	body, _ := form(t)
	i, j := strings.Index(body, "[")+1, strings.LastIndex(body, "]")
	slot := body[i:j]
	var slots []string
	for k := range maxSlots + 1 {
		slots = append(slots, regexp.MustCompile(`"id": "\w+"`).ReplaceAllString(slot, fmt.Sprintf(`"id": "%016x"`, k)))
	}
	file := func(n int) []byte {
		return []byte(body[:i] + strings.Join(slots[:n], ",") + body[j:] + trailerLabel + strings.Repeat("0", 64) + "\n")
	}
	if _, err := parseConfig(file(maxSlots)); err != nil {
		t.Fatal(err)
	}
	_, err := parseConfig(file(maxSlots + 1))
	wantErr(t, err, ErrConfig)
	slots[1] = slots[0]
	_, err = parseConfig(file(2))
	wantErr(t, err, ErrConfig)
}

// Every field of the config changed, one at a time, by somebody who has no key.
func TestConfigTamper(t *testing.T) {
	path, _ := newVault(t)
	good := string(read(t, coffer(path, configName)))
	remove(t, coffer(path, backupName))
	digit := func(key string, nth int) func(string) string {
		re := regexp.MustCompile(`"` + key + `": "([0-9a-f])`)
		return func(s string) string {
			at := re.FindAllStringSubmatchIndex(s, -1)[nth][2]
			d := byte('0')
			if s[at] == '0' {
				d = '1'
			}
			return s[:at] + string(d) + s[at+1:]
		}
	}
	sub := func(old, new string, nth int) func(string) string {
		return func(s string) string {
			at := 0
			for ; nth >= 0; nth-- {
				i := strings.Index(s[at:], old)
				if i < 0 {
					return s
				}
				at += i + len(old)
			}
			return s[:at-len(old)] + new + s[at:]
		}
	}
	year := time.Now().UTC().Format(`"2006-`)
	for _, c := range []struct {
		field string
		edit  func(string) string
		want  error
	}{
		{"format", sub("coffer-vault", "coffer-volt", 0), ErrConfig},
		{"version", sub(`"version": 1`, `"version": 3`, 0), ErrVersion},
		{"incompat", sub(`"incompat": 0`, `"incompat": 1`, 0), ErrFeature},
		{"ro_compat", sub(`"ro_compat": 0`, `"ro_compat": 1`, 0), ErrTampered},
		{"compat", sub(` "compat": 0`, ` "compat": 1`, 0), ErrTampered},
		{"vault_id", digit("vault_id", 0), ErrTampered},
		{"commitment", digit("commitment", 0), ErrTampered},
		{"key_epoch", sub(`"key_epoch": 0`, `"key_epoch": 1`, 0), ErrTampered},
		{"suite", sub("xaes-256-gcm", "xchacha20-poly1305", 0), ErrTampered},
		{"digest", sub("crc32c", "sha256", 0), ErrTampered},
		{"sizes", sub(`"frame_size": 4096`, `"frame_size": 16384`, 0), ErrTampered},
		{"created", sub(year, `"1999-`, 0), ErrTampered},
		{"slot id", digit("id", 0), ErrTampered},
		{"slot kind", sub(`"passphrase"`, `"none"`, 0), ErrFeature},
		{"slot created", sub(year, `"1999-`, 1), ErrTampered},
		{"slot kdf", sub("argon2id", "argon2i", 0), ErrFeature},
		{"slot salt", digit("salt", 0), ErrPassphrase},
		{"slot time", sub(`"time": 1`, `"time": 2`, 0), ErrPassphrase},
		{"slot memory", sub(`"memory_kib": 8`, `"memory_kib": 16`, 0), ErrPassphrase},
		{"slot threads", sub(`"threads": 1`, `"threads": 2`, 0), ErrKDF}, // 8 KiB serve one thread
		{"slot commitment", digit("commitment", 1), ErrPassphrase},
		{"slot nonce", digit("nonce", 0), ErrTampered},
		{"slot wrapped", digit("wrapped", 0), ErrTampered},
		{"white space", sub("  ", " ", 0), ErrTampered},
		{"MAC", func(s string) string {
			i := len(s) - 2
			if s[i] == '0' {
				return s[:i] + "1\n"
			}
			return s[:i] + "0\n"
		}, ErrTampered},
	} {
		t.Run(c.field, func(t *testing.T) {
			bad := c.edit(good)
			if bad == good {
				t.Fatal("nothing was changed")
			}
			write(t, coffer(path, configName), []byte(bad))
			cfg, err := ReadConfig(path)
			if err == nil {
				_, err = cfg.Unlock(testPass)
			}
			wantErr(t, err, c.want)
		})
	}
}

// No byte of a config can be changed without being found.
func TestConfigFlip(t *testing.T) {
	path, _ := newVault(t)
	good := read(t, coffer(path, configName))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		cfg, err := parseConfig(bad)
		if err == nil {
			_, err = cfg.Unlock(testPass)
		}
		if err == nil {
			t.Fatalf("byte %d (%q) changed and the config still opens", i, good[i])
		}
	}
}

func TestPassphrase(t *testing.T) {
	path, _ := newVault(t)
	cfg, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cfg.Unlock(nil)
	wantErr(t, err, ErrEmptyPassphrase)
	_, err = cfg.Unlock([]byte("wrong"))
	wantErr(t, err, ErrPassphrase)
	_, err = Create(t.TempDir(), Options{KDF: testKDF}, []byte{})
	wantErr(t, err, ErrEmptyPassphrase)
	wantErr(t, changePassphrase(path, testPass, nil, testKDF), ErrEmptyPassphrase)
}

// Two vaults with the same passphrase: one's config does not open the other, state and tree or not.
func TestGraftedConfig(t *testing.T) {
	path, _ := newVault(t)
	other, _ := newVault(t)
	v := open(t, path, OpenOptions{})
	sealedName(t, v, "somebody's file")
	closeVault(t, v)
	for _, name := range []string{configName, backupName} {
		write(t, coffer(path, name), read(t, coffer(other, name)))
	}
	_, err := tryOpen(t, path, OpenOptions{})
	wantErr(t, err, ErrState)
	_, err = tryOpen(t, path, OpenOptions{Recover: true}) // state is not believed, but the names are no better
	wantErr(t, err, ErrState)
	remove(t, coffer(path, stateName))
	_, err = tryOpen(t, path, OpenOptions{})
	wantErr(t, err, ErrState)

	// A slot of the other vault in this one's config: the key that it wraps is not this vault's.
	cfg, mk := unlock(t, other, testPass)
	graft := *cfg
	graft.VaultID = keys.RandomVaultID()
	if _, _, err := graft.unlock(Passphrase(testPass)); !errors.Is(err, ErrTampered) {
		t.Errorf("grafted slot: %v", err)
	}
	_, err = Open(path, &graft, mk, OpenOptions{})
	wantErr(t, err, ErrTampered)
}

func TestNotAConfig(t *testing.T) {
	for _, withBackup := range []bool{false, true} {
		for _, c := range []struct {
			name string
			make func(t *testing.T, name string)
		}{
			{"missing", func(*testing.T, string) {}},
			{"fifo", func(t *testing.T, name string) {
				if err := unix.Mkfifo(name, 0o600); err != nil {
					t.Fatal(err)
				}
			}},
			{"symlink", func(t *testing.T, name string) {
				if err := os.Symlink(backupName, name); err != nil {
					t.Fatal(err)
				}
			}},
			{"directory", func(t *testing.T, name string) {
				if err := os.Mkdir(name, 0o700); err != nil {
					t.Fatal(err)
				}
			}},
			{"huge", func(t *testing.T, name string) {
				write(t, name, nil)
				if err := os.Truncate(name, 200<<20); err != nil {
					t.Fatal(err)
				}
			}},
			{"empty", func(t *testing.T, name string) { write(t, name, nil) }},
			{"zeros", func(t *testing.T, name string) { write(t, name, make([]byte, 1500)) }},
		} {
			t.Run(fmt.Sprintf("%s/backup=%v", c.name, withBackup), func(t *testing.T) {
				path, _ := newVault(t)
				remove(t, coffer(path, configName))
				c.make(t, coffer(path, configName))
				if !withBackup {
					remove(t, coffer(path, backupName))
					_, err := ReadConfig(path)
					wantErr(t, err, ErrConfig)
					return
				}
				cfg, err := ReadConfig(path)
				if err != nil {
					t.Fatal(err)
				}
				var fallback *FallbackError
				if !errors.As(cfg.Warning(), &fallback) || !errors.Is(cfg.Warning(), ErrConfig) {
					t.Errorf("warning %v", cfg.Warning())
				}
				// Opening for writing puts it right and keeps what was there.
				var log eventLog
				closeVault(t, open(t, path, OpenOptions{Events: log.sink}))
				cfg, _ = unlock(t, path, testPass)
				if cfg.Warning() != nil || cfg.differs || !log.has(event.Repaired) {
					t.Errorf("not repaired: %v", cfg.Warning())
				}
				_, err = os.Lstat(coffer(path, damagedName))
				if (c.name == "missing") != errors.Is(err, fs.ErrNotExist) {
					t.Errorf("config.damaged: %v", err)
				}
			})
		}
	}
}

func TestNotAVault(t *testing.T) {
	dir := t.TempDir()
	_, err := ReadConfig(dir)
	wantErr(t, err, ErrNotVault)
	write(t, dir+"/"+cofferDir, nil)
	_, err = ReadConfig(dir)
	wantErr(t, err, ErrNotVault)
	_, err = ReadConfig(dir + "/missing")
	wantErr(t, err, fs.ErrNotExist)
}

// A config of a newer version is not damaged: its old backup does not take its place.
func TestNewerConfigWins(t *testing.T) {
	path, _ := newVault(t)
	good := string(read(t, coffer(path, configName)))
	write(t, coffer(path, configName), []byte(strings.Replace(good, `"version": 1`, `"version": 2`, 1)))
	_, err := ReadConfig(path)
	wantErr(t, err, ErrVersion)
}

// A bit that rotted in the salt looks like a wrong passphrase; that the backup is another one is said, and it is not used.
func TestDifferingBackupIsNamed(t *testing.T) {
	path, _ := newVault(t)
	good := string(read(t, coffer(path, configName)))
	at := strings.Index(good, `"salt": "`) + len(`"salt": "`)
	digit := "0"
	if good[at] == '0' {
		digit = "1"
	}
	write(t, coffer(path, configName), []byte(good[:at]+digit+good[at+1:]))
	cfg, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cfg.Unlock(testPass)
	wantErr(t, err, ErrPassphrase)
	if !strings.Contains(err.Error(), "config.bak") {
		t.Errorf("error %v does not name the backup", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	body, trailer := form(f)
	f.Add([]byte(body + trailer))
	f.Add(vectorSlots(f).file())
	f.Add([]byte(strings.ReplaceAll(strings.ReplaceAll(body, "\n", ""), "  ", "") + "\n" + trailer))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			if !errors.Is(err, ErrConfig) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrFeature) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !bytes.Equal(c.file(), data) {
			t.Fatal("the bytes were not kept")
		}
		again := *c
		if again.body, err = encodeConfig(c); err != nil {
			t.Fatal(err)
		}
		c2, err := parseConfig(again.file())
		if err != nil {
			t.Fatalf("what was encoded does not parse: %v", err)
		}
		body2, err := encodeConfig(c2)
		if err != nil || !bytes.Equal(again.body, body2) {
			t.Fatalf("encoded differently the second time: %v", err)
		}
	})
}

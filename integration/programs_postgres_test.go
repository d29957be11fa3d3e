package integration

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// PostgreSQL with data checksums: under load it is killed, it recovers from its own log, and its checksums and indexes are right. It runs
// as its own user, which is not the daemon's.
func TestPostgres(t *testing.T) {
	longTier(t, "takes minutes")
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		t.Skip("postgresql is not installed: programs_test.go lists the Debian packages")
	}
	slices.Sort(bins)
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Skipf("no user for PostgreSQL: %v", err)
	}
	needRoot(t)
	p := program(t, options{allowOther: true}, "setpriv")
	pg := &postgres{prog: p, bin: bins[len(bins)-1], data: p.path("data")}
	// Sockets need short paths; the program's home must be its own.
	pg.socket, err = os.MkdirTemp("", "pg")
	p.must(err)
	t.Cleanup(func() { os.RemoveAll(pg.socket) })
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	p.must(os.Chown(pg.socket, uid, gid))
	for _, dir := range []string{pg.data, p.path("backup")} {
		p.must(os.Mkdir(dir, 0o700))
		p.must(os.Chown(dir, uid, gid))
	}
	p.env = append(p.env, "HOME="+pg.socket, "PGHOST="+pg.socket, "PGUSER=postgres", "PGDATABASE=postgres", "PGPORT=54321")

	pg.run("initdb", "--data-checksums", "--auth=trust", "-D", pg.data)
	pg.start()
	pg.run("pgbench", "-i", "-q", "-s", "5")
	pg.run("pgbench", "-c", "8", "-j", "2", "-T", "20")
	before := pg.consistent()
	pg.stop()
	p.checkRemount()

	pg.start()
	if n := pg.consistent(); n != before {
		t.Fatalf("%d transactions after a remount, %d before", n, before)
	}
	pg.sql("CREATE EXTENSION amcheck; CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS s FROM generate_series(1, 100000) i; CREATE INDEX ON t(s); CREATE INDEX ON t USING gin(to_tsvector('simple', s))")
	for round := range 3 {
		if round > 0 {
			pg.start()
		}
		acknowledged := pg.crash(before)
		pg.start() // and recover
		before = pg.consistent()
		if before < acknowledged {
			t.Fatalf("round %d: %d transactions after recovery, %d were committed", round, before, acknowledged)
		}
		pg.run("pg_amcheck", "--heapallindexed", "--parent-check", "--rootdescend")
		pg.stop()
		pg.run("pg_checksums", "--check", "-D", pg.data)
		p.checkRemount()
	}
	pg.start()
	for _, command := range []string{"VACUUM FULL", "REINDEX DATABASE postgres", "CHECKPOINT"} {
		pg.sql(command)
	}
	pg.run("pg_basebackup", "-D", p.path("backup"), "--checkpoint=fast")
	pg.run("pg_verifybackup", p.path("backup"))
	pg.stop()
	p.checkRemount()
}

// postgres is a server with its data in the mount.
type postgres struct {
	*prog
	bin, data, socket string
	server            *background // while it runs
}

// run runs one of its programs as its user.
func (pg *postgres) run(name string, args ...string) string {
	pg.t.Helper()
	return pg.prog.run("/", "setpriv", pg.as(name, args)...)
}

func (pg *postgres) as(name string, args []string) []string {
	return append([]string{"--reuid=postgres", "--regid=postgres", "--init-groups", filepath.Join(pg.bin, name)}, args...)
}

func (pg *postgres) sql(script string) string {
	pg.t.Helper()
	return strings.TrimSpace(pg.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", script))
}

// start starts the server and waits until it has recovered.
func (pg *postgres) start() {
	pg.t.Helper()
	args := []string{"-D", pg.data, "-p", "54321", "-k", pg.socket}
	for _, o := range []string{"listen_addresses=", "checkpoint_timeout=30s", "max_wal_size=64MB", "min_wal_size=32MB", "log_checkpoints=off", "checkpoint_warning=0"} {
		args = append(args, "-c", o)
	}
	shell := append([]string{"-c", `exec "$@" 2>&1`, "bash", "setpriv"}, pg.as("postgres", args)...)
	pg.server = pg.background("/", "bash", shell...)
	for !strings.HasSuffix(pg.server.line(), "database system is ready to accept connections") {
	}
	server := pg.server
	pg.t.(*testing.T).Cleanup(func() { // before it is killed
		for pg.t.Failed() && len(server.lines) > 0 {
			pg.t.Log("server: " + <-server.lines)
		}
	})
}

func (pg *postgres) stop() {
	pg.t.Helper()
	pg.must(pg.server.cmd.Process.Signal(os.Interrupt)) // a fast shutdown
	pg.server.end()
}

// consistent checks what each transaction of pgbench keeps true, and returns how many there were.
func (pg *postgres) consistent() (transactions int) {
	pg.t.Helper()
	out := pg.sql(`SELECT count(*), (SELECT sum(abalance) FROM pgbench_accounts) = coalesce(sum(delta), 0) AND (SELECT sum(tbalance) FROM pgbench_tellers) = coalesce(sum(delta), 0)
		AND (SELECT sum(bbalance) FROM pgbench_branches) = coalesce(sum(delta), 0) FROM pgbench_history`)
	if _, err := fmt.Sscanf(out, "%d|t", &transactions); err != nil {
		pg.t.Fatalf("transactions are not whole: %s", out)
	}
	return transactions
}

// crash kills the server and all of its processes while pgbench runs, a good while after there were so many transactions. It returns
// how many were committed by then.
func (pg *postgres) crash(transactions int) (committed int) {
	pg.t.Helper()
	load := pg.background("/", "setpriv", pg.as("pgbench", []string{"-n", "-c", "8", "-j", "2", "-T", "300"})...)
	for committed < transactions+2000 {
		committed, _ = strconv.Atoi(pg.sql("SELECT count(*) FROM pgbench_history"))
	}
	pid := pg.server.cmd.Process.Pid
	children := descendants(pid)
	pg.must(syscall.Kill(pid, syscall.SIGKILL))
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	pg.server.kill() // and wait for the end of its output, which is that of all of its processes
	load.kill()      // it has lost its server
	return committed
}

// descendants are the children of a process.
func descendants(pid int) (all []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (name) state ppid
		var state string
		var ppid int
		rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
		if _, err := fmt.Sscan(rest, &state, &ppid); err == nil && ppid == pid {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			all = append(all, child)
		}
	}
	return all
}

package integration

import (
	"fmt"
	"strings"
	"testing"
)

// git: the index believes what lstat said, packs are mapped, objects come by link or rename.
func TestGit(t *testing.T) {
	p := program(t, options{}, "git")
	git := func(dir string, args ...string) string {
		t.Helper()
		return p.run(dir, "git", args...)
	}
	repo := p.path("repo")
	git(p.dir, "init", "-q", "-b", "main", "repo")
	p.sh(repo, fmt.Sprintf(`
		mkdir -p src/{a,b,c} doc
		for i in $(seq %d); do echo "file $i" > src/a/f$i; seq $i > src/b/g$i; done
		head -c 300000 /dev/zero | tr '\0' x > big; printf '#!/bin/sh\n' > tool; chmod +x tool; ln -s src/a/f1 link
		git add -A; git commit -qm first
		for b in one two three; do
			git checkout -q -b $b main; mkdir -p doc src/c; echo "$b" > doc/$b; echo "$b" >> src/a/f2; git add -A; git commit -qm $b
			seq 5000 > src/c/$b; git add -A; git commit -qm "more $b"; git tag -a v-$b -m $b
		done
		git checkout -q main; git merge -q --no-ff -m merge one`, times(40, 2000)))
	if out, err := p.try(repo, "git", "merge", "-q", "two"); err == nil || !strings.Contains(out, "CONFLICT") {
		t.Fatalf("no conflict: %s %v", out, err)
	}
	p.sh(repo, `
		printf 'file 2\none\ntwo\n' > src/a/f2; git add -A; git commit -qm resolved
		git rebase -q main three >/dev/null || { printf 'file 2\none\ntwo\nthree\n' > src/a/f2; git add -A; GIT_EDITOR=true git rebase --continue >/dev/null; }
		git checkout -q main; git merge -q --ff-only three
		echo change >> big; git stash -q; git stash pop -q; git checkout -q big
		git mv src/b moved; git commit -qm moved; git rm -rq doc; git commit -qm removed; git revert --no-edit HEAD >/dev/null
		git worktree add -q ../tree one; git -C ../tree status --porcelain
		git repack -adq; git gc -q --prune=now; git fsck --full --strict --no-progress`)
	git(p.dir, "clone", "-q", "repo", "linked")
	git(p.dir, "clone", "-q", "--no-hardlinks", "repo", "copied")
	git(p.dir, "clone", "-q", "--bare", "file://"+repo, "packed.git")
	p.sh(p.path("linked"), `echo pushed > pushed; git add -A; git commit -qm pushed; git push -q ../packed.git main; git -C ../repo pull -q ../linked main`)
	check := func() {
		t.Helper()
		for _, r := range []string{"repo", "linked", "copied", "tree"} {
			// diff-files compares the index with lstat and reads nothing: size, times and inode number must be those of the last mount.
			p.equal(r+": changed since the index was written", git(p.path(r), "diff-files", "--name-only"), "")
			p.equal(r+": status", git(p.path(r), "status", "--porcelain"), "")
		}
		for _, r := range []string{"repo", "linked", "copied", "packed.git"} {
			p.equal(r+": fsck", git(p.path(r), "fsck", "--full", "--strict", "--no-progress"), "")
		}
		p.equal("log", git(repo, "log", "--format=%s", "-1"), "pushed")
	}
	check()
	p.checkRemount()
	check()
	p.sh(repo, `echo again >> big; git commit -qam again; git gc -q --aggressive --prune=now; git fsck --full --no-progress`)
	p.checkRemount()
}

// Command coffer makes encrypted directories and mounts them.
//
//	coffer init VAULT                    make a vault
//	coffer mount VAULT MOUNTPOINT        mount it (--create makes what is missing first)
//	coffer umount MOUNTPOINT             unmount it and wait until the vault is released
//	coffer passwd VAULT                  change the passphrase
//	coffer key add|list|remove VAULT     what else opens it: passphrases, key files, age recipients
//	coffer recover VAULT                 open a vault with its recovery key
//	coffer config backup|restore VAULT   keep the config elsewhere
//	coffer verify VAULT                  check every byte with the key, and with --repair save what is left
//	coffer scrub VAULT                   look for rot, without a key
//	coffer info VAULT                    say what a vault is, without a secret
//	coffer status MOUNTPOINT             say how a mount is doing (status.go)
//	coffer ls, cat, stat VAULT PATH      look into a vault without a mount (source.go)
//	coffer import VAULT SRC... DEST      copy into a vault, mounted or not (bulk)
//	coffer export VAULT PATH... DEST     copy out of it
//	coffer seal, coffer open             standard input as a sealed stream, and back
//	coffer speed                         how fast this machine encrypts
//
// Called as mount.fuse.coffer it is mount(8)'s helper (mount8.go).
//
// The way of a mount:
//
//	coffer mount                        the daemon (the same binary, a new session)
//	  check vault, mount point, FUSE
//	  ask for the passphrase
//	  KDF in a short-lived child
//	  start the daemon  ── key, pipe ──▶  open the vault: lock, state, session
//	                                      mount, wait until it answers
//	  exit 0            ◀── ready ──────  serve until unmounted or SIGTERM
//	                                      flush, mark the vault clean, release
//
// With --foreground the same process does both halves. The master key crosses to the daemon through a pipe and is never
// in an argument, the environment or a file.
//
// Every error ends as one line "coffer: …", mostly a second line "hint: …", and an exit code of the table in exit.go.
// This package holds no logic of the filesystem: it wires container/vault, container/dirs, container, cache and fs
// together (serve.go); read fs next.
package main

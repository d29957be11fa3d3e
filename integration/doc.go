// Package integration tests all layers together: on real mounts, with real programs, and over disks that lose what was not synced. It has tests only.
//
//	mount_test.go counter_test.go child_test.go user_test.go   a mount, its requests counted, a second process, a user who is not root
//	posix_test.go oracle_test.go model_test.go                 go-fuse's conformance tests; the same done in a directory of the host
//	file_test.go dir_test.go attr_test.go xattr_test.go …      what a mount promises, by subject
//	requests_test.go load_test.go prune_test.go                how many requests an operation costs; many files
//	overlay_test.go                                            whiteouts, and overlayfs with its layers in a vault
//	full_test.go hosts_test.go readonly_test.go                hosts that are full, of other kinds, and not to be changed
//	programs_test.go and programs_*                            git, sqlite3, rsync, PostgreSQL, compilers and others, unmounted and mounted again
//	damage_test.go and golden_*                                vaults that are committed, whole and damaged, read by this program and by the second
//	                                                           reader in reader, which was written from FORMAT.md
//
// Crashes, from the quickest to the most real:
//
//	crash_test.go and crash_*        all layers but the kernel over disktest.Memory: system calls at random (crash_work_test.go), what was promised of
//	                                 them (crash_model_test.go), and what a cut leaves (crash_judge_test.go). crash_rules_test.go takes each rule
//	                                 of FORMAT.md out of the program and sees that a test notices
//	fault_test.go and fault_*        the same with host calls that fail
//	kill_test.go unclean_test.go     the daemon of a mount is killed under programs
//	powercut_test.go                 the image of a host is copied while a daemon works on it
//
// With COFFER_LONG=1 they run longer and do more. What cannot run here is skipped with its reason: tests of mounts need /dev/fuse, some need root or a
// program. -update makes golden vaults anew. bench has the measurements beside other programs.
package integration

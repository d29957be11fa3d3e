// Package suite is the authenticated encryption under the frames of a
// container: two suites with a 32-byte key, a 24-byte random nonce and a
// 16-byte tag.
//
//	XAES-256-GCM         ours, over crypto/aes and crypto/cipher, from the C2SP
//	                     specification https://c2sp.org/XAES-256-GCM
//	XChaCha20-Poly1305   golang.org/x/crypto/chacha20poly1305,
//	                     draft-irtf-cfrg-xchacha-03
//
// It promises that a nonce never comes from a counter: a crash, a restored
// backup or a copied vault repeats counters, and a repeated nonce gives the
// plaintext away. A caller that seals cannot choose its nonce at all.
//
//	       nonce (24 bytes)
//	0            12            24
//	+------------+-------------+
//	|   prefix   |   suffix    |      XAES-256-GCM: the prefix selects a
//	+-----+------+------+------+      subkey and is drawn once per Sealer,
//	      |             |             that is once per flush; the suffix is
//	key --+--> subkey --+--> AES-GCM  drawn for every frame.
//
// Deriving a subkey costs as much as sealing a 4 KiB frame, so a Sealer
// derives once for all its frames, and a Cipher remembers the few prefixes that
// it met last when opening. XChaCha20-Poly1305 draws all 24 bytes each time.
//
// It does not promise to commit to the key (a container's header does that, see
// package keys), and it knows nothing of frames: the associated data is the
// caller's. Both suites allocate nothing per Seal and Open in steady state.
//
// # The files, in reading order
//
//	suite.go    the suites
//	cipher.go   a key of one of them: Seal and Open
//	xaes.go     XAES-256-GCM
//
// Read next: package keys, where the 32-byte keys come from.
package suite

// Package siv is AES-SIV (RFC 5297), the deterministic authenticated encryption
// of names: the same name under the same associated data always seals to the
// same bytes, and any change of either is found.
//
// It is the AEAD_AES_SIV_CMAC_512 of the RFC, with a 64-byte key, exactly one
// string of associated data (which may be empty) and no nonce. Equal plaintexts
// under equal associated data are seen to be equal; nothing else is. What is
// sealed must therefore carry what makes it unique, as a sealed name does with
// its object id and link sequence.
//
//	key      = K1 (CMAC) ‖ K2 (CTR)
//	V        = S2V(K1, associated data, plaintext)            16 bytes
//	sealed   = V ‖ AES-CTR(K2, V with two bits cleared, plaintext)
//
// The standard library has neither CMAC nor SIV; both are here, about a hundred
// lines over crypto/aes. A test compares them with Tink's.
//
// Next to read: package names, the only user.
package siv

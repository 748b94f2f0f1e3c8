/* digest.h - SHA-256 (FIPS 180-4, by libcrypto) as text, and a hash that ranks compare. */
#ifndef ESPALIER_DIGEST_H
#define ESPALIER_DIGEST_H

#include <espalier/status.h>
#include <stddef.h>
#include <stdint.h>

/** Bytes of a SHA-256; as text, 64 lower-case hexadecimal digits and the terminating zero. */
#define DIGEST_SIZE 32
#define DIGEST_TEXT_SIZE 65

struct digest; /* a SHA-256 under way */

/** Begin a digest. The caller owns it; digest_finish or digest_destroy ends it. */
enum status digest_create(struct digest **digest);
enum status digest_add(struct digest *digest, const void *bytes, size_t count);

/** Write the digest, as bytes or as text, and destroy it. */
enum status digest_finish_bytes(struct digest *digest, unsigned char bytes[DIGEST_SIZE]);
enum status digest_finish(struct digest *digest, char text[DIGEST_TEXT_SIZE]);
void digest_destroy(struct digest *digest);

/** SHA-256 of a buffer, as text. */
enum status digest_bytes(const void *bytes, size_t count, char text[DIGEST_TEXT_SIZE]);

/** SHA-256 of a file's raw bytes, as text. ST_IO names the file. */
enum status digest_file(const char *path, char text[DIGEST_TEXT_SIZE]);

/** A bijection of 64-bit words that spreads every bit (the finaliser of SplitMix64,
 *  Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014). */
static inline uint64_t hash_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/** Hash of a vector of 32-bit words: sum over i of hash_mix(i * 2^32 + word_i), modulo 2^64.
 *
 *  A sum, so that any number of threads may form it in any order. For noticing that
 *  replicas differ, not for safety against an adversary. */
uint64_t hash_words(const void *words, size_t count);

#endif

#include <espalier/digest.h>

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct digest {
    EVP_MD_CTX *context;
};

enum status digest_create(struct digest **digest) {
    *digest = calloc(1, sizeof **digest);
    if (*digest == NULL)
        FAIL(ST_MEMORY, "out of memory");
    (*digest)->context = EVP_MD_CTX_new();
    if ((*digest)->context == NULL ||
        EVP_DigestInit_ex((*digest)->context, EVP_sha256(), NULL) != 1) {
        digest_destroy(*digest);
        *digest = NULL;
        FAIL(ST_UNAVAILABLE, "libcrypto offers no SHA-256");
    }
    return ST_OK;
}

enum status digest_add(struct digest *digest, const void *bytes, size_t count) {
    if (EVP_DigestUpdate(digest->context, bytes, count) != 1)
        FAIL(ST_UNAVAILABLE, "libcrypto failed to compute a SHA-256");
    return ST_OK;
}

enum status digest_finish_bytes(struct digest *digest, unsigned char bytes[DIGEST_SIZE]) {
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    int ok = EVP_DigestFinal_ex(digest->context, raw, &size);
    digest_destroy(digest);
    if (ok != 1 || size != DIGEST_SIZE)
        FAIL(ST_UNAVAILABLE, "libcrypto failed to compute a SHA-256");
    memcpy(bytes, raw, DIGEST_SIZE);
    return ST_OK;
}

enum status digest_finish(struct digest *digest, char text[DIGEST_TEXT_SIZE]) {
    unsigned char raw[DIGEST_SIZE];
    TRY(digest_finish_bytes(digest, raw));
    for (size_t i = 0; i < DIGEST_SIZE; i++)
        snprintf(text + 2 * i, 3, "%02x", raw[i]);
    return ST_OK;
}

void digest_destroy(struct digest *digest) {
    if (digest == NULL)
        return;
    EVP_MD_CTX_free(digest->context);
    free(digest);
}

enum status digest_bytes(const void *bytes, size_t count, char text[DIGEST_TEXT_SIZE]) {
    struct digest *digest = NULL;
    TRY(digest_create(&digest));
    enum status status = digest_add(digest, bytes, count);
    if (status != ST_OK) {
        digest_destroy(digest);
        return status;
    }
    return digest_finish(digest, text);
}

static enum status add_stream(struct digest *digest, FILE *file, const char *path) {
    static _Thread_local char buffer[1 << 16];
    size_t got;
    while ((got = fread(buffer, 1, sizeof buffer, file)) > 0)
        TRY(digest_add(digest, buffer, got));
    if (ferror(file))
        FAIL(ST_IO, "%s: cannot read: %s", path, strerror(errno));
    return ST_OK;
}

enum status digest_file(const char *path, char text[DIGEST_TEXT_SIZE]) {
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        FAIL(ST_IO, "%s: cannot open: %s", path, strerror(errno));
    struct digest *digest = NULL;
    enum status status = digest_create(&digest);
    if (status == ST_OK)
        status = add_stream(digest, file, path);
    fclose(file);
    if (status != ST_OK) {
        digest_destroy(digest);
        return status;
    }
    return digest_finish(digest, text);
}

uint64_t hash_words(const void *words, size_t count) {
    const uint32_t *word = words;
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += hash_mix((uint64_t)i << 32 | word[i]);
    return sum;
}

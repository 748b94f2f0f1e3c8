#include <espalier/arena.h>
#include <espalier/idx.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

/* The magic is two zero bytes, the type (8: unsigned bytes) and the number of dimensions. */
enum { MAGIC = 0x00000800, HEADER_MAX = 16, CHUNK = 1 << 16, FIRST_BYTES = 1 << 20 };
#define IMAGE_BYTES_MAX ((uint64_t)1 << 28)
#define COUNT_MAX ((uint64_t)INT32_MAX)

/* The bytes of a file as they were before gzip, one after the other. */
struct source {
    const char *path;
    FILE *file;
    uint64_t file_bytes;
    bool gzip, inflating; /* inflating: `stream` must be ended */
    bool at_member_end;   /* a gzip member has ended; another may follow */
    z_stream stream;
    unsigned char chunk[CHUNK];
};

static const char *kind_name(int dimensions) {
    return dimensions == 1 ? "labels" : "images";
}

static const char *after_gunzip(const struct source *source) {
    return source->gzip ? " after decompression" : "";
}

static enum status check_regular(const char *path, int dimensions, struct stat *found) {
    if (stat(path, found) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            FAIL(ST_INPUT, "%s: not found, an IDX file of %s expected", path,
                 kind_name(dimensions));
        FAIL(ST_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (S_ISDIR(found->st_mode))
        FAIL(ST_INPUT, "%s: a directory, an IDX file of %s expected", path, kind_name(dimensions));
    if (!S_ISREG(found->st_mode))
        FAIL(ST_INPUT, "%s: not a regular file, an IDX file of %s expected", path,
             kind_name(dimensions));
    return ST_OK;
}

/* gzip's magic decides, not the file's name; no IDX file begins with it. */
static enum status detect_gzip(struct source *source) {
    unsigned char magic[2];
    source->gzip = fread(magic, 1, 2, source->file) == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
    if (ferror(source->file) || fseek(source->file, 0, SEEK_SET) != 0)
        FAIL(ST_IO, "%s: cannot read: %s", source->path, strerror(errno));
    if (!source->gzip)
        return ST_OK;
    if (inflateInit2(&source->stream, 15 + 16) != Z_OK) /* largest window, gzip header alone */
        FAIL(ST_MEMORY, "%s: out of memory", source->path);
    source->inflating = true;
    return ST_OK;
}

static enum status source_open(const char *path, int dimensions, struct source *source) {
    struct stat found;
    TRY(check_regular(path, dimensions, &found));
    source->path = path;
    source->file_bytes = (uint64_t)found.st_size;
    source->file = fopen(path, "rb");
    if (source->file == NULL)
        FAIL(ST_IO, "%s: cannot open: %s", path, strerror(errno));
    return detect_gzip(source);
}

static void source_close(struct source *source) {
    if (source->inflating)
        inflateEnd(&source->stream);
    if (source->file != NULL)
        fclose(source->file);
}

static enum status read_plain(struct source *source, uint8_t *bytes, size_t want, size_t *got) {
    *got = fread(bytes, 1, want, source->file);
    if (ferror(source->file))
        FAIL(ST_IO, "%s: cannot read: %s", source->path, strerror(errno));
    return ST_OK;
}

/* Make sure that there are compressed bytes to inflate, unless the file is at its end. */
static enum status refill(struct source *source) {
    if (source->stream.avail_in > 0)
        return ST_OK;
    size_t got;
    TRY(read_plain(source, source->chunk, CHUNK, &got));
    source->stream.next_in = source->chunk;
    source->stream.avail_in = (uInt)got;
    return ST_OK;
}

/* Begin the next gzip member, if there is one; *end when the file is at its end instead. */
static enum status next_member(struct source *source, bool *end) {
    *end = source->stream.avail_in == 0;
    if (*end)
        return ST_OK;
    if (source->stream.next_in[0] != 0x1f)
        FAIL(ST_INPUT, "%s: bytes after the end of the gzip data, none expected", source->path);
    inflateReset(&source->stream);
    source->at_member_end = false;
    return ST_OK;
}

static enum status inflate_some(struct source *source) {
    if (source->stream.avail_in == 0)
        FAIL(ST_INPUT, "%s: gzip data cut short: its end not found in %" PRIu64 " bytes",
             source->path, source->file_bytes);
    int code = inflate(&source->stream, Z_NO_FLUSH);
    if (code == Z_MEM_ERROR)
        FAIL(ST_MEMORY, "%s: out of memory", source->path);
    if (code != Z_OK && code != Z_STREAM_END)
        FAIL(ST_INPUT, "%s: damaged gzip data: %s", source->path,
             source->stream.msg != NULL ? source->stream.msg : "no valid stream");
    source->at_member_end = code == Z_STREAM_END;
    return ST_OK;
}

static enum status read_gzip(struct source *source, uint8_t *bytes, size_t want, size_t *got) {
    *got = 0;
    while (*got < want) {
        TRY(refill(source));
        bool end = false;
        if (source->at_member_end)
            TRY(next_member(source, &end));
        if (end)
            return ST_OK;
        size_t room = want - *got < INT_MAX ? want - *got : INT_MAX;
        source->stream.next_out = bytes + *got;
        source->stream.avail_out = (uInt)room;
        TRY(inflate_some(source));
        *got += room - source->stream.avail_out;
    }
    return ST_OK;
}

/* Up to `want` bytes; fewer at the end alone. */
static enum status source_read(struct source *source, uint8_t *bytes, size_t want, size_t *got) {
    return source->gzip ? read_gzip(source, bytes, want, got)
                        : read_plain(source, bytes, want, got);
}

static uint32_t big_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static enum status check_magic(const char *path, uint32_t magic, int dimensions) {
    uint32_t expected = MAGIC + (uint32_t)dimensions;
    if (magic == expected)
        return ST_OK;
    const char *kind = magic == MAGIC + 1 ? " (labels)" : magic == MAGIC + 3 ? " (images)" : "";
    FAIL(ST_INPUT, "%s: magic 0x%08" PRIx32 "%s found, 0x%08" PRIx32 " (%s) expected", path, magic,
         kind, expected, kind_name(dimensions));
}

static enum status check_sizes(const char *path, const struct idx *idx) {
    if (idx->size[0] == 0 || idx->size[0] > COUNT_MAX)
        FAIL(ST_INPUT, "%s: %" PRIu32 " %s in the header, 1 to %" PRIu64 " expected", path,
             idx->size[0], kind_name(idx->dimensions), COUNT_MAX);
    uint64_t image_bytes = (uint64_t)idx->size[1] * idx->size[2];
    if (image_bytes == 0 || image_bytes > IMAGE_BYTES_MAX)
        FAIL(ST_INPUT,
             "%s: images of %" PRIu32 "x%" PRIu32 " in the header, 1 to %" PRIu64
             " bytes each expected",
             path, idx->size[1], idx->size[2], IMAGE_BYTES_MAX);
    return ST_OK;
}

static enum status read_header(struct source *source, struct idx *idx) {
    uint8_t header[HEADER_MAX];
    size_t want = 4 + 4 * (size_t)idx->dimensions, got;
    TRY(source_read(source, header, want, &got));
    if (got == 0)
        FAIL(ST_INPUT, "%s: empty (0 bytes)%s, an IDX file of %s expected", source->path,
             after_gunzip(source), kind_name(idx->dimensions));
    if (got >= 4)
        TRY(check_magic(source->path, big_endian(header), idx->dimensions));
    if (got < want)
        FAIL(ST_INPUT, "%s: truncated in the header: %zu bytes expected, %zu found%s", source->path,
             want, got, after_gunzip(source));
    idx->size[1] = idx->size[2] = 1;
    for (int i = 0; i < idx->dimensions; i++)
        idx->size[i] = big_endian(header + 4 + 4 * i);
    return check_sizes(source->path, idx);
}

static enum status fail_truncated(const struct source *source, uint64_t expected, uint64_t found) {
    FAIL(ST_INPUT, "%s: truncated: %" PRIu64 " bytes expected from the header, %" PRIu64 " found%s",
         source->path, expected, found, after_gunzip(source));
}

static enum status check_plain_length(const struct source *source, uint64_t expected) {
    if (source->file_bytes < expected)
        return fail_truncated(source, expected, source->file_bytes);
    if (source->file_bytes > expected)
        FAIL(ST_INPUT,
             "%s: bytes after the end: %" PRIu64 " bytes expected from the header, %" PRIu64
             " found",
             source->path, expected, source->file_bytes);
    return ST_OK;
}

static enum status grow(struct idx *idx, size_t bytes) {
    uint8_t *grown = realloc(idx->bytes, bytes);
    if (grown == NULL)
        FAIL(ST_MEMORY, "out of memory: %zu bytes of %s", bytes, kind_name(idx->dimensions));
    if (idx->bytes == NULL)
        prefer_large_pages(grown, bytes);
    idx->bytes = grown;
    return ST_OK;
}

/* Memory grows with the bytes that are really there: a compressed file's header may claim
 * anything. */
static enum status read_data(struct source *source, size_t header, size_t total, struct idx *idx) {
    size_t capacity = source->gzip && total > FIRST_BYTES ? FIRST_BYTES : total;
    size_t filled = 0, got;
    for (;;) {
        TRY(grow(idx, capacity));
        TRY(source_read(source, idx->bytes + filled, capacity - filled, &got));
        filled += got;
        if (filled < capacity)
            return fail_truncated(source, header + total, header + filled);
        if (filled == total)
            return ST_OK;
        capacity = capacity < total / 2 ? 2 * capacity : total;
    }
}

/* Reading past the last byte also lets zlib check the length and the CRC behind it. */
static enum status check_end(struct source *source, uint64_t expected) {
    uint8_t extra;
    size_t got;
    TRY(source_read(source, &extra, 1, &got));
    if (got > 0)
        FAIL(ST_INPUT,
             "%s: bytes after the end: %" PRIu64 " bytes expected from the header, more found%s",
             source->path, expected, after_gunzip(source));
    return ST_OK;
}

static enum status read_all(struct source *source, struct idx *idx) {
    TRY(read_header(source, idx));
    size_t header = 4 + 4 * (size_t)idx->dimensions;
    uint64_t total = (uint64_t)idx->size[0] * idx->size[1] * idx->size[2];
    if (!source->gzip)
        TRY(check_plain_length(source, header + total));
    TRY(read_data(source, header, (size_t)total, idx));
    return check_end(source, header + total);
}

enum status idx_read(const char *path, int dimensions, struct idx *idx) {
    *idx = (struct idx){.dimensions = dimensions};
    struct source *source = calloc(1, sizeof *source);
    if (source == NULL)
        FAIL(ST_MEMORY, "%s: out of memory", path);
    enum status status = source_open(path, dimensions, source);
    if (status == ST_OK)
        status = read_all(source, idx);
    source_close(source);
    free(source);
    if (status != ST_OK)
        idx_destroy(idx);
    return status;
}

void idx_destroy(struct idx *idx) {
    free(idx->bytes);
    *idx = (struct idx){0};
}

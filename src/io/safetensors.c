#include "safetensors_format.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <espalier/arena.h>
#include <espalier/digest.h>
#include <espalier/nearest.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TYPE_NAME(enumerator, name, size) name,
const char *const safetensors_type_names[] = {SAFETENSORS_TYPES(TYPE_NAME) NULL};

#define TYPE_SIZE(enumerator, name, size) size,
static const size_t type_sizes[] = {SAFETENSORS_TYPES(TYPE_SIZE)};

size_t safetensors_type_size(enum safetensors_type type) {
    return type_sizes[type];
}

void safetensors_destroy(struct safetensors *file) {
    arena_destroy(file->owned);
    *file = (struct safetensors){0};
}

const struct safetensor *safetensors_find(const struct safetensors *file, const char *name) {
    for (int i = 0; i < file->tensors_count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key) {
    for (int i = 0; i < file->metadata_count; i++)
        if (strcmp(file->metadata[i].key, key) == 0)
            return file->metadata[i].text;
    return NULL;
}

/* ---- reading ---- */

/* A file on its way in. */
struct source {
    const char *path;
    FILE *file;
    uint64_t bytes, header_bytes;
    char *header; /* [header_bytes] */
    cJSON *root;
};

static enum status source_open(struct source *source) {
    const char *path = source->path;
    struct stat information;
    if (stat(path, &information) != 0)
        FAIL(errno == ENOENT || errno == ENOTDIR ? ST_INPUT : ST_IO, "cannot read %s: %s", path,
             strerror(errno));
    if (S_ISDIR(information.st_mode))
        FAIL(ST_INPUT, "%s: is a directory, expected a safetensors file", path);
    if (!S_ISREG(information.st_mode))
        FAIL(ST_INPUT, "%s: is no regular file, expected a safetensors file", path);
    source->bytes = (uint64_t)information.st_size;
    source->file = fopen(path, "rb");
    if (source->file == NULL)
        FAIL(ST_IO, "cannot read %s: %s", path, strerror(errno));
    return ST_OK;
}

static enum status source_open_memory(struct source *source, const void *bytes, size_t count) {
    static char nothing[1]; /* a stream over no bytes is not portable */
    source->bytes = count;
    source->file = fmemopen(count > 0 ? (void *)(uintptr_t)bytes : nothing,
                            count > 0 ? count : sizeof nothing, "rb");
    if (source->file == NULL)
        FAIL(ST_MEMORY, "%s: out of memory", source->path);
    return ST_OK;
}

static enum status source_read(struct source *source, void *bytes, size_t count) {
    if (count == 0 || fread(bytes, 1, count, source->file) == count)
        return ST_OK;
    if (ferror(source->file))
        FAIL(ST_IO, "cannot read %s: %s", source->path, strerror(errno));
    FAIL(ST_INPUT, "%s: became shorter while it was read", source->path);
}

static void source_close(struct source *source) {
    if (source->file != NULL)
        fclose(source->file);
    free(source->header);
    cJSON_Delete(source->root);
}

static enum status read_header(struct source *source) {
    const char *path = source->path;
    uint64_t length = 0;
    if (source->bytes < SAFETENSORS_LENGTH_BYTES)
        FAIL(ST_INPUT, "%s: has %llu bytes, expected a safetensors file (at least %d bytes)", path,
             (unsigned long long)source->bytes, SAFETENSORS_LENGTH_BYTES + 2);
    TRY(source_read(source, &length, sizeof length));
    bool possible = length <= source->bytes - SAFETENSORS_LENGTH_BYTES &&
                    length <= SAFETENSORS_HEADER_BYTES_MAX;
    if (!possible && ungetc(fgetc(source->file), source->file) != '{')
        FAIL(
            ST_INPUT,
            "%s: not a safetensors file: begins with neither its header's length nor '{' behind it",
            path);
    if (length > source->bytes - SAFETENSORS_LENGTH_BYTES)
        FAIL(ST_INPUT,
             "%s: header claims %llu bytes, the file has %llu after its length: cut short, or no "
             "safetensors file",
             path, (unsigned long long)length,
             (unsigned long long)(source->bytes - SAFETENSORS_LENGTH_BYTES));
    if (length > SAFETENSORS_HEADER_BYTES_MAX)
        FAIL(ST_INPUT, "%s: header claims %llu bytes, at most %d are allowed", path,
             (unsigned long long)length, SAFETENSORS_HEADER_BYTES_MAX);
    source->header_bytes = length;
    source->header = malloc(length + 1); /* never of size 0 */
    if (source->header == NULL)
        FAIL(ST_MEMORY, "%s: out of memory: header of %llu bytes", path,
             (unsigned long long)length);
    return source_read(source, source->header, length);
}

/* Length of the UTF-8 sequence at text (RFC 3629), 0 when there is none. */
static size_t utf8_length(const unsigned char *text, size_t left) {
    if (text[0] < 0x80)
        return 1;
    size_t length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (text[0] < 0xc2 || text[0] > 0xf4 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    unsigned lead = (unsigned)text[0] << 8 | text[1];
    bool overlong = (lead >= 0xe000 && lead < 0xe0a0) || (lead >= 0xf000 && lead < 0xf090);
    bool beyond = (lead >= 0xeda0 && lead < 0xee00) || lead >= 0xf490; /* surrogates, > U+10FFFF */
    return overlong || beyond ? 0 : length;
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_control(char c) {
    return (c >= 0 && c < ' ') || c == 0x7f;
}

/* A name or a type that can stand in a message of one line. */
static bool is_printable(const char *text) {
    while (*text != '\0' && !is_control(*text))
        text++;
    return *text == '\0';
}

/* What cJSON lets through though it is no JSON, or would cut a name short. */
static enum status check_header_text(const struct source *source) {
    const unsigned char *text = (const unsigned char *)source->header;
    size_t length = source->header_bytes;
    if (length == 0 || text[0] != '{')
        FAIL(ST_INPUT, "%s: header does not begin with '{'", source->path);
    for (size_t i = 0; i < length;) {
        size_t step = utf8_length(text + i, length - i);
        if (step == 0)
            FAIL(ST_INPUT, "%s: header is not UTF-8 at byte %zu", source->path, i);
        if (is_control(source->header[i]) && !is_space(source->header[i]))
            FAIL(ST_INPUT, "%s: header holds a control character at byte %zu", source->path, i);
        if (text[i] == '\\' && i + 1 < length) {
            if (length - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
                FAIL(ST_INPUT, "%s: header holds a zero character at byte %zu", source->path, i);
            step = 1 + utf8_length(text + i + 1, length - i - 1);
        }
        i += step;
    }
    return ST_OK;
}

static enum status parse_header(struct source *source) {
    TRY(check_header_text(source));
    const char *end = source->header;
    const char *limit = source->header + source->header_bytes;
    source->root = cJSON_ParseWithLengthOpts(source->header, source->header_bytes, &end, false);
    if (source->root == NULL)
        FAIL(ST_INPUT, "%s: header is not JSON near byte %td", source->path, end - source->header);
    for (; end < limit; end++)
        if (!is_space(*end))
            FAIL(ST_INPUT, "%s: header goes on after its JSON object, at byte %td", source->path,
                 end - source->header);
    return ST_OK;
}

/* A count as JSON must be whole and exact as a double. */
static bool count_of(const cJSON *item, uint64_t *count) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < 0x1p53))
        return false;
    *count = (uint64_t)item->valuedouble;
    return (double)*count == item->valuedouble;
}

/* A tensor with where its bytes lie in the data. */
struct placed {
    struct safetensor tensor;
    uint64_t begin, end;
    size_t order; /* in the header */
};

static enum status parse_shape(const struct source *source, const cJSON *entry,
                               struct safetensor *tensor) {
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape"), *item;
    if (!cJSON_IsArray(shape))
        FAIL(ST_INPUT, "%s: tensor %s: shape is not an array", source->path, tensor->name);
    cJSON_ArrayForEach(item, shape) {
        if (tensor->dimensions == SAFETENSORS_DIMENSIONS_MAX)
            FAIL(ST_INPUT, "%s: tensor %s: has %d dimensions, at most %d are supported",
                 source->path, tensor->name, cJSON_GetArraySize(shape), SAFETENSORS_DIMENSIONS_MAX);
        if (!count_of(item, &tensor->size[tensor->dimensions]))
            FAIL(ST_INPUT, "%s: tensor %s: size %d of its shape is not a whole number",
                 source->path, tensor->name, tensor->dimensions + 1);
        tensor->dimensions++;
    }
    return ST_OK;
}

static enum status parse_offsets(const struct source *source, const cJSON *entry,
                                 struct placed *placed) {
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    const char *name = placed->tensor.name;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !count_of(cJSON_GetArrayItem(offsets, 0), &placed->begin) ||
        !count_of(cJSON_GetArrayItem(offsets, 1), &placed->end))
        FAIL(ST_INPUT, "%s: tensor %s: data_offsets are not two whole numbers", source->path, name);
    uint64_t data_bytes = source->bytes - SAFETENSORS_LENGTH_BYTES - source->header_bytes;
    if (placed->begin > placed->end || placed->end > data_bytes)
        FAIL(ST_INPUT, "%s: tensor %s: data_offsets [%llu, %llu] do not lie in %llu bytes of data",
             source->path, name, (unsigned long long)placed->begin, (unsigned long long)placed->end,
             (unsigned long long)data_bytes);
    return ST_OK;
}

/* The shape must call for exactly the bytes that the offsets enclose, and values lie where they can
 * be read in place. */
static enum status check_bytes(const struct source *source, const struct placed *placed) {
    const struct safetensor *tensor = &placed->tensor;
    const uint64_t size = safetensors_type_size(tensor->type);
    uint64_t bytes = size;
    for (int i = 0; i < tensor->dimensions; i++) {
        if (tensor->size[i] != 0 && bytes > UINT64_MAX / tensor->size[i])
            FAIL(ST_INPUT, "%s: tensor %s: the product of its shape overflows", source->path,
                 tensor->name);
        bytes *= tensor->size[i];
    }
    if (bytes != placed->end - placed->begin)
        FAIL(ST_INPUT, "%s: tensor %s: its shape needs %llu bytes, data_offsets enclose %llu",
             source->path, tensor->name, (unsigned long long)bytes,
             (unsigned long long)(placed->end - placed->begin));
    if (placed->begin % size != 0)
        FAIL(ST_INPUT, "%s: tensor %s: begins at byte %llu of the data, no multiple of %llu",
             source->path, tensor->name, (unsigned long long)placed->begin,
             (unsigned long long)size);
    return ST_OK;
}

static enum status parse_type(const struct source *source, const cJSON *entry,
                              struct safetensor *tensor) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    if (!cJSON_IsString(dtype) || !is_printable(dtype->valuestring))
        FAIL(ST_INPUT, "%s: tensor %s: dtype is not text", source->path, tensor->name);
    for (int type = 0; type < SAFETENSORS_TYPE_COUNT; type++)
        if (strcmp(dtype->valuestring, safetensors_type_names[type]) == 0) {
            tensor->type = (enum safetensors_type)type;
            return ST_OK;
        }
    char known[64];
    names_join(safetensors_type_names, SAFETENSORS_TYPE_COUNT, " and ", known, sizeof known);
    FAIL(ST_INPUT, "%s: tensor %s: has dtype %s, only %s are supported", source->path, tensor->name,
         dtype->valuestring, known);
}

static enum status parse_tensor(const struct source *source, const cJSON *entry,
                                struct placed *placed) {
    const char *name = placed->tensor.name;
    if (!cJSON_IsObject(entry) || cJSON_GetArraySize(entry) != SAFETENSORS_HEADER_MEMBERS)
        FAIL(ST_INPUT, "%s: tensor %s: is no object of dtype, shape and data_offsets", source->path,
             name);
    TRY(parse_type(source, entry, &placed->tensor));
    TRY(parse_shape(source, entry, &placed->tensor));
    TRY(parse_offsets(source, entry, placed));
    return check_bytes(source, placed);
}

/* Names are shown in messages and tables: no control characters. */
static enum status check_names(const struct source *source, const cJSON *object) {
    const cJSON *item;
    cJSON_ArrayForEach(item, object) if (!is_printable(item->string))
        FAIL(ST_INPUT, "%s: header has a name with a control character", source->path);
    return ST_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted, so that a hostile header of a million names takes no quadratic time. */
static enum status check_unique(const struct source *source, const cJSON *object) {
    size_t count = (size_t)cJSON_GetArraySize(object), i = 0;
    TRY(check_names(source, object));
    const char **names = malloc((count + 1) * sizeof *names);
    if (names == NULL)
        FAIL(ST_MEMORY, "%s: out of memory: %zu names", source->path, count);
    const cJSON *item;
    cJSON_ArrayForEach(item, object) names[i++] = item->string;
    qsort(names, count, sizeof *names, compare_names);
    enum status status = ST_OK;
    for (i = 1; i < count && status == ST_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status =
                status_fail(ST_INPUT, "%s: header has the name %s twice", source->path, names[i]);
    free(names);
    return status;
}

static enum status take_metadata(const struct source *source, struct safetensors *file) {
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(source->root, SAFETENSORS_METADATA_KEY),
                *item;
    if (object == NULL)
        return ST_OK;
    if (!cJSON_IsObject(object))
        FAIL(ST_INPUT, "%s: %s is not an object of texts", source->path, SAFETENSORS_METADATA_KEY);
    TRY(check_unique(source, object));
    TRY(ARENA_ARRAY(file->owned, (size_t)cJSON_GetArraySize(object), &file->metadata));
    cJSON_ArrayForEach(item, object) {
        if (!cJSON_IsString(item))
            FAIL(ST_INPUT, "%s: %s: %s is not text", source->path, SAFETENSORS_METADATA_KEY,
                 item->string);
        struct safetensors_entry *entry = &file->metadata[file->metadata_count++];
        char *key, *text;
        TRY(arena_strdup(file->owned, item->string, &key));
        TRY(arena_strdup(file->owned, item->valuestring, &text));
        *entry = (struct safetensors_entry){key, text};
    }
    return ST_OK;
}

static int compare_places(const void *a, const void *b) {
    const struct placed *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* The format: tensors cover the data from its first byte to its last, without holes, and no byte
 * belongs to two. */
static enum status check_cover(const struct source *source, struct placed *placed, size_t count) {
    uint64_t covered = 0,
             data_bytes = source->bytes - SAFETENSORS_LENGTH_BYTES - source->header_bytes;
    qsort(placed, count, sizeof *placed, compare_places);
    for (size_t i = 0; i < count; i++) {
        if (placed[i].begin != covered)
            FAIL(ST_INPUT, "%s: tensor %s: begins at byte %llu of the data, expected %llu (%s)",
                 source->path, placed[i].tensor.name, (unsigned long long)placed[i].begin,
                 (unsigned long long)covered, placed[i].begin < covered ? "overlap" : "gap");
        covered = placed[i].end;
    }
    if (covered != data_bytes)
        FAIL(ST_INPUT, "%s: has %llu bytes of data, its tensors take %llu", source->path,
             (unsigned long long)data_bytes, (unsigned long long)covered);
    return ST_OK;
}

static enum status parse_tensors(const struct source *source, struct safetensors *file,
                                 struct placed *placed, size_t *count) {
    const cJSON *item;
    cJSON_ArrayForEach(item, source->root) {
        if (strcmp(item->string, SAFETENSORS_METADATA_KEY) == 0)
            continue;
        char *name;
        TRY(arena_strdup(file->owned, item->string, &name));
        placed[*count] = (struct placed){.tensor.name = name, .order = *count};
        TRY(parse_tensor(source, item, &placed[*count]));
        ++*count;
    }
    return check_cover(source, placed, *count);
}

static enum status take_values(struct source *source, struct safetensors *file,
                               const struct placed *placed, size_t count) {
    uint64_t data_bytes = source->bytes - SAFETENSORS_LENGTH_BYTES - source->header_bytes;
    char *values;
    TRY(ARENA_ARRAY(file->owned, data_bytes, &values));
    TRY(source_read(source, values, data_bytes));
    TRY(ARENA_ARRAY(file->owned, count, &file->tensors));
    for (size_t i = 0; i < count; i++) {
        file->tensors[i] = placed[i].tensor;
        file->tensors[i].values = values + placed[i].begin;
    }
    file->tensors_count = (int)count;
    return ST_OK;
}

static enum status take_tensors(struct source *source, struct safetensors *file) {
    size_t members = (size_t)cJSON_GetArraySize(source->root), count = 0;
    struct placed *placed = calloc(members + 1, sizeof *placed);
    if (placed == NULL)
        FAIL(ST_MEMORY, "%s: out of memory: %zu tensors", source->path, members);
    enum status status = parse_tensors(source, file, placed, &count);
    if (status == ST_OK)
        status = take_values(source, file, placed, count);
    free(placed);
    return status;
}

static enum status read_opened(struct source *source, struct safetensors *file) {
    TRY(read_header(source));
    TRY(parse_header(source));
    TRY(check_unique(source, source->root));
    TRY(arena_create((struct arena **)&file->owned));
    TRY(take_metadata(source, file));
    return take_tensors(source, file);
}

static enum status read_all(struct source *source, enum status opened, struct safetensors *file) {
    *file = (struct safetensors){0};
    enum status status = opened == ST_OK ? read_opened(source, file) : opened;
    source_close(source);
    if (status != ST_OK)
        safetensors_destroy(file);
    return status;
}

enum status safetensors_read(const char *path, struct safetensors *file) {
    struct source source = {.path = path};
    return read_all(&source, source_open(&source), file);
}

enum status safetensors_parse(const char *name, const void *bytes, size_t count,
                              struct safetensors *file) {
    struct source source = {.path = name};
    return read_all(&source, source_open_memory(&source, bytes, count), file);
}

enum status safetensors_check_seal(const char *name, const void *bytes, size_t count) {
    struct digest *digest = NULL;
    unsigned char seal[DIGEST_SIZE];
    if (count <= sizeof seal)
        FAIL(ST_INPUT, "%s: has %zu bytes: cut short", name, count);
    const size_t sealed = count - sizeof seal;
    TRY(digest_create(&digest));
    enum status status = digest_add(digest, bytes, sealed);
    if (status != ST_OK) {
        digest_destroy(digest);
        return status;
    }
    TRY(digest_finish_bytes(digest, seal));
    if (memcmp(seal, (const char *)bytes + sealed, sizeof seal) != 0)
        FAIL(ST_INPUT, "%s: its SHA-256 is not the one it ends with: damaged or cut short", name);
    return ST_OK;
}

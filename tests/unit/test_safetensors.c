/* The safetensors format: both ways bit for bit against files of an independent writer, and no
 * damaged file does harm. */
#include "check.h"
#include "temp_dir.h"
#include <errno.h>
#include <espalier/safetensors.h>
#include <signal.h>
#include <sys/resource.h>

/* Zeros, one, NaNs with payloads (the third signalling), infinities, denormals, the largest. */
static const uint32_t BITS[12] = {0x00000000, 0x80000000, 0x3F800000, 0x7FC00001,
                                  0xFFC12345, 0x7F800001, 0x7F800000, 0xFF800000,
                                  0x00000001, 0x807FFFFF, 0x7F7FFFFF, 0x3EAAAAAB};
static const float SCALAR = 2.5F, BIAS[3] = {1.0F, -2.0F, 0.1F};

/* The tensors of written.safetensors. */
static enum status write_example(const char *path) {
    float weight[12];
    memcpy(weight, BITS, sizeof weight);
    const struct safetensor tensors[] = {
        {.name = "conv1.weight", .dimensions = 4, .size = {2, 1, 2, 3}, .values = weight},
        {.name = "scalar", .dimensions = 0, .values = &SCALAR},
        {.name = "empty", .dimensions = 2, .size = {4, 0}, .values = NULL},
        {.name = "dense1.bias", .dimensions = 1, .size = {3}, .values = BIAS},
    };
    const struct safetensors_entry metadata[] = {{"format", "pt"},
                                                 {"text", "two\nlines \"quoted\" \\ back"}};
    return safetensors_write(path, tensors, 4, metadata, 2);
}

static void check_example(const struct safetensors *file) {
    static const char *const names[] = {"conv1.weight", "scalar", "empty", "dense1.bias"};
    assert_int_equal(file->tensors_count, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(file->tensors[i].name, names[i]);
    const struct safetensor *t = safetensors_find(file, "conv1.weight");
    assert_int_equal(t->dimensions, 4);
    assert_int_equal(t->size[0] * 1000 + t->size[1] * 100 + t->size[2] * 10 + t->size[3], 2123);
    assert_memory_equal(t->values, BITS, sizeof BITS);
    assert_int_equal(safetensors_find(file, "scalar")->dimensions, 0);
    assert_memory_equal(safetensors_find(file, "scalar")->values, &SCALAR, sizeof SCALAR);
    assert_int_equal(safetensors_find(file, "empty")->size[0], 4);
    assert_int_equal(safetensors_find(file, "empty")->size[1], 0);
    assert_memory_equal(safetensors_find(file, "dense1.bias")->values, BIAS, sizeof BIAS);
    assert_int_equal(file->metadata_count, 2);
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    assert_string_equal(safetensors_metadata(file, "text"), "two\nlines \"quoted\" \\ back");
}

static void round_trip_keeps_every_bit(void **state) {
    char path[TEST_PATH_SIZE];
    struct safetensors file;
    assert_ok(write_example(join(path, *state, "model.safetensors")));
    assert_ok(safetensors_read(path, &file));
    check_example(&file);
    assert_null(safetensors_find(&file, "conv1"));
    assert_null(safetensors_metadata(&file, "conv1.weight"));
    safetensors_destroy(&file);
    assert_int_equal(count_entries(*state), 1);
}

static void written_bytes_are_the_independent_writers(void **state) {
    static char expected[TEST_FILE_MAX], found[TEST_FILE_MAX];
    char path[TEST_PATH_SIZE];
    assert_ok(write_example(join(path, *state, "model.safetensors")));
    size_t count = read_bytes(FIXTURES "/written.safetensors", expected);
    assert_int_equal(read_bytes(path, found), count);
    assert_memory_equal(found, expected, count);
}

static void foreign_file_is_read(void **state) {
    (void)state;
    struct safetensors file;
    assert_ok(safetensors_read(FIXTURES "/foreign.safetensors", &file));
    static const char *const names[] = {"first", "caf\xc3\xa9 \"quoted\"", "empty", "last"};
    static const int dimensions[] = {1, 0, 2, 3};
    assert_int_equal(file.tensors_count, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(file.tensors[i].name, names[i]);
        assert_int_equal(file.tensors[i].dimensions, dimensions[i]);
    }
    assert_memory_equal(file.tensors[0].values, BITS, 6 * sizeof(float));
    assert_memory_equal(file.tensors[1].values, &SCALAR, sizeof SCALAR);
    assert_memory_equal(file.tensors[3].values, BITS + 6, 6 * sizeof(float));
    assert_int_equal(file.tensors[3].size[2], 3);
    assert_string_equal(safetensors_metadata(&file, "note"), "tab\tand \xe2\x9c\x93");
    assert_string_equal(safetensors_metadata(&file, ""), "empty key");
    safetensors_destroy(&file);
}

static void file_without_tensors_is_read(void **state) {
    char path[TEST_PATH_SIZE];
    struct safetensors file;
    assert_ok(safetensors_write(join(path, *state, "none.safetensors"), NULL, 0, NULL, 0));
    assert_ok(safetensors_read(path, &file));
    assert_int_equal(file.tensors_count, 0);
    assert_int_equal(file.metadata_count, 0);
    safetensors_destroy(&file);
    safetensors_destroy(&file); /* legal on a zeroed one */
}

/* ---- damaged files ---- */

/* Write `length` as the header's length, the header and `data_bytes` ones. */
static void write_raw(const char *path, uint64_t length, const char *header, size_t header_bytes,
                      size_t data_bytes) {
    static char bytes[TEST_FILE_MAX];
    assert_true(8 + header_bytes + data_bytes <= sizeof bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(length >> 8 * i);
    memcpy(bytes + 8, header, header_bytes);
    memset(bytes + 8 + header_bytes, 1, data_bytes);
    write_bytes(path, bytes, 8 + header_bytes + data_bytes);
}

/* A failure leaves nothing to free and names the file. */
static void check_refused(const char *path, const char *message) {
    struct safetensors file;
    memset(&file, 0x5a, sizeof file);
    enum status status = safetensors_read(path, &file);
    if (status != ST_INPUT || strstr(status_message(), message) == NULL ||
        strstr(status_message(), path) == NULL)
        fail_msg("status %d, message '%s', expected '%s'", (int)status, status_message(), message);
    assert_null(file.tensors);
    assert_null(file.owned);
}

#define T(shape, offsets) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct {
    const char *header;
    size_t data_bytes;
    const char *message;
} bad_headers[] = {
    /* not an object, not JSON, not text */
    {"", 0, "header does not begin with '{'"},
    {"[]", 0, "header does not begin with '{'"},
    {" {}", 0, "header does not begin with '{'"},
    {"{\"a\":" T("[1]", "[0,4]"), 4, "header is not JSON near byte"},
    {"{a:1}", 0, "header is not JSON near byte"},
    {"{\"a\":nan}", 0, "header is not JSON near byte"},
    {"{} x", 0, "header goes on after its JSON object, at byte 3"},
    {"{}{}", 0, "header goes on after its JSON object, at byte 2"},
    {"{\"\xff\":1}", 0, "header is not UTF-8 at byte 2"},
    {"{\"\xc0\x80\":1}", 0, "header is not UTF-8 at byte 2"},
    {"{\"\xed\xa0\x80\":1}", 0, "header is not UTF-8 at byte 2"},
    {"{\"a\x01\":1}", 0, "header holds a control character at byte 3"},
    {"{\"a\\u0000b\":" T("[1]", "[0,4]") "}", 4, "header holds a zero character at byte 3"},
    {"{\"a\\nb\":" T("[1]", "[0,4]") "}", 4, "a name with a control character"},
    /* members */
    {"{\"a\":1}", 0, "tensor a: is no object of dtype, shape and data_offsets"},
    {"{\"a\":{}}", 0, "tensor a: is no object of dtype, shape and data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"offsets\":[0,4]}}", 4,
     "tensor a: data_offsets are not two whole numbers"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4,
     "tensor a: shape is not an array"},
    {"{\"a\":" T("[1]", "[0,4]") ",\"a\":" T("[1]", "[4,8]") "}", 8, "header has the name a twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "header has the name __metadata__ twice"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object of texts"},
    {"{\"__metadata__\":{\"k\":1}}", 0, "__metadata__: k is not text"},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "header has the name k twice"},
    /* dtype */
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
     "tensor a: has dtype F16, only F32, F64, I32, I64 and U8 are supported"},
    {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "tensor a: has dtype f32, only F32, F64, I32, I64 and U8 are supported"},
    {"{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "tensor a: dtype is not text"},
    /* shape */
    {"{\"a\":" T("4", "[0,16]") "}", 16, "tensor a: shape is not an array"},
    {"{\"a\":" T("[1,-1]", "[0,4]") "}", 4, "tensor a: size 2 of its shape is not a whole number"},
    {"{\"a\":" T("[0.5]", "[0,4]") "}", 4, "tensor a: size 1 of its shape is not a whole number"},
    {"{\"a\":" T("[\"1\"]", "[0,4]") "}", 4, "size 1 of its shape is not a whole number"},
    {"{\"a\":" T("[1e999]", "[0,4]") "}", 4, "size 1 of its shape is not a whole number"},
    {"{\"a\":" T("[9007199254740992]", "[0,4]") "}", 4,
     "size 1 of its shape is not a whole number"},
    {"{\"a\":" T("[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4,
     "tensor a: has 9 dimensions, at most 8 are supported"},
    /* 2^32 * 2^30 * 4 bytes = 2^64, which would wrap to 0 */
    {"{\"a\":" T("[4294967296,1073741824]", "[0,0]") "}", 0,
     "tensor a: the product of its shape overflows"},
    {"{\"a\":" T("[4611686018427387905]", "[0,4]") "}", 4, "is not a whole number"},
    {"{\"a\":" T("[2251799813685248,2048,1]", "[0,0]") "}", 0, "overflows"},
    /* offsets */
    {"{\"a\":" T("[1]", "[0]") "}", 4, "tensor a: data_offsets are not two whole numbers"},
    {"{\"a\":" T("[1]", "[0,4,8]") "}", 4, "tensor a: data_offsets are not two whole numbers"},
    {"{\"a\":" T("[1]", "[-4,0]") "}", 4, "tensor a: data_offsets are not two whole numbers"},
    {"{\"a\":" T("[1]", "[0,4.5]") "}", 4, "tensor a: data_offsets are not two whole numbers"},
    {"{\"a\":" T("[1]", "[0,null]") "}", 4, "tensor a: data_offsets are not two whole numbers"},
    {"{\"a\":" T("[1]", "[4,0]") "}", 4,
     "tensor a: data_offsets [4, 0] do not lie in 4 bytes of data"},
    {"{\"a\":" T("[2]", "[0,8]") "}", 7,
     "tensor a: data_offsets [0, 8] do not lie in 7 bytes of data"},
    {"{\"a\":" T("[1]", "[9007199254740987,9007199254740991]") "}", 4, "do not lie in 4 bytes"},
    {"{\"a\":" T("[2]", "[0,4]") "}", 4,
     "tensor a: its shape needs 8 bytes, data_offsets enclose 4"},
    {"{\"a\":" T("[]", "[0,0]") "}", 0, "its shape needs 4 bytes, data_offsets enclose 0"},
    {"{\"a\":" T("[0]", "[0,4]") "}", 4, "its shape needs 0 bytes, data_offsets enclose 4"},
    /* the data as a whole */
    {"{\"a\":" T("[2]", "[0,8]") ",\"b\":" T("[2]", "[4,12]") "}", 12,
     "tensor b: begins at byte 4 of the data, expected 8 (overlap)"},
    {"{\"a\":" T("[1]", "[0,4]") ",\"b\":" T("[1]", "[0,4]") "}", 4, "(overlap)"},
    {"{\"a\":" T("[1]", "[0,4]") ",\"b\":" T("[1]", "[8,12]") "}", 12,
     "tensor b: begins at byte 8 of the data, expected 4 (gap)"},
    {"{\"a\":" T("[1]", "[4,8]") "}", 8,
     "tensor a: begins at byte 4 of the data, expected 0 (gap)"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":" T("[1]", "[1,5]") "}",
     5, "tensor b: begins at byte 1 of the data, no multiple of 4"},
    {"{\"a\":" T("[1]", "[0,4]") "}", 5, "has 5 bytes of data, its tensors take 4"},
    {"{}", 4, "has 4 bytes of data, its tensors take 0"},
};

static void bad_headers_are_refused(void **state) {
    char path[TEST_PATH_SIZE];
    join(path, *state, "bad.safetensors");
    for (size_t i = 0; i < sizeof bad_headers / sizeof bad_headers[0]; i++) {
        size_t length = strlen(bad_headers[i].header);
        write_raw(path, length, bad_headers[i].header, length, bad_headers[i].data_bytes);
        check_refused(path, bad_headers[i].message);
    }
}

static void bad_lengths_are_refused(void **state) {
    char path[TEST_PATH_SIZE];
    join(path, *state, "bad.safetensors");
    write_bytes(path, "", 0);
    check_refused(path, "has 0 bytes, expected a safetensors file (at least 10 bytes)");
    write_bytes(path, "\2\0\0\0\0\0\0", 7);
    check_refused(path, "has 7 bytes, expected a safetensors file (at least 10 bytes)");
    write_raw(path, 3, "{}", 2, 0);
    check_refused(path, "header claims 3 bytes, the file has 2 after its length");
    write_raw(path, UINT64_MAX, "{}", 2, 0);
    check_refused(path, "header claims 18446744073709551615 bytes, the file has 2");
    write_raw(path, UINT64_MAX - 7, "{}", 2, 0);
    check_refused(path, "header claims 18446744073709551608 bytes, the file has 2");
    write_raw(path, 100000001, "{}", 2, 0);
    assert_int_equal(truncate(path, 100000100), 0); /* a hole: no disk */
    check_refused(path, "header claims 100000001 bytes, at most 100000000 are allowed");
    write_bytes(path, "# A text that is no model\n", 26);
    check_refused(path, "/bad.safetensors: not a safetensors file: begins with neither");
    write_bytes(path, "12345678", 8); /* ends where the header would begin */
    check_refused(path, ": not a safetensors file: begins with neither");
    write_raw(path, 7, "{\0     ", 7, 0);
    check_refused(path, "header holds a control character at byte 1");
}

static void every_truncation_is_refused(void **state) {
    static char bytes[TEST_FILE_MAX];
    char path[TEST_PATH_SIZE];
    join(path, *state, "cut.safetensors");
    size_t count = read_bytes(FIXTURES "/foreign.safetensors", bytes);
    write_bytes(path, bytes, count);
    while (count-- > 0) {
        assert_int_equal(truncate(path, (off_t)count), 0);
        check_refused(path, path);
    }
}

static void what_is_no_file_is_refused(void **state) {
    char path[TEST_PATH_SIZE];
    check_refused(*state, "is a directory, expected a safetensors file");
    check_refused(join(path, *state, "missing.safetensors"), "No such file or directory");
    check_refused("/dev/null", "is no regular file, expected a safetensors file");
    assert_int_equal(mkfifo(join(path, *state, "fifo"), 0600), 0);
    check_refused(path, "is no regular file"); /* and does not wait for a writer */
}

static void deep_nesting_is_refused(void **state) {
    static char header[50000];
    char path[TEST_PATH_SIZE];
    memset(header, '[', sizeof header);
    memcpy(header, "{\"a\":", 5);
    write_raw(join(path, *state, "deep.safetensors"), sizeof header, header, sizeof header, 0);
    check_refused(path, "header is not JSON near byte");
}

/* The number of values, each of which is read. */
static uint64_t count_and_touch(const struct safetensors *file) {
    volatile float sum = 0;
    uint64_t all = 0;
    for (int t = 0; t < file->tensors_count; t++) {
        const struct safetensor *tensor = &file->tensors[t];
        const unsigned char *bytes = tensor->values;
        for (uint64_t i = 0; i < safetensor_count(tensor) * safetensors_type_size(tensor->type);
             i++)
            sum += bytes[i];
        all += safetensor_count(tensor);
    }
    return all;
}

static void put_byte(const char *path, size_t at, char byte) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_equal(fputc(byte, file), (unsigned char)byte);
    assert_int_equal(fclose(file), 0);
}

/* Every change of one byte before the data is read as some valid file or refused by name. */
static void changed_bytes_do_no_harm(void **state) {
    static char bytes[TEST_FILE_MAX];
    char path[TEST_PATH_SIZE];
    size_t count = read_bytes(FIXTURES "/foreign.safetensors", bytes), refused = 0;
    size_t before_data = count - 13 * sizeof(float);
    write_bytes(join(path, *state, "changed.safetensors"), bytes, count);
    for (size_t i = 0; i < before_data; i++)
        for (int bit = 0; bit <= 8; bit++) {
            char change = (char)(bit == 8 ? 0xff : 1 << bit);
            struct safetensors file;
            put_byte(path, i, (char)(bytes[i] ^ change));
            enum status status = safetensors_read(path, &file);
            put_byte(path, i, bytes[i]);
            if (status != ST_OK) {
                assert_int_equal(status, ST_INPUT);
                assert_non_null(strstr(status_message(), path));
                refused++;
                continue;
            }
            assert_true(count_and_touch(&file) <= 13);
            safetensors_destroy(&file);
        }
    assert_true(refused > before_data); /* most of the structure matters */
}

/* ---- writing where it cannot be ---- */

static const char OLD[] = "what stood there before";

static void check_untouched(const char *dir, const char *path) {
    static char found[TEST_FILE_MAX];
    assert_int_equal(read_bytes(path, found), sizeof OLD);
    assert_memory_equal(found, OLD, sizeof OLD);
    assert_int_equal(count_entries(dir), 1);
}

static void full_disk_leaves_the_old_file(void **state) {
    char path[TEST_PATH_SIZE], temporary[TEST_PATH_SIZE];
    write_bytes(join(path, *state, "model.safetensors"), OLD, sizeof OLD);
    assert_int_equal(symlink("/dev/full", join(temporary, *state, "model.safetensors.tmp")), 0);
    assert_fails(write_example(path), ST_IO, strerror(ENOSPC));
    assert_non_null(strstr(status_message(), path));
    check_untouched(*state, path);
}

/* The limit strikes once the first buffer has reached the disk, in the middle of the file. */
static void write_cut_short_leaves_the_old_file(void **state) {
    static float values[10000];
    const struct safetensor tensor = {
        .name = "a", .dimensions = 1, .size = {10000}, .values = values};
    char path[TEST_PATH_SIZE];
    struct rlimit before, limit;
    write_bytes(join(path, *state, "model.safetensors"), OLD, sizeof OLD);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){8192, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    enum status status = safetensors_write(path, &tensor, 1, NULL, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, ST_IO);
    assert_non_null(strstr(status_message(), strerror(EFBIG)));
    assert_non_null(strstr(status_message(), path));
    check_untouched(*state, path);
}

static void unwritable_places_are_named(void **state) {
    char path[TEST_PATH_SIZE];
    assert_fails(write_example(join(path, *state, "missing/model.safetensors")), ST_IO,
                 strerror(ENOENT));
    assert_non_null(strstr(status_message(), path));
    assert_int_equal(mkdir(join(path, *state, "directory"), 0700), 0);
    assert_fails(write_example(path), ST_IO, strerror(EISDIR));
    assert_int_equal(count_entries(*state), 1); /* no .tmp */
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip_keeps_every_bit, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(written_bytes_are_the_independent_writers, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test(foreign_file_is_read),
        cmocka_unit_test_setup_teardown(file_without_tensors_is_read, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(bad_headers_are_refused, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(bad_lengths_are_refused, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(every_truncation_is_refused, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_refused, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(deep_nesting_is_refused, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(changed_bytes_do_no_harm, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(full_disk_leaves_the_old_file, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(write_cut_short_leaves_the_old_file, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(unwritable_places_are_named, temp_dir_setup,
                                        temp_dir_teardown),
    };
    return RUN_TESTS(tests, argc, argv);
}

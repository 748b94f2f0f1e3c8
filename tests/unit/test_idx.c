/* The IDX reader: what it accepts, and what it says about everything else. */
#define _XOPEN_SOURCE 700
#include "idx_files.h"
#include <espalier/idx.h>

/* Of the sanitizers' run time, whose header compilers do not always install. */
int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void *, size_t),
                                              void (*freed)(const volatile void *));

enum { COUNT = 5, HEIGHT = 3, WIDTH = 4, DATA = COUNT * HEIGHT * WIDTH, FILE_BYTES = 16 + DATA };

/* Five images of 3 x 4 with the bytes 0, 7, 14, ... and room for more. */
static size_t make_images(uint8_t bytes[FILE_BYTES + 1]) {
    size_t header = put_header(bytes, 3, COUNT, HEIGHT, WIDTH);
    for (int i = 0; i <= DATA; i++)
        bytes[header + (size_t)i] = (uint8_t)(7 * i);
    return FILE_BYTES;
}

static void assert_images(const char *path) {
    struct idx idx;
    uint8_t expected[FILE_BYTES + 1];
    make_images(expected);
    assert_ok(idx_read(path, 3, &idx));
    assert_int_equal(idx.dimensions, 3);
    assert_int_equal(idx.size[0], COUNT);
    assert_int_equal(idx.size[1], HEIGHT);
    assert_int_equal(idx.size[2], WIDTH);
    assert_memory_equal(idx.bytes, expected + 16, DATA);
    idx_destroy(&idx);
}

/* The message must begin with the path and contain the text; nothing may be left allocated. */
static void assert_refused_as(const char *path, int dimensions, enum status code,
                              const char *text) {
    struct idx idx;
    assert_fails(idx_read(path, dimensions, &idx), code, text);
    assert_true(strncmp(status_message(), path, strlen(path)) == 0);
    assert_null(strchr(status_message(), '\n'));
    assert_null(idx.bytes);
}

static void assert_refused(const char *path, const char *text) {
    assert_refused_as(path, 3, ST_INPUT, text);
}

static const char *plain(void **state, const void *bytes, size_t count) {
    static char path[TEST_PATH_SIZE];
    write_bytes(join(path, *state, "t10k-images-idx3-ubyte"), bytes, count);
    return path;
}

static const char *zipped(void **state, const void *bytes, size_t count) {
    static char path[TEST_PATH_SIZE];
    write_gzip(join(path, *state, "t10k-images-idx3-ubyte.gz"), "wb", bytes, count);
    return path;
}

static size_t slurp(const char *path, uint8_t *bytes, size_t size) {
    FILE *file = fopen(path, "rb");
    size_t count = fread(bytes, 1, size, file);
    fclose(file);
    return count;
}

static void reads_images(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    assert_images(plain(state, bytes, make_images(bytes)));
}

static void reads_labels(void **state) {
    const uint8_t bytes[] = {0, 0, 8, 1, 0, 0, 0, 3, 9, 0, 255};
    struct idx idx;
    assert_ok(idx_read(plain(state, bytes, sizeof bytes), 1, &idx));
    assert_int_equal(idx.dimensions, 1);
    assert_int_equal(idx.size[0], 3);
    assert_memory_equal(idx.bytes, bytes + 8, 3);
    idx_destroy(&idx);
    idx_destroy(&idx);
}

static void reads_gzip(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    assert_images(zipped(state, bytes, make_images(bytes)));
}

static void goes_by_content_not_by_name(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    size_t count = make_images(bytes);
    char path[TEST_PATH_SIZE];
    write_bytes(join(path, *state, "plain.gz"), bytes, count);
    assert_images(path);
    write_gzip(join(path, *state, "compressed-idx3-ubyte"), "wb", bytes, count);
    assert_images(path);
}

static void reads_gzip_of_several_members(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    size_t count = make_images(bytes);
    char path[TEST_PATH_SIZE];
    write_gzip(join(path, *state, "members"), "wb", bytes, 10);
    write_gzip(path, "ab", bytes + 10, 0);
    write_gzip(path, "ab", bytes + 10, count - 10);
    assert_images(path);
}

/* Long enough for the buffer to grow several times and for many chunks of the file: incompressible
 * bytes. */
static void reads_large_gzip(void **state) {
    enum { IMAGES = 3500, SIDE = 32, BYTES = IMAGES * SIDE * SIDE };
    uint8_t *bytes = malloc(16 + BYTES);
    put_header(bytes, 3, IMAGES, SIDE, SIDE);
    for (uint32_t i = 0, x = 1; i < BYTES; i++, x = x * 1664525u + 1013904223u)
        bytes[16 + i] = (uint8_t)(x >> 24);
    struct idx idx;
    char path[TEST_PATH_SIZE];
    gzFile file = gzopen(join(path, *state, "large"), "wb1");
    assert_int_equal(gzwrite(file, bytes, 16 + BYTES), 16 + BYTES);
    gzclose(file);
    assert_ok(idx_read(path, 3, &idx));
    assert_memory_equal(idx.bytes, bytes + 16, BYTES);
    idx_destroy(&idx);
    free(bytes);
}

static void refuses_missing_file(void **state) {
    char path[TEST_PATH_SIZE];
    assert_refused(join(path, *state, "absent"), "absent: not found, an IDX file of images");
    plain(state, "x", 1);
    join(path, *state, "t10k-images-idx3-ubyte/below");
    assert_refused(path, "below: not found");
}

static void refuses_directory(void **state) {
    assert_refused(*state, ": a directory, an IDX file of images expected");
}

static void refuses_pipe_without_waiting(void **state) {
    char path[TEST_PATH_SIZE];
    assert_int_equal(mkfifo(join(path, *state, "pipe"), 0600), 0);
    assert_refused(path, "pipe: not a regular file");
}

static void reports_what_system_refuses(void **state) {
    char path[TEST_PATH_SIZE];
    assert_int_equal(symlink("loop", join(path, *state, "loop")), 0);
    assert_refused_as(path, 3, ST_IO, "loop: cannot open: ");
    assert_refused_as("/proc/self/mem", 3, ST_IO, "/proc/self/mem: cannot read: ");
}

static void refuses_empty_file(void **state) {
    assert_refused(plain(state, "", 0), ": empty (0 bytes), an IDX file of images expected");
    assert_refused(zipped(state, "", 0),
                   ": empty (0 bytes) after decompression, an IDX file of images");
}

/* Cut inside the magic, the count, the height and the width. */
static void refuses_truncated_header(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    make_images(bytes);
    for (size_t count = 1; count < 16; count++) {
        char text[80];
        snprintf(text, sizeof text, ": truncated in the header: 16 bytes expected, %zu found",
                 count);
        assert_refused(plain(state, bytes, count), text);
        assert_refused(zipped(state, bytes, count), text);
    }
}

static void refuses_truncated_header_of_labels(void **state) {
    const uint8_t bytes[] = {0, 0, 8, 1, 0, 0, 0};
    assert_refused_as(plain(state, bytes, 7), 1, ST_INPUT, "header: 8 bytes expected, 7 found");
}

static void refuses_truncated_data(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    make_images(bytes);
    for (size_t count = 16; count < FILE_BYTES; count++) {
        char text[80];
        snprintf(text, sizeof text, ": truncated: 76 bytes expected from the header, %zu found",
                 count);
        assert_refused(plain(state, bytes, count), text);
        assert_refused(zipped(state, bytes, count), strcat(text, " after decompression"));
    }
}

static void refuses_bytes_after_end(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    make_images(bytes);
    assert_refused(plain(state, bytes, FILE_BYTES + 1),
                   ": bytes after the end: 76 bytes expected from the header, 77 found");
    assert_refused(zipped(state, bytes, FILE_BYTES + 1),
                   ": bytes after the end: 76 bytes expected from the header, more found");
}

static void refuses_wrong_magic(void **state) {
    static const struct {
        uint32_t magic;
        const char *text;
    } cases[] = {
        {0x03080000, "magic 0x03080000 found, 0x00000803 (images) expected"}, /* little-endian */
        {0x00000d03, "magic 0x00000d03 found"},                               /* floats */
        {0x00000802, "magic 0x00000802 found"},                               /* two dimensions */
        {0x3c68746d, "magic 0x3c68746d found"},                               /* "<htm" */
        {0, "magic 0x00000000 found"},
    };
    uint8_t bytes[FILE_BYTES + 1];
    make_images(bytes);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_word(bytes, cases[i].magic);
        assert_refused(plain(state, bytes, FILE_BYTES), cases[i].text);
        assert_refused(plain(state, bytes, 4), cases[i].text);
        assert_refused(zipped(state, bytes, FILE_BYTES), cases[i].text);
    }
}

static void names_swapped_files(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    make_images(bytes);
    assert_refused_as(plain(state, bytes, FILE_BYTES), 1, ST_INPUT,
                      "magic 0x00000803 (images) found, 0x00000801 (labels) expected");
    const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 1, 5};
    assert_refused(plain(state, labels, sizeof labels),
                   "magic 0x00000801 (labels) found, 0x00000803 (images) expected");
}

static void refuses_sizes_out_of_limits(void **state) {
    static const struct {
        uint32_t count, height, width;
        const char *text;
    } cases[] = {
        {0, 3, 4, ": 0 images in the header, 1 to 2147483647 expected"},
        {0x80000000u, 3, 4, ": 2147483648 images in the header, 1 to 2147483647 expected"},
        {0xffffffffu, 3, 4, ": 4294967295 images in the header"},
        {5, 0, 4, ": images of 0x4 in the header, 1 to 268435456 bytes each expected"},
        {5, 3, 0, ": images of 3x0 in the header"},
        {5, 16385, 16384, ": images of 16385x16384 in the header"},
        {5, 0xffffffffu, 0xffffffffu, ": images of 4294967295x4294967295 in the header"},
    };
    uint8_t bytes[FILE_BYTES + 1];
    make_images(bytes);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_header(bytes, 3, cases[i].count, cases[i].height, cases[i].width);
        assert_refused(plain(state, bytes, FILE_BYTES), cases[i].text);
        assert_refused(zipped(state, bytes, FILE_BYTES), cases[i].text);
    }
}

static void refuses_no_labels(void **state) {
    const uint8_t bytes[] = {0, 0, 8, 1, 0, 0, 0, 0};
    assert_refused_as(plain(state, bytes, sizeof bytes), 1, ST_INPUT,
                      ": 0 labels in the header, 1 to 2147483647 expected");
}

static size_t largest_block;

static void note_block(const volatile void *block, size_t bytes) {
    (void)block;
    if (bytes > largest_block)
        largest_block = bytes;
}

static void note_free(const volatile void *block) {
    (void)block;
}

/* Header claims are within the limits and absurd; memory follows the bytes that are there. */
static void allocates_no_more_than_is_there(void **state) {
    uint8_t bytes[FILE_BYTES + 1];
    make_images(bytes);
    put_header(bytes, 3, 0x7fffffffu, 16384, 16384);
    const char *truncated =
        "truncated: 576460752034988048 bytes expected from the header, 76 found";
    const char *plain_path = plain(state, bytes, FILE_BYTES);
    const char *zipped_path = zipped(state, bytes, FILE_BYTES);
    __sanitizer_install_malloc_and_free_hooks(note_block, note_free);
    largest_block = 0;
    assert_refused(plain_path, truncated);
    assert_in_range(largest_block, 1, 1 << 18);
    assert_refused(zipped_path, truncated);
    assert_in_range(largest_block, 1, 1 << 20);
}

/* 64 MiB of zeros behind a header that claims 60 bytes. */
static void survives_gzip_bomb(void **state) {
    enum { MEBIBYTE = 1 << 20 };
    uint8_t *bytes = calloc(1, MEBIBYTE);
    char path[TEST_PATH_SIZE];
    gzFile file = gzopen(join(path, *state, "bomb"), "wb1");
    put_header(bytes, 3, COUNT, HEIGHT, WIDTH);
    for (int i = 0; i < 64; i++) {
        gzwrite(file, bytes, MEBIBYTE);
        memset(bytes, 0, 16);
    }
    gzclose(file);
    free(bytes);
    __sanitizer_install_malloc_and_free_hooks(note_block, note_free);
    largest_block = 0;
    assert_refused(path, "bytes after the end: 76 bytes expected from the header, more found");
    assert_in_range(largest_block, 1, 1 << 18);
}

/* At every length; a single byte is not even gzip's magic. */
static void refuses_gzip_cut_short(void **state) {
    uint8_t bytes[FILE_BYTES + 1], packed[512];
    size_t count = slurp(zipped(state, bytes, make_images(bytes)), packed, sizeof packed);
    assert_refused(plain(state, packed, 1), "truncated in the header: 16 bytes expected, 1 found");
    for (size_t cut = 2; cut < count; cut++) {
        char text[80];
        snprintf(text, sizeof text, ": gzip data cut short: its end not found in %zu bytes", cut);
        assert_refused(plain(state, packed, cut), text);
    }
}

/* The last eight bytes are the CRC and the length. */
static void refuses_gzip_with_wrong_check(void **state) {
    uint8_t bytes[FILE_BYTES + 1], packed[512];
    size_t count = slurp(zipped(state, bytes, make_images(bytes)), packed, sizeof packed);
    packed[count - 8] ^= 1;
    assert_refused(plain(state, packed, count), ": damaged gzip data: incorrect data check");
    packed[count - 8] ^= 1;
    packed[count - 1] ^= 1;
    assert_refused(plain(state, packed, count), ": damaged gzip data: incorrect length check");
}

/* Whatever bit flips: an error, or (in the time stamp and the like) the right images. */
static void never_takes_flipped_gzip_for_other_images(void **state) {
    uint8_t bytes[FILE_BYTES + 1], packed[512];
    size_t count = slurp(zipped(state, bytes, make_images(bytes)), packed, sizeof packed);
    size_t refused = 0;
    for (size_t bit = 0; bit < 8 * count; bit++) {
        packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        const char *path = plain(state, packed, count);
        struct idx idx;
        if (idx_read(path, 3, &idx) == ST_OK)
            assert_memory_equal(idx.bytes, bytes + 16, DATA);
        else
            refused++;
        idx_destroy(&idx);
        packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_in_range(refused, 8 * (count - 10), 8 * count);
}

static void refuses_gzip_with_trailing_garbage(void **state) {
    uint8_t bytes[FILE_BYTES + 1], packed[512];
    size_t count = slurp(zipped(state, bytes, make_images(bytes)), packed, sizeof packed - 20);
    memset(packed + count, 'x', 20);
    assert_refused(plain(state, packed, count + 20), ": bytes after the end of the gzip data");
    packed[count] = 0x1f;
    assert_refused(plain(state, packed, count + 20), ": damaged gzip data: incorrect header check");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_images, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(reads_labels, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(reads_gzip, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(goes_by_content_not_by_name, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(reads_gzip_of_several_members, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(reads_large_gzip, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_missing_file, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_directory, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_pipe_without_waiting, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(reports_what_system_refuses, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_empty_file, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_truncated_header, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_truncated_header_of_labels, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_truncated_data, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_bytes_after_end, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_wrong_magic, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(names_swapped_files, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_sizes_out_of_limits, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_no_labels, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(allocates_no_more_than_is_there, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(survives_gzip_bomb, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_gzip_cut_short, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_gzip_with_wrong_check, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(never_takes_flipped_gzip_for_other_images, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_gzip_with_trailing_garbage, temp_dir_setup,
                                        temp_dir_teardown),
    };
    return RUN_TESTS(tests, argc, argv);
}

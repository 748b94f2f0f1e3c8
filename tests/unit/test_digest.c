/* SHA-256 against the vectors of FIPS 180 and NIST's examples; the ranks' hash against SplitMix64's
 * published output. */
#include "idx_files.h"
#include <espalier/digest.h>

static const struct {
    const char *message, *digest;
} vectors[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlm"
     "nopqrsmnopqrstnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};
static const char million_a[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void bytes_match_published_digests(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        char text[DIGEST_TEXT_SIZE];
        assert_ok(digest_bytes(vectors[i].message, strlen(vectors[i].message), text));
        assert_string_equal(text, vectors[i].digest);
    }
}

/* A million times "a", in pieces of 1, 2, 3, ... bytes. */
static void pieces_match_published_digest(void **state) {
    (void)state;
    char as[2000], text[DIGEST_TEXT_SIZE];
    memset(as, 'a', sizeof as);
    struct digest *digest;
    assert_ok(digest_create(&digest));
    size_t left = 1000000;
    for (size_t piece = 1; left > 0; piece++) {
        size_t count = piece < left ? piece : left;
        assert_ok(digest_add(digest, as, count));
        left -= count;
    }
    assert_ok(digest_finish(digest, text));
    assert_string_equal(text, million_a);
}

static void file_matches_published_digest(void **state) {
    char path[TEST_PATH_SIZE], text[DIGEST_TEXT_SIZE];
    char *as = malloc(1000000);
    memset(as, 'a', 1000000);
    write_bytes(join(path, *state, "file"), as, 1000000);
    free(as);
    assert_ok(digest_file(path, text));
    assert_string_equal(text, million_a);
    write_bytes(path, "", 0);
    assert_ok(digest_file(path, text));
    assert_string_equal(text, vectors[0].digest);
}

static void file_that_cannot_be_read_is_named(void **state) {
    char path[TEST_PATH_SIZE], text[DIGEST_TEXT_SIZE];
    assert_fails(digest_file(join(path, *state, "absent"), text), ST_IO, "absent: cannot open: ");
    assert_fails(digest_file(*state, text), ST_IO, "cannot read: ");
    assert_non_null(strstr(status_message(), *state));
}

static void unfinished_digest_can_be_destroyed(void **state) {
    (void)state;
    struct digest *digest;
    assert_ok(digest_create(&digest));
    assert_ok(digest_add(digest, "abc", 3));
    digest_destroy(digest);
    digest_destroy(NULL);
}

/* SplitMix64 adds 0x9e3779b97f4a7c15 to its state and mixes it: the first outputs for the seed
 * 1234567, as published with the reference implementation. */
static void mix_is_the_finaliser_of_splitmix64(void **state) {
    (void)state;
    static const uint64_t outputs[] = {6457827717110365317u, 3203168211198807973u,
                                       9817491932198370423u, 4593380528125082431u,
                                       16408922859458223821u};
    uint64_t x = 1234567;
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++)
        assert_true(hash_mix(x += 0x9e3779b97f4a7c15u) == outputs[i]);
}

static void hash_is_a_sum_over_words(void **state) {
    (void)state;
    static const uint32_t words[] = {5, 0, 0xffffffff, 5};
    assert_true(hash_words(words, 0) == 0);
    assert_true(hash_words(words, 1) == hash_mix(5));
    uint64_t sum =
        hash_mix(5) + hash_mix(0x100000000u) + hash_mix(0x2ffffffffu) + hash_mix(0x300000005u);
    assert_true(hash_words(words, 4) == sum);
}

/* Each single flipped bit and each swap of two different words gives another hash. */
static void hash_sees_flips_and_swaps(void **state) {
    (void)state;
    enum { COUNT = 64 };
    uint32_t words[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        words[i] = i * i;
    uint64_t hash = hash_words(words, COUNT);
    for (int bit = 0; bit < 32 * COUNT; bit++) {
        words[bit / 32] ^= 1u << bit % 32;
        assert_true(hash_words(words, COUNT) != hash);
        words[bit / 32] ^= 1u << bit % 32;
    }
    for (int i = 1; i < COUNT; i++) {
        uint32_t swapped[COUNT];
        memcpy(swapped, words, sizeof words);
        swapped[i] = words[i - 1];
        swapped[i - 1] = words[i];
        assert_true(hash_words(swapped, COUNT) != hash);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_match_published_digests),
        cmocka_unit_test(pieces_match_published_digest),
        cmocka_unit_test_setup_teardown(file_matches_published_digest, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(file_that_cannot_be_read_is_named, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test(unfinished_digest_can_be_destroyed),
        cmocka_unit_test(mix_is_the_finaliser_of_splitmix64),
        cmocka_unit_test(hash_is_a_sum_over_words),
        cmocka_unit_test(hash_sees_flips_and_swaps),
    };
    return RUN_TESTS(tests, argc, argv);
}

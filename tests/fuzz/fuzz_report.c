/* What a run has left behind, read back and drawn: events.jsonl, and behind a byte 0 summary.json.
 */
#include "fuzz.h"

#include <espalier/report.h>
#include <sys/stat.h>

static char dir[64];

static void write_file(const char *name, const uint8_t *data, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    REQUIRE(file != NULL && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

static void remove_file(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static void remove_dir(void) {
    remove_file("events.jsonl");
    remove_file("summary.json");
    rmdir(dir);
}

static void make_dir(void) {
    snprintf(dir, sizeof dir, "/dev/shm/espalier-fuzz-XXXXXX");
    REQUIRE(mkdtemp(dir) != NULL);
    atexit(remove_dir);
}

/* Texts of the run stay texts: they bring no element of their own onto the page. */
static void check_page(const struct run_record *record) {
    char *page = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&page, &size);
    REQUIRE(file != NULL && report_write(file, record, 1) == ST_OK && fclose(file) == 0);
    REQUIRE(strstr(page, "<script") == NULL && strstr(page, "<?") == NULL);
    free(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (dir[0] == '\0')
        make_dir();
    const uint8_t *end = memchr(data, 0, size);
    size_t events = end == NULL ? size : (size_t)(end - data);
    struct run_record record;
    write_file("events.jsonl", data, events);
    remove_file("summary.json");
    if (end != NULL)
        write_file("summary.json", end + 1, size - events - 1);
    enum status status = run_record_read(dir, &record);
    if (status == ST_OK)
        check_page(&record);
    else
        fuzz_check_refusal(status);
    run_record_destroy(&record);
    return 0;
}

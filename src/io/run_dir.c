#include "file.h"
#include <dirent.h>
#include <errno.h>
#include <espalier/run_dir.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void run_dir_default(const struct recipe *recipe, char *path, size_t size) {
    char when[32];
    time_t now = time(NULL);
    struct tm local;
    if (localtime_r(&now, &local) == NULL ||
        strftime(when, sizeof when, "%Y%m%d-%H%M%S", &local) == 0)
        snprintf(when, sizeof when, "%lld", (long long)now);
    struct stat information;
    snprintf(path, size, "results/runs/%s-%s", recipe->name, when);
    for (int again = 2; stat(path, &information) == 0; again++)
        snprintf(path, size, "results/runs/%s-%s-%d", recipe->name, when, again);
}

static enum status make_directory(const char *path) {
    if (mkdir(path, 0777) == 0)
        return flush_directory_of(path); /* a power failure must not take the run with it */
    if (errno != EEXIST)
        FAIL(ST_IO, "cannot make directory %s: %s", path, strerror(errno));
    return ST_OK;
}

static enum status make_parents(const char *path) {
    char parent[FILE_PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof parent)
        FAIL(ST_IO, "cannot make directory %.64s...: %s", path, strerror(ENAMETOOLONG));
    for (size_t i = 1; i < length; i++)
        if (path[i] == '/') {
            memcpy(parent, path, i);
            parent[i] = '\0';
            TRY(make_directory(parent));
        }
    return ST_OK;
}

/* What a run that was killed as it began has left: nothing yet. */
static bool is_nothing(const char *dir, const char *entry) {
    char path[FILE_PATH_MAX];
    struct stat information;
    if (strcmp(entry, ".") == 0 || strcmp(entry, "..") == 0 || strcmp(entry, "recipe.cfg.tmp") == 0)
        return true;
    return strcmp(entry, "events.jsonl") == 0 && path_join(dir, entry, path) == ST_OK &&
           stat(path, &information) == 0 && information.st_size == 0;
}

/* The name of some entry of a directory, "" when it is empty. */
static enum status first_entry(const char *path, char *name, size_t size) {
    DIR *dir = opendir(path);
    if (dir == NULL)
        FAIL(ST_IO, "cannot read directory %s: %s", path, strerror(errno));
    name[0] = '\0';
    for (struct dirent *entry; name[0] == '\0' && (entry = readdir(dir)) != NULL;)
        if (!is_nothing(path, entry->d_name))
            snprintf(name, size, "%s", entry->d_name);
    closedir(dir);
    return ST_OK;
}

static bool holds(const char *dir, const char *name) {
    char path[FILE_PATH_MAX];
    return path_join(dir, name, path) == ST_OK && access(path, F_OK) == 0;
}

/* A run never mixes with what an earlier one left, unless it goes on with that. */
static enum status check_content(const char *path, bool resume) {
    char name[256];
    TRY(first_entry(path, name, sizeof name));
    if (name[0] == '\0' || (resume && holds(path, "recipe.cfg")))
        return ST_OK;
    if (resume)
        FAIL(ST_USAGE, "run directory %s holds %s, but no recipe.cfg: there is no run to resume",
             path, name);
    FAIL(ST_USAGE,
         "run directory %s is not empty: it holds %s; name one that is new or empty, or go on with "
         "it by --resume",
         path, name);
}

enum status run_dir_create(const char *path, bool resume) {
    struct stat information;
    if (stat(path, &information) == 0) {
        if (!S_ISDIR(information.st_mode))
            FAIL(ST_USAGE, "run directory %s is not a directory: name one that is new or empty",
                 path);
        return check_content(path, resume);
    }
    TRY(make_parents(path));
    return make_directory(path);
}

enum status run_dir_claim(const char *path, const struct recipe *recipe, bool resume) {
    char file[FILE_PATH_MAX], *text = NULL;
    TRY(check_content(path, resume));
    TRY(path_join(path, "recipe.cfg", file));
    TRY(recipe_text(recipe, &text));
    enum status status = file_write_whole(file, text, strlen(text));
    free(text);
    return status;
}

bool run_dir_is_finished(const char *path) {
    return holds(path, "summary.json");
}

enum status run_dir_reopen(const char *path) {
    static const char *const results[] = {"summary.json", "model.safetensors"};
    char file[FILE_PATH_MAX];
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        TRY(path_join(path, results[i], file));
        if (unlink(file) != 0 && errno != ENOENT)
            FAIL(ST_IO, "cannot remove %s: %s", file, strerror(errno));
    }
    return ST_OK;
}

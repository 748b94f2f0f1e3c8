#include "file.h"
#include <dirent.h>
#include <errno.h>
#include <espalier/run_dir.h>
#include <fcntl.h>
#include <stdbool.h>
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
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
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

/* The name of some entry of a directory, "" when it is empty. */
static enum status first_entry(const char *path, char *name, size_t size) {
    DIR *dir = opendir(path);
    if (dir == NULL)
        FAIL(ST_IO, "cannot read directory %s: %s", path, strerror(errno));
    name[0] = '\0';
    for (struct dirent *entry; name[0] == '\0' && (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            snprintf(name, size, "%s", entry->d_name);
    closedir(dir);
    return ST_OK;
}

/* A run never mixes with what an earlier one left. */
static enum status check_unused(const char *path, bool *exists) {
    struct stat information;
    *exists = stat(path, &information) == 0;
    if (!*exists)
        return ST_OK;
    if (!S_ISDIR(information.st_mode))
        FAIL(ST_USAGE, "run directory %s is not a directory: name one that is new or empty", path);
    char name[256];
    TRY(first_entry(path, name, sizeof name));
    if (name[0] != '\0')
        FAIL(ST_USAGE, "run directory %s is not empty: it holds %s; name one that is new or empty",
             path, name);
    return ST_OK;
}

/* Of two runs that found the directory empty, one creates the file. */
static enum status claim(const char *dir, const char *path) {
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (file < 0 && errno == EEXIST)
        FAIL(ST_USAGE, "run directory %s is not empty: another run has just taken it", dir);
    if (file < 0 || close(file) != 0)
        FAIL(ST_IO, "cannot write %s: %s", path, strerror(errno));
    return ST_OK;
}

static enum status write_recipe(const char *dir, const struct recipe *recipe) {
    char path[FILE_PATH_MAX], *text = NULL;
    TRY(path_join(dir, "recipe.cfg", path));
    TRY(claim(dir, path));
    TRY(recipe_text(recipe, &text));
    enum status status = file_write_whole(path, text, strlen(text));
    free(text);
    return status;
}

enum status run_dir_create(const char *path, const struct recipe *recipe) {
    bool exists = false;
    TRY(check_unused(path, &exists));
    if (!exists) {
        TRY(make_parents(path));
        TRY(make_directory(path));
    }
    return write_recipe(path, recipe);
}

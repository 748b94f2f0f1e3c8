#include <espalier/nearest.h>

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Longer names have nothing near. */
enum { NEAR_MAX = 64 };

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Optimal string alignment, by rows: row[i % 3] is that of the first i characters of `known`. */
static int edits(const char *typed, int typed_size, const char *known, int known_size) {
    int row[3][NEAR_MAX + 1];
    for (int j = 0; j <= typed_size; j++)
        row[0][j] = j;
    for (int i = 1; i <= known_size; i++) {
        int *now = row[i % 3], *before = row[(i + 2) % 3], *before_that = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= typed_size; j++) {
            int replaced = before[j - 1] + (typed[j - 1] != known[i - 1]);
            now[j] = least(replaced, 1 + least(before[j], now[j - 1]));
            if (i > 1 && j > 1 && typed[j - 1] == known[i - 2] && typed[j - 2] == known[i - 1])
                now[j] = least(now[j], before_that[j - 2] + 1);
        }
    }
    return row[known_size % 3][typed_size];
}

/* INT_MAX where the names are too far from each other. */
static int distance(const char *typed, const char *known) {
    int typed_size = (int)strnlen(typed, NEAR_MAX + 1);
    int known_size = (int)strnlen(known, NEAR_MAX + 1);
    int longer = typed_size > known_size ? typed_size : known_size;
    if (longer > NEAR_MAX)
        return INT_MAX;
    int count = edits(typed, typed_size, known, known_size);
    return count <= longer / 3 ? count : INT_MAX;
}

/* Whether `typed` is put together from beginnings of known's words, the first word's among them:
 * "lr" and "lrate" of "learning_rate". Goes on within a word where it can. */
static bool abbreviates(const char *typed, const char *known) {
    if (*typed == '\0' || *typed != *known)
        return false;
    for (; *typed != '\0'; typed++, known++)
        while (*typed != *known) {
            const char *bar = strchr(known, '_');
            if (bar == NULL)
                return false;
            known = bar + 1;
        }
    return true;
}

const char *name_nearest(const char *const *names, int count, const char *name) {
    const char *nearest = NULL, *abbreviated = NULL;
    int nearest_distance = INT_MAX, abbreviated_count = 0;
    for (int i = 0; i < count; i++) {
        int candidate = distance(name, names[i]);
        if (candidate < nearest_distance) {
            nearest_distance = candidate;
            nearest = names[i];
        }
        if (abbreviates(name, names[i])) {
            abbreviated = names[i];
            abbreviated_count++;
        }
    }
    return nearest != NULL || abbreviated_count != 1 ? nearest : abbreviated;
}

void names_join(const char *const *names, int count, const char *last, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                 i == 0           ? ""
                                 : i + 1 == count ? last
                                                  : ", ",
                                 names[i]);
    if (used >= size)
        snprintf(text + size - sizeof "...", sizeof "...", "...");
}

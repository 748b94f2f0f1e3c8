#include "markup.h"
#include "plot.h"
#include "style.h"

#include <espalier/arena.h>
#include <espalier/report.h>
#include <math.h>
#include <string.h>

enum { WIDE = 1120, NARROW = 540, HEIGHT = 380, PANEL_HEIGHT = 300, ID_MAX = 32 };

/* The page under construction: where it goes, and the memory of its curves. */
struct page {
    FILE *file;
    struct arena *arena;
    const struct run_record *runs;
    const char **names; /* [count] of the runs */
    int count;
};

static const struct axis updates_axis = {
    .title = "update", .unit = "", .least = 0, .greatest = NAN, .limit = NAN, .whole = true};
static const struct axis percent_axis = {
    .unit = " %", .least = NAN, .greatest = NAN, .limit = 100, .rounded = true, .decimals = 2};

/* ---- names ---- */

/* The last component of a path; slashes at its end are no part of it. */
static enum status base_name(struct arena *arena, const char *path, const char **name) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    char *copy = NULL;
    TRY(ARENA_ARRAY(arena, end - begin + 1, &copy));
    memcpy(copy, path + begin, end - begin);
    *name = copy;
    return ST_OK;
}

/* A directory's own name where no two are equal, else its whole path. */
static enum status name_runs(struct page *page) {
    bool distinct = true;
    TRY(ARENA_ARRAY(page->arena, (size_t)page->count, &page->names));
    for (int i = 0; i < page->count; i++) {
        TRY(base_name(page->arena, page->runs[i].dir, &page->names[i]));
        distinct = distinct && page->names[i][0] != '\0' && strcmp(page->names[i], ".") != 0 &&
                   strcmp(page->names[i], "..") != 0;
        for (int j = 0; j < i; j++)
            distinct = distinct && strcmp(page->names[i], page->names[j]) != 0;
    }
    for (int i = 0; i < page->count && !distinct; i++)
        page->names[i] = page->runs[i].dir;
    return ST_OK;
}

/* ---- the table of the runs ---- */

/* What a run has come to so far. */
static struct run_result result_of(const struct run_record *run) {
    if (run->finished)
        return run->result;
    struct run_result result = {.test_accuracy = NAN,
                                .train_accuracy = NAN,
                                .test_errors = NAN,
                                .survivors = NAN,
                                .steps = run_record_last_step(run),
                                .images_per_second = NAN};
    for (int i = 0; i < run->epochs_count; i++)
        result.seconds_train += run->epochs[i].seconds_epoch;
    if (run->epochs_count == 0)
        return result;
    const struct run_epoch *last = &run->epochs[run->epochs_count - 1];
    result.test_accuracy = last->test_accuracy;
    result.train_accuracy = last->train_accuracy;
    result.test_errors = last->test_errors;
    result.survivors = last->survivors;
    result.epochs = last->epoch;
    return result;
}

static void put_cell(const struct page *page, double value, int decimals, const char *unit) {
    char text[NUMBER_TEXT_MAX];
    fprintf(page->file, "<td>%s%s</td>", number_text(value, decimals, text),
            isfinite(value) ? unit : "");
}

/* How far, too, where it did not finish. */
static void put_epochs(const struct page *page, const struct run_record *run, double epochs) {
    char done[NUMBER_TEXT_MAX], planned[NUMBER_TEXT_MAX];
    if (run->finished)
        put_cell(page, epochs, 0, "");
    else
        fprintf(page->file, "<td>%s of %s</td>", number_text(epochs, 0, done),
                number_text(run->start.epochs, 0, planned));
}

static void put_run(const struct page *page, int i) {
    const struct run_record *run = &page->runs[i];
    const struct run_result result = result_of(run);
    fputs("<tr><th scope=\"row\" title=\"recipe ", page->file);
    put_escaped(page->file, run->start.recipe);
    fputs(", begun ", page->file);
    put_escaped(page->file, run->start.time);
    fputs("\">", page->file);
    put_escaped(page->file, page->names[i]);
    fputs("</th>", page->file);
    fputs(run->finished ? "<td class=\"text\">finished</td>"
                        : "<td class=\"text unfinished\">unfinished</td>",
          page->file);
    put_cell(page, 100 * result.test_accuracy, 2, " %");
    put_cell(page, result.test_errors, 0, "");
    put_cell(page, 100 * result.train_accuracy, 2, " %");
    put_epochs(page, run, result.epochs);
    put_cell(page, result.steps, 0, "");
    put_cell(page, result.survivors, 0, "");
    put_cell(page, 100 * result.survivors / run->start.connections, 2, " %");
    put_cell(page, result.seconds_train, 1, " s");
    put_cell(page, result.images_per_second, 0, "");
    put_cell(page, run->start.ranks, 0, "");
    put_cell(page, run->start.threads, 0, "");
    fputs("</tr>\n", page->file);
}

static void write_table(const struct page *page) {
    fputs("<h2>Runs</h2>\n<div class=\"wide\"><table id=\"runs\">\n<thead><tr>"
          "<th scope=\"col\">run</th><th scope=\"col\" class=\"text\">state</th>"
          "<th scope=\"col\">test<br>accuracy</th><th scope=\"col\">test<br>errors</th>"
          "<th scope=\"col\">training<br>accuracy</th><th scope=\"col\">epochs</th>"
          "<th scope=\"col\">updates</th><th scope=\"col\">survivors</th>"
          "<th scope=\"col\">of all<br>connections</th><th scope=\"col\">training<br>time</th>"
          "<th scope=\"col\">images/s</th><th scope=\"col\">ranks</th>"
          "<th scope=\"col\">threads</th></tr></thead>\n<tbody>\n",
          page->file);
    for (int i = 0; i < page->count; i++)
        put_run(page, i);
    fputs("</tbody></table></div>\n", page->file);
}

/* ---- accuracy ---- */

/* A run's test or training images over its epochs: right ones, or wrong ones, in per cent. */
static enum status epoch_curve(const struct page *page, int i, bool test, bool errors,
                               struct curve *curve) {
    const struct run_record *run = &page->runs[i];
    double *x = NULL, *y = NULL;
    TRY(ARENA_ARRAY(page->arena, (size_t)run->epochs_count, &x));
    TRY(ARENA_ARRAY(page->arena, (size_t)run->epochs_count, &y));
    for (int e = 0; e < run->epochs_count; e++) {
        const struct run_epoch *epoch = &run->epochs[e];
        double accuracy = 100 * (test ? epoch->test_accuracy : epoch->train_accuracy);
        x[e] = epoch->epoch;
        y[e] = errors ? 100 - accuracy : accuracy;
    }
    *curve = (struct curve){.run = page->names[i],
                            .name = errors ? NULL
                                    : test ? "test"
                                           : "training",
                            .color = i,
                            .dash = test ? 0 : 1,
                            .marker = i,
                            .hollow = !test,
                            .count = run->epochs_count,
                            .x = x,
                            .y = y};
    return ST_OK;
}

static struct plot epochs_plot(const struct curve *curves, int count) {
    struct plot plot = {.width = WIDE,
                        .height = HEIGHT,
                        .x = updates_axis,
                        .y = percent_axis,
                        .curves = curves,
                        .curves_count = count};
    plot.x.title = "epoch";
    plot.x.least = NAN;
    return plot;
}

/* The poster's figure 6. */
static enum status write_accuracy(const struct page *page) {
    struct curve *curves = NULL;
    TRY(ARENA_ARRAY(page->arena, (size_t)page->count * 2, &curves));
    for (int i = 0; i < page->count; i++)
        for (int kind = 0; kind < 2; kind++)
            TRY(epoch_curve(page, i, kind == 0, false, &curves[2 * i + kind]));
    struct plot plot = epochs_plot(curves, 2 * page->count);
    plot.id = "accuracy";
    plot.title = "Accuracy at each epoch";
    plot.description = "Accuracy on the test images and on the training images at each epoch, in "
                       "per cent, two curves a run.";
    plot.y.title = "accuracy (%)";
    fputs("<h2>Accuracy</h2>\n<p>Training accuracy is the running mean over the epoch, while the "
          "network learns; test accuracy is measured at the epoch's end.</p>\n",
          page->file);
    plot_write(page->file, &plot);
    return ST_OK;
}

/* Late epochs differ by hundredths of a per cent, which the accuracies' axis does not show. */
static enum status write_errors(const struct page *page) {
    struct curve *curves = NULL;
    TRY(ARENA_ARRAY(page->arena, (size_t)page->count, &curves));
    for (int i = 0; i < page->count; i++)
        TRY(epoch_curve(page, i, true, true, &curves[i]));
    struct plot plot = epochs_plot(curves, page->count);
    plot.id = "test-error";
    plot.title = "Test error at each epoch";
    plot.description = "Test images that are classified wrongly at each epoch, in per cent, on a "
                       "logarithmic axis, one curve a run.";
    plot.y.title = "test error (%)";
    plot.y.logarithmic = true;
    plot_write(page->file, &plot);
    return ST_OK;
}

/* ---- survivors ---- */

/* All connections at first, then what each event left, until the run's last update. */
static enum status layer_curve(const struct page *page, const struct run_record *run, int layer,
                               struct curve *curve) {
    double *x = NULL, *y = NULL, all = run->layers[layer].connections;
    int count = run->prunes_count + 2;
    TRY(ARENA_ARRAY(page->arena, (size_t)count, &x));
    TRY(ARENA_ARRAY(page->arena, (size_t)count, &y));
    y[0] = 100;
    for (int e = 0; e < run->prunes_count; e++) {
        x[e + 1] = run->prunes[e].step;
        y[e + 1] = 100 * run->prunes[e].survivors[layer] / all;
    }
    x[count - 1] = run_record_last_step(run);
    y[count - 1] = y[count - 2];
    *curve = (struct curve){.run = run->layers[layer].name,
                            .color = layer,
                            .dash = layer,
                            .marker = -1,
                            .steps = true,
                            .count = count,
                            .x = x,
                            .y = y};
    return ST_OK;
}

/* Below a tenth the differences that matter are ratios. */
static bool wants_logarithm(const struct curve *curves, int count) {
    double least = 100;
    for (int c = 0; c < count; c++)
        for (int i = 0; i < curves[c].count; i++)
            if (curves[c].y[i] > 0)
                least = fmin(least, curves[c].y[i]);
    return least < 10;
}

static enum status write_layers(const struct page *page, int i, bool wide) {
    const struct run_record *run = &page->runs[i];
    struct curve *curves = NULL;
    char id[ID_MAX];
    TRY(ARENA_ARRAY(page->arena, (size_t)run->layers_count, &curves));
    for (int layer = 0; layer < run->layers_count; layer++)
        TRY(layer_curve(page, run, layer, &curves[layer]));
    snprintf(id, sizeof id, "survivors-%d", i + 1);
    struct plot plot = {.id = id,
                        .title = page->names[i],
                        .description = "Connections left in each layer, in per cent of those that "
                                       "it began with, after each update.",
                        .width = wide ? WIDE : NARROW,
                        .height = PANEL_HEIGHT,
                        .x = updates_axis,
                        .y = percent_axis,
                        .curves = curves,
                        .curves_count = run->layers_count};
    plot.y.title = "connections left (%)";
    plot.y.logarithmic = wants_logarithm(curves, run->layers_count);
    plot.y.least = plot.y.logarithmic ? NAN : 0;
    plot.y.greatest = 100;
    plot_write(page->file, &plot);
    return ST_OK;
}

/* A panel for each run that has pruned, and the names of those that have not. */
static enum status write_survivors(const struct page *page) {
    int pruned = 0;
    for (int i = 0; i < page->count; i++)
        pruned += page->runs[i].prunes_count > 0;
    fputs("<h2>Survivors</h2>\n<p>Connections left in each layer, in per cent of those that it "
          "began with.",
          page->file);
    const char *before = " Nothing was pruned in ";
    for (int i = 0; i < page->count; i++)
        if (page->runs[i].prunes_count == 0) {
            fputs(before, page->file);
            put_escaped(page->file, page->names[i]);
            before = ", ";
        }
    fprintf(page->file, "%s</p>\n<div class=\"panels\">\n", pruned < page->count ? "." : "");
    for (int i = 0; i < page->count; i++)
        if (page->runs[i].prunes_count > 0)
            TRY(write_layers(page, i, pruned == 1));
    fputs("</div>\n", page->file);
    return ST_OK;
}

/* ---- step time ---- */

/* Seconds that one whole batch takes. */
static enum status step_curve(const struct page *page, int i, struct curve *curve) {
    const struct run_record *run = &page->runs[i];
    double *x = NULL, *y = NULL;
    TRY(ARENA_ARRAY(page->arena, (size_t)run->steps_count, &x));
    TRY(ARENA_ARRAY(page->arena, (size_t)run->steps_count, &y));
    for (int s = 0; s < run->steps_count; s++) {
        x[s] = run->steps[s].step;
        y[s] = 1e3 * run->start.batch / run->steps[s].images_per_second;
    }
    *curve = (struct curve){.run = page->names[i],
                            .color = i,
                            .dash = i,
                            .marker = -1,
                            .count = run->steps_count,
                            .x = x,
                            .y = y};
    return ST_OK;
}

static enum status write_step_time(const struct page *page) {
    struct curve *curves = NULL;
    TRY(ARENA_ARRAY(page->arena, (size_t)page->count, &curves));
    for (int i = 0; i < page->count; i++)
        TRY(step_curve(page, i, &curves[i]));
    const struct plot plot = {.id = "step-time",
                              .title = "Time of one update",
                              .description = "Milliseconds that an update of one whole batch took, "
                                             "over the updates, one curve a run.",
                              .width = WIDE,
                              .height = HEIGHT,
                              .x = updates_axis,
                              .y = {.title = "time of one update (ms)",
                                    .unit = " ms",
                                    .least = 0,
                                    .greatest = NAN,
                                    .limit = NAN,
                                    .rounded = true,
                                    .decimals = 2},
                              .curves = curves,
                              .curves_count = page->count};
    fputs("<h2>Step time</h2>\n<p>Of one whole batch, with pruning, averaged over the updates of "
          "each <code>step</code> event.</p>\n",
          page->file);
    plot_write(page->file, &plot);
    return ST_OK;
}

/* ---- the page ---- */

static void write_head(const struct page *page) {
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
          "'unsafe-inline'\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<title>espalier: ",
          page->file);
    for (int i = 0; i < page->count; i++) {
        fputs(i == 0 ? "" : ", ", page->file);
        put_escaped(page->file, page->names[i]);
    }
    fputs("</title>\n<style>\n", page->file);
    for (int i = 0; report_style[i] != NULL; i++)
        fputs(report_style[i], page->file);
    fprintf(
        page->file,
        "</style>\n</head>\n<body>\n<h1>Report of %d run%s</h1>\n<p>Written by espalier %s.</p>\n",
        page->count, page->count == 1 ? "" : "s", ESPALIER_VERSION);
}

static enum status write_page(struct page *page) {
    TRY(name_runs(page));
    write_head(page);
    write_table(page);
    TRY(write_accuracy(page));
    TRY(write_errors(page));
    TRY(write_survivors(page));
    TRY(write_step_time(page));
    fputs("</body>\n</html>\n", page->file);
    return ST_OK;
}

enum status report_write(FILE *file, const struct run_record *runs, int count) {
    struct page page = {.file = file, .runs = runs, .count = count};
    TRY(arena_create(&page.arena));
    enum status status = write_page(&page);
    arena_destroy(page.arena);
    return status;
}

/* The progress line, on a pseudo-terminal and on a file. */
#define _XOPEN_SOURCE 700
#include "check.h"
#include <espalier/progress.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const char *duration(double seconds) {
    static char text[32];
    return format_duration(seconds, text, sizeof text);
}

static void durations(void **state) {
    (void)state;
    assert_string_equal(duration(0), "0:00");
    assert_string_equal(duration(59.4), "0:59");
    assert_string_equal(duration(59.6), "1:00");
    assert_string_equal(duration(245), "4:05");
    assert_string_equal(duration(3599.4), "59:59");
    assert_string_equal(duration(3599.6), "1:00:00");
    assert_string_equal(duration(3723), "1:02:03");
    assert_string_equal(duration(360000), "100:00:00");
}

static void unknown_durations(void **state) {
    (void)state;
    assert_string_equal(duration(NAN), "-:--");
    assert_string_equal(duration(INFINITY), "-:--");
    assert_string_equal(duration(-1), "-:--");
    assert_string_equal(duration(1e300), "-:--");
}

static void clock_goes_forward_in_seconds(void **state) {
    (void)state;
    double before = monotonic_seconds();
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    double passed = monotonic_seconds() - before;
    assert_true(passed >= 0.02 && passed < 20);
}

static const char *contents(FILE *file) {
    static char text[256];
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    return text;
}

static void file_gets_plain_lines_alone(void **state) {
    (void)state;
    struct progress progress;
    FILE *file = tmpfile();
    progress_begin(&progress, file, false);
    assert_false(progress_due(&progress)); /* nothing yet: a log wants few lines */
    progress_draw(&progress, 0.5, "loss %.1f", 0.5);
    progress_line(&progress, "epoch %d of %d", 1, 12);
    progress_draw(&progress, 0.6, "loss %.1f", 0.5);
    progress_line(&progress, "epoch 2 of 12");
    progress_end(&progress);
    assert_string_equal(contents(file),
                        " 50 %  loss 0.5\nepoch 1 of 12\n 60 %  loss 0.5\nepoch 2 of 12\n");
    fclose(file);
}

static void quiet_is_silent(void **state) {
    (void)state;
    struct progress progress;
    FILE *file = tmpfile();
    progress_begin(&progress, file, true);
    progress_draw(&progress, 0.5, "loss");
    progress_line(&progress, "epoch");
    progress_end(&progress);
    assert_false(progress_due(&progress));
    assert_string_equal(contents(file), "");
    fclose(file);
}

/* A pseudo-terminal: what is drawn on `stream` can be read from `master`. */
struct terminal {
    int master;
    FILE *stream;
    char seen[4096];
};

static int open_terminal(void **state) {
    static struct terminal terminal;
    setenv("TERM", "xterm", 1);
    terminal.master = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal.master < 0 || grantpt(terminal.master) != 0 || unlockpt(terminal.master) != 0)
        return -1;
    int slave = open(ptsname(terminal.master), O_RDWR | O_NOCTTY);
    struct winsize window = {.ws_row = 24, .ws_col = 40};
    ioctl(slave, TIOCSWINSZ, &window);
    terminal.stream = fdopen(slave, "w");
    *state = &terminal;
    return terminal.stream == NULL ? -1 : 0;
}

static int close_terminal(void **state) {
    struct terminal *terminal = *state;
    fclose(terminal->stream);
    return close(terminal->master);
}

/* What was written since the last time; a mark is sent along to know the end. */
static const char *seen(struct terminal *terminal) {
    size_t count = 0;
    fputc('\x04', terminal->stream);
    fflush(terminal->stream);
    while (count == 0 || terminal->seen[count - 1] != '\x04')
        count += (size_t)read(terminal->master, terminal->seen + count, 1);
    terminal->seen[count - 1] = '\0';
    return terminal->seen;
}

static void terminal_gets_bar_and_text(void **state) {
    struct terminal *terminal = *state;
    struct progress progress;
    progress_begin(&progress, terminal->stream, false);
    progress_draw(&progress, 0.505, "loss %d", 3);
    assert_string_equal(seen(terminal), "\r\x1b[K[##########..........]  50 %  loss 3");
    progress_draw(&progress, -1, "a");
    assert_string_equal(seen(terminal), "\r\x1b[K[....................]   0 %  a");
    progress_draw(&progress, 2, "a");
    assert_string_equal(seen(terminal), "\r\x1b[K[####################] 100 %  a");
    progress_draw(&progress, NAN, "a");
    assert_string_equal(seen(terminal), "\r\x1b[K[....................]   0 %  a");
}

/* 40 columns: 30 before the text, 9 of text, one free; a two-byte character takes one column. A
 * field that does not fit goes as a whole. */
static void line_is_cut_to_the_width(void **state) {
    struct terminal *terminal = *state;
    struct progress progress;
    progress_begin(&progress, terminal->stream, false);
    progress_draw(&progress, 0, "012345678");
    assert_string_equal(seen(terminal), "\r\x1b[K[....................]   0 %  012345678");
    progress_draw(&progress, 0, "0123  5678 9");
    assert_string_equal(seen(terminal), "\r\x1b[K[....................]   0 %  0123");
    progress_draw(&progress, 0, "0123456789");
    assert_string_equal(seen(terminal), "\r\x1b[K[....................]   0 %");
    progress_draw(&progress, 0, "01234567\xc3\xa4  b");
    assert_string_equal(seen(terminal), "\r\x1b[K[....................]   0 %  01234567\xc3\xa4");
}

static void line_stays_above_the_bar(void **state) {
    struct terminal *terminal = *state;
    struct progress progress;
    progress_begin(&progress, terminal->stream, false);
    progress_line(&progress, "before");
    assert_string_equal(seen(terminal), "before\r\n");
    progress_draw(&progress, 0, "a");
    seen(terminal);
    progress_line(&progress, "epoch %d", 1);
    assert_string_equal(seen(terminal), "\r\x1b[Kepoch 1\r\n");
    assert_true(progress_due(&progress));
}

static void end_clears_the_bar_once(void **state) {
    struct terminal *terminal = *state;
    struct progress progress;
    progress_begin(&progress, terminal->stream, false);
    progress_draw(&progress, 0, "a");
    seen(terminal);
    progress_end(&progress);
    assert_string_equal(seen(terminal), "\r\x1b[K");
    progress_end(&progress);
    assert_string_equal(seen(terminal), "");
}

static void redraws_five_times_a_second_at_most(void **state) {
    struct terminal *terminal = *state;
    struct progress progress;
    progress_begin(&progress, terminal->stream, false);
    assert_true(progress_due(&progress));
    int draws = 0;
    for (double begin = monotonic_seconds(); monotonic_seconds() - begin < 0.5;)
        if (progress_due(&progress)) {
            progress_draw(&progress, 0, "a");
            draws++;
        }
    assert_in_range(draws, 1, 3);
}

static void dumb_terminal_gets_plain_lines_alone(void **state) {
    struct terminal *terminal = *state;
    struct progress progress;
    setenv("TERM", "dumb", 1);
    progress_begin(&progress, terminal->stream, false);
    progress_draw(&progress, 0, "a");
    progress_line(&progress, "epoch");
    assert_string_equal(seen(terminal), "  0 %  a\r\nepoch\r\n");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations),
        cmocka_unit_test(unknown_durations),
        cmocka_unit_test(clock_goes_forward_in_seconds),
        cmocka_unit_test(file_gets_plain_lines_alone),
        cmocka_unit_test(quiet_is_silent),
        cmocka_unit_test_setup_teardown(terminal_gets_bar_and_text, open_terminal, close_terminal),
        cmocka_unit_test_setup_teardown(line_is_cut_to_the_width, open_terminal, close_terminal),
        cmocka_unit_test_setup_teardown(line_stays_above_the_bar, open_terminal, close_terminal),
        cmocka_unit_test_setup_teardown(end_clears_the_bar_once, open_terminal, close_terminal),
        cmocka_unit_test_setup_teardown(redraws_five_times_a_second_at_most, open_terminal,
                                        close_terminal),
        cmocka_unit_test_setup_teardown(dumb_terminal_gets_plain_lines_alone, open_terminal,
                                        close_terminal),
    };
    return RUN_TESTS(tests, argc, argv);
}

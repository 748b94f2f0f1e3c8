/* Errors that a device may hide end the program; libraries fail when they are told to. */
#include "emulated_check.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what must end the program ---- */

static void host_touches(void) {
    int *memory = device_memory(sizeof *memory);
    *(volatile int *)memory = 1;
}

static void diverging_barrier(void) {
    sample_diverge(NULL);
    cudaDeviceSynchronize();
}

static void two_barriers(void) {
    sample_two_barriers(NULL);
    cudaDeviceSynchronize();
}

static void overrun(void) {
    int *memory = device_memory(100 * sizeof *memory);
    sample_overrun(memory, 100, NULL);
    cudaFree(memory);
}

static void far_overrun(void) {
    int *memory = device_memory(100 * sizeof *memory);
    sample_overrun(memory, 130, NULL);
    cudaDeviceSynchronize();
}

static void shared_overrun(void) {
    sample_shared_overrun(NULL);
    cudaDeviceSynchronize();
}

static void wrong_mask(void) {
    sample_wrong_mask(NULL);
    cudaDeviceSynchronize();
}

static void kernel_with_host_memory(void) {
    int x[COUNT];
    sample_step(x, COUNT, 1, NULL);
}

static void freed_memory(void) {
    int *memory = device_memory(COUNT * sizeof *memory);
    cudaFree(memory);
    sample_step(memory, COUNT, 1, NULL);
}

/* What a child process that does this writes before it is ended by a signal or a sanitizer. */
static void assert_ends(void (*action)(void), const char *text) {
    int pipe_ends[2], status;
    char said[4096] = "";
    assert_int_equal(pipe(pipe_ends), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(pipe_ends[1], STDERR_FILENO);
        action();
        _exit(0);
    }
    close(pipe_ends[1]);
    size_t length = 0;
    for (ssize_t got = 1; got > 0 && length + 1 < sizeof said; length += (size_t)got)
        if ((got = read(pipe_ends[0], said + length, sizeof said - 1 - length)) < 0)
            got = 0;
    close(pipe_ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (strstr(said, text) == NULL && strstr(said, "AddressSanitizer") == NULL)
        fail_msg("'%s' lacks '%s'", said, text);
}

static void errors_of_kernels_end_the_program(void **state) {
    (void)state;
    for (int reverse = 0; reverse <= 1; reverse++) {
        emulation_set_order(reverse == 1);
        assert_ends(diverging_barrier, "have ended without this barrier");
        assert_ends(two_barriers, "different barriers");
        assert_ends(overrun, "past the end of an allocation of 400 bytes");
        assert_ends(far_overrun, "work on the device touched");
        assert_ends(shared_overrun, "past the end of 16 bytes of shared memory");
        assert_ends(wrong_mask, "which the mask 0000ffff leaves out");
    }
}

static void wrong_memory_ends_the_program(void **state) {
    (void)state;
    assert_ends(host_touches, "the host touched");
    assert_ends(kernel_with_host_memory, "which is no device memory");
    assert_ends(freed_memory, "which is no device memory");
}

/* ---- failures on request ---- */

static void failures_come_when_asked_for(void **state) {
    (void)state;
    void *memory;
    emulation_fail("cudaMalloc", 2, 0);
    assert_cuda(cudaMalloc(&memory, 8));
    assert_int_equal(cudaMalloc(&memory, 8), cudaErrorMemoryAllocation);
    emulation_reset_failures();
    emulation_fail("launch", 1, cudaErrorLaunchFailure);
    assert_int_equal(sample_launch(1, 1, 0, NULL), cudaErrorLaunchFailure);
    assert_int_equal(emulation_calls("launch"), 1);
    emulation_reset_failures();
    emulation_fail("*", 2, 0);
    assert_cuda(sample_launch(1, 1, 0, NULL));
    assert_int_equal(emulation_pending(), 1);
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
    assert_int_equal(emulation_pending(), 0);
    emulation_reset_failures();
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_of_kernels_end_the_program),
        cmocka_unit_test(wrong_memory_ends_the_program),
        cmocka_unit_test(failures_come_when_asked_for),
    };
    return RUN_TESTS(tests, argc, argv);
}

/* The emulated device does what the sources of CUDA say, and shows what a device may hide. */
#include "emulated_check.h"

#include <math.h>

/* ---- kernels ---- */

IN_EACH_ORDER(shared_memory_sums) {
    int x[COUNT], sums[11];
    fill(x);
    cudaStream_t stream = new_stream();
    int *device = device_copy(x, sizeof x), *out = device_memory(sizeof sums);
    assert_cuda(sample_block_sums(device, COUNT, out, stream));
    download(sums, out, sizeof sums, stream);
    for (int b = 0; b < 11; b++) {
        int want = 0;
        for (int i = b * SAMPLE_BLOCK; i < COUNT && i < (b + 1) * SAMPLE_BLOCK; i++)
            want += x[i];
        assert_int_equal(sums[b], want);
    }
    assert_cuda(cudaFree(device));
    assert_cuda(cudaFree(out));
    assert_cuda(cudaStreamDestroy(stream));
}

IN_EACH_ORDER(shuffles_scan) {
    int x[COUNT], sums[COUNT];
    fill(x);
    int *device = device_copy(x, sizeof x), *out = device_memory(sizeof sums);
    assert_cuda(sample_scan(device, COUNT, out, NULL));
    download(sums, out, sizeof sums, NULL);
    for (int i = 0, want = 0; i < COUNT; i++) {
        want = i % SAMPLE_BLOCK == 0 ? x[i] : want + x[i];
        assert_int_equal(sums[i], want);
    }
    assert_cuda(cudaFree(device));
    assert_cuda(cudaFree(out));
}

IN_EACH_ORDER(tiles_of_templates_transpose) {
    enum { ROWS = 19, COLUMNS = 21 };
    float x[ROWS * COLUMNS], y[ROWS * COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i] = (float)i;
    float *device = device_copy(x, sizeof x), *out = device_memory(sizeof y);
    assert_cuda(sample_transpose(device, ROWS, COLUMNS, out, NULL));
    download(y, out, sizeof y, NULL);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++)
            assert_true(y[c * ROWS + r] == x[r * COLUMNS + c]);
    assert_cuda(cudaFree(device));
    assert_cuda(cudaFree(out));
}

IN_EACH_ORDER(dynamic_shared_memory_counts) {
    int x[COUNT], counts[101], want[101] = {0};
    fill(x);
    for (int i = 0; i < COUNT; i++)
        want[x[i]]++;
    int *device = device_copy(x, sizeof x), *out = device_memory(sizeof counts);
    assert_cuda(sample_histogram(device, COUNT, out, 101, NULL));
    download(counts, out, sizeof counts, NULL);
    assert_memory_equal(counts, want, sizeof counts);
    assert_cuda(cudaFree(device));
    assert_cuda(cudaFree(out));
}

IN_EACH_ORDER(ballots_compact) {
    int x[COUNT], y[COUNT], kept, want = 0;
    fill(x);
    int *device = device_copy(x, sizeof x), *out = device_memory(sizeof y);
    int *count = device_memory(sizeof kept);
    assert_cuda(sample_keep_odd(device, COUNT, out, count, NULL));
    download(&kept, count, sizeof kept, NULL);
    download(y, out, (size_t)kept * sizeof *y, NULL);
    for (int i = 0; i < COUNT; i++)
        if (x[i] % 2 != 0)
            assert_int_equal(y[want++], x[i]);
    assert_int_equal(kept, want);
    assert_cuda(cudaFree(device));
    assert_cuda(cudaFree(out));
    assert_cuda(cudaFree(count));
}

static void launches_are_checked(void **state) {
    (void)state;
    assert_int_equal(sample_launch(0, 32, 0, NULL), cudaErrorInvalidConfiguration);
    assert_int_equal(sample_launch(1, 1025, 0, NULL), cudaErrorInvalidConfiguration);
    assert_int_equal(sample_launch(1, 32, 49 << 10, NULL), cudaErrorInvalidValue);
    assert_cuda(sample_launch(1, 1024, 48 << 10, NULL));
    assert_cuda(cudaDeviceSynchronize());
}

/* ---- memory ---- */

static void memory_is_poisoned(void **state) {
    (void)state;
    float values[100];
    void *memory = device_memory(sizeof values);
    download(values, memory, sizeof values, NULL);
    for (int i = 0; i < 100; i++)
        assert_true(isnan(values[i]));
    assert_cuda(cudaFree(memory));
}

static void too_much_memory_is_refused(void **state) {
    (void)state;
    void *memory;
    assert_int_equal(cudaMalloc(&memory, SIZE_MAX / 2), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_cuda(cudaGetLastError());
}

static void copies_are_checked(void **state) {
    (void)state;
    char host[100] = {0}, *device = device_memory(sizeof host);
    assert_int_equal(cudaMemcpy(device, host, 101, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(host, device, 100, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(host, device + 1, 100, cudaMemcpyDefault), cudaErrorInvalidValue);
    assert_int_equal(cudaMemsetAsync(host, 0, 1, NULL), cudaErrorInvalidValue);
    assert_cuda(cudaMemcpy(host, device, 100, cudaMemcpyDefault));
    assert_cuda(cudaFree(device));
    assert_int_equal(cudaFree(host), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
}

/* Pageable memory is read at the call, pinned memory when the copy comes. */
static void pinned_memory_is_read_late(void **state) {
    (void)state;
    cudaStream_t stream = new_stream();
    int pageable = 1, *pinned, *device = device_memory(2 * sizeof *device), got[2];
    assert_cuda(cudaMallocHost((void **)&pinned, sizeof *pinned));
    *pinned = 1;
    assert_cuda(cudaMemcpyAsync(device, &pageable, sizeof *device, cudaMemcpyDefault, stream));
    assert_cuda(cudaMemcpyAsync(device + 1, pinned, sizeof *device, cudaMemcpyDefault, stream));
    pageable = *pinned = 2;
    download(got, device, sizeof got, stream);
    assert_int_equal(got[0], 1);
    assert_int_equal(got[1], 2);
    assert_cuda(cudaFreeHost(pinned));
    assert_cuda(cudaFree(device));
    assert_cuda(cudaStreamDestroy(stream));
}

static void downloads_poison_until_they_are_done(void **state) {
    (void)state;
    cudaStream_t stream = new_stream();
    int *device = device_memory(sizeof *device), got = 5;
    assert_cuda(cudaMemsetAsync(device, 0, sizeof *device, stream));
    assert_cuda(cudaMemcpyAsync(&got, device, sizeof got, cudaMemcpyDeviceToHost, stream));
    assert_int_equal(got, -1);
    assert_int_equal(emulation_pending(), 2);
    assert_cuda(cudaStreamSynchronize(stream));
    assert_int_equal(got, 0);
    assert_cuda(cudaFree(device));
    assert_cuda(cudaStreamDestroy(stream));
}

/* ---- streams ---- */

/* x goes through `first` and `second` by turns; events alone keep the order. */
IN_EACH_ORDER(events_order_streams) {
    cudaStream_t first = new_stream(), second = new_stream();
    cudaEvent_t there = new_event(), back = new_event();
    int x[COUNT], got[COUNT];
    fill(x);
    int *device = device_copy(x, sizeof x);
    for (int i = 0; i < 3; i++) {
        assert_cuda(sample_step(device, COUNT, 2, first));
        assert_cuda(cudaEventRecord(there, first));
        assert_cuda(cudaStreamWaitEvent(second, there, 0));
        assert_cuda(sample_step(device, COUNT, 3, second));
        assert_cuda(cudaEventRecord(back, second));
        assert_cuda(cudaStreamWaitEvent(first, back, 0));
    }
    download(got, device, sizeof got, first);
    for (int i = 0; i < COUNT; i++) {
        int want = x[i];
        for (int j = 0; j < 3; j++)
            want = 3 * (2 * want + 1) + 1;
        assert_int_equal(got[i], want);
    }
    assert_cuda(cudaFree(device));
    assert_cuda(cudaEventDestroy(there));
    assert_cuda(cudaEventDestroy(back));
    assert_cuda(cudaStreamDestroy(first));
    assert_cuda(cudaStreamDestroy(second));
}

/* Stream 0 waits for streams that block, and only for those. */
static void stream_0_orders_blocking_streams(void **state) {
    (void)state;
    for (unsigned flags = cudaStreamDefault; flags <= cudaStreamNonBlocking; flags++) {
        cudaStream_t stream;
        assert_cuda(cudaStreamCreateWithFlags(&stream, flags));
        int x[COUNT] = {0}, *device = device_copy(x, sizeof x);
        assert_cuda(sample_step(device, COUNT, 1, stream));
        assert_cuda(cudaMemcpy(x, device, sizeof x, cudaMemcpyDeviceToHost));
        assert_int_equal(x[COUNT - 1], flags == cudaStreamDefault ? 1 : 0);
        assert_cuda(cudaFree(device));
        assert_cuda(cudaStreamDestroy(stream));
    }
}

static void queries_let_work_go_on(void **state) {
    (void)state;
    cudaStream_t stream = new_stream();
    cudaEvent_t event = new_event();
    assert_cuda(sample_launch(1, 1, 0, stream));
    assert_cuda(cudaEventRecord(event, stream));
    assert_int_equal(emulation_pending(), 2);
    assert_cuda(cudaEventQuery(event));
    assert_int_equal(emulation_pending(), 0);
    assert_cuda(cudaStreamQuery(stream));
    assert_cuda(cudaEventDestroy(event));
    assert_cuda(cudaStreamDestroy(stream));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memory_sums),
        cmocka_unit_test(shuffles_scan),
        cmocka_unit_test(tiles_of_templates_transpose),
        cmocka_unit_test(dynamic_shared_memory_counts),
        cmocka_unit_test(ballots_compact),
        cmocka_unit_test(launches_are_checked),
        cmocka_unit_test(memory_is_poisoned),
        cmocka_unit_test(too_much_memory_is_refused),
        cmocka_unit_test(copies_are_checked),
        cmocka_unit_test(pinned_memory_is_read_late),
        cmocka_unit_test(downloads_poison_until_they_are_done),
        cmocka_unit_test(events_order_streams),
        cmocka_unit_test(stream_0_orders_blocking_streams),
        cmocka_unit_test(queries_let_work_go_on),
    };
    return RUN_TESTS(tests, argc, argv);
}

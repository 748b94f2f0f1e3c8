/* Which of the devices that there are the backend takes: those that the build has code for. */
#include "check.h"
#include "emulation.h"

#include <espalier/backend.h>
#include <stdio.h>
#include <string.h>

#define CODE "this program has code for 7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 12.0 and newer"

/* Devices of these capabilities, and which of them code runs on: machine code on the same major
 * number's same and later minor ones, intermediate code, of 12.0, on all later ones. */
static const struct {
    int capability;
    bool usable;
} devices[] = {{35, false}, {70, false},  {72, false}, {75, true},  {80, true},
               {86, true},  {87, true},   {89, true},  {90, true},  {100, true},
               {103, true}, {110, false}, {120, true}, {121, true}, {130, true}};

enum { DEVICES = sizeof devices / sizeof devices[0] };

static void assert_device(int device, int capability, int index) {
    struct backend *backend;
    assert_ok(
        backend_cuda_create(&(struct backend_options){.threads = 1, .device = device}, &backend));
    assert_int_equal(backend->gpu->major * 10 + backend->gpu->minor, capability);
    assert_int_equal(backend->gpu->index, index);
    backend->destroy(backend);
}

static void those_are_taken_that_there_is_code_for(void **state) {
    (void)state;
    char capabilities[DEVICES * 4 + 1] = "";
    struct devices_found found;
    int usable = 0;
    for (int i = 0; i < DEVICES; i++)
        snprintf(capabilities + strlen(capabilities), 5, "%s%d", i > 0 ? "," : "",
                 devices[i].capability);
    emulation_set_capabilities(capabilities);
    for (int i = 0; i < DEVICES; i++)
        if (devices[i].usable)
            assert_device(usable++, devices[i].capability, i);
    assert_ok(backend_cuda_devices(&found));
    assert_int_equal(found.usable, usable);
    assert_string_equal(found.refused, "Emulated GPU has compute capability 3.5; " CODE);
    struct backend *backend;
    assert_fails(backend_cuda_create(&(struct backend_options){.device = usable}, &backend),
                 ST_USAGE, "device 11, but there are 11");
}

static void the_first_is_explained_where_none_can_be_taken(void **state) {
    (void)state;
    struct devices_found found;
    struct backend *backend;
    const char *why = "backend cuda: Emulated GPU has compute capability 11.0; " CODE;
    emulation_set_capabilities("110,70");
    assert_fails(backend_cuda_devices(&found), ST_UNAVAILABLE, why);
    assert_int_equal(found.usable, 0);
    assert_string_equal(found.refused, why + strlen("backend cuda: "));
    assert_fails(backend_cuda_create(&(struct backend_options){.threads = 1}, &backend),
                 ST_UNAVAILABLE, why);
    assert_int_equal(emulation_live_objects(), 0);
}

/* The build's list may promise too much: machine code of 8.0 is not for each device of 8.7. */
static void the_runtime_has_the_last_word(void **state) {
    (void)state;
    struct backend *backend;
    emulation_set_capabilities("87");
    const int missing[] = {98, 209}; /* cudaErrorInvalidDeviceFunction, …NoKernelImageForDevice */
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        emulation_fail("cudaFuncGetAttributes", 1, missing[i]);
        assert_fails(backend_cuda_create(&(struct backend_options){.threads = 1}, &backend),
                     ST_UNAVAILABLE, "Emulated GPU has compute capability 8.7; " CODE);
    }
    emulation_fail("cudaFuncGetAttributes", 1, 222); /* cudaErrorUnsupportedPtxVersion */
    assert_fails(backend_cuda_create(&(struct backend_options){.threads = 1}, &backend),
                 ST_UNAVAILABLE, "cudaFuncGetAttributes");
    assert_device(0, 87, 0);
    assert_int_equal(emulation_live_objects(), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_are_taken_that_there_is_code_for),
        cmocka_unit_test(the_first_is_explained_where_none_can_be_taken),
        cmocka_unit_test(the_runtime_has_the_last_word),
    };
    return RUN_TESTS(tests, argc, argv);
}

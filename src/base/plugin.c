/* A program that computes on the CPU does not load CUDA's libraries, 160 MB in a fifth of a second,
 * nor need them to be installed. */
#include <dlfcn.h>
#include <espalier/plugin.h>

static void *plugin; /* stays open, and the driver's library with it */

static enum status open_plugin(void) {
    if (plugin != NULL)
        return ST_OK;
    if (dlopen("libcuda.so.1", RTLD_NOW) == NULL)
        FAIL(ST_UNAVAILABLE, "backend cuda: no NVIDIA driver is installed: %s", dlerror());
    plugin = dlopen("espalier_cuda.so", RTLD_NOW);
    if (plugin == NULL)
        FAIL(ST_UNAVAILABLE, "backend cuda: %s", dlerror());
    return ST_OK;
}

enum status plugin_find(const char *name, void *function) {
    TRY(open_plugin());
    *(void **)function = dlsym(plugin, name);
    if (*(void **)function == NULL)
        FAIL(ST_UNAVAILABLE, "backend cuda: %s", dlerror());
    return ST_OK;
}

/* The CUDA backend, as far as the registry knows it: functions of the plugin, by the same names. */
#include <espalier/backend.h>
#include <espalier/plugin.h>

enum status backend_cuda_create(const struct backend_options *options, struct backend **backend) {
    enum status (*create)(const struct backend_options *, struct backend **);
    TRY(plugin_find("backend_cuda_create", &create));
    return create(options, backend);
}

enum status backend_cuda_devices(struct devices_found *found) {
    enum status (*devices)(struct devices_found *);
    TRY(plugin_find("backend_cuda_devices", &devices));
    return devices(found);
}

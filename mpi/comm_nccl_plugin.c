/* NCCL, as far as the registry knows it: a function of the plugin, by the same name. */
#include "comm_nccl.h"

#include <espalier/plugin.h>

enum status comm_nccl_join(struct communicator *c, const struct gpu *gpu) {
    enum status (*join)(struct communicator *, const struct gpu *);
    TRY(plugin_find("comm_nccl_join", &join));
    return join(c, gpu);
}

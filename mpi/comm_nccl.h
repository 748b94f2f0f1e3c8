/* comm_nccl.h - how the registry joins and leaves NCCL; the interface is communicator_join_gpu.
 */
#ifndef ESPALIER_COMM_NCCL_H
#define ESPALIER_COMM_NCCL_H

#include <espalier/communicator.h>

/** Put NCCL over a communicator of the host: sums and large broadcasts go by way of the device, the
 *  rest as before. Every rank has a device of its own. On failure nothing has changed. Collective.
 */
enum status comm_nccl_join(struct communicator *c, const struct gpu *gpu);

#endif

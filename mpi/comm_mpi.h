/* comm_mpi.h - how the registry brings up MPI; the communicator itself is communicator_mpi. */
#ifndef ESPALIER_COMM_MPI_H
#define ESPALIER_COMM_MPI_H

#include <espalier/communicator.h>

/** Initialise MPI (MPI_THREAD_FUNNELED), then communicator_mpi; its `destroy` finalises MPI.
 *  Collective. */
enum status comm_mpi_start(int *argc, char ***argv, struct communicator *c);

#endif

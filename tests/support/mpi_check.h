/* mpi_check.h - assertions for programs that run under mpirun: a failure on one rank names rank,
 * file and line, and ends all ranks at once. */
#ifndef ESPALIER_TESTS_MPI_CHECK_H
#define ESPALIER_TESTS_MPI_CHECK_H

#include <espalier/communicator.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct communicator mpi_check_ranks; /* what the program runs on */

static inline void mpi_check_fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: rank %d of %d: %s (last message: '%s')\n", file, line,
            mpi_check_ranks.rank, mpi_check_ranks.size, what, status_message());
    fflush(stderr);
    if (mpi_check_ranks.abort != NULL)
        mpi_check_ranks.abort(&mpi_check_ranks, 1);
    exit(1);
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            mpi_check_fail(__FILE__, __LINE__, #condition);                                        \
    } while (0)

#define CHECK_OK(expr) CHECK((expr) == ST_OK)
#define CHECK_MESSAGE(text) CHECK(strstr(status_message(), (text)) != NULL)

#endif

/* What the environment of a launcher leads to; exit code 0 and the communicator's name, or 1 and
 * the message. Built with MPI and without it. */
#include <espalier/communicator.h>
#include <stdio.h>

int main(int argc, char **argv) {
    struct communicator c;
    enum status status = communicator_create(&argc, &argv, &c);
    if (status != ST_OK)
        printf("%s\n", status_message());
    printf("communicator %s of %d\n", c.name, c.size);
    c.destroy(&c);
    return status_exit_code(status);
}

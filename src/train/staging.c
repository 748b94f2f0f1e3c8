#include <espalier/staging.h>

#include <string.h>

static bool reaches(const struct staging *s) {
    return s->backend->host_memory || s->communicator->device_memory;
}

enum status staging_create(struct communicator *communicator, struct backend *backend, size_t count,
                           struct staging *s) {
    *s = (struct staging){.communicator = communicator, .backend = backend};
    if (communicator->size == 1 || reaches(s))
        return ST_OK;
    return backend->host_alloc(backend, count * sizeof *s->host, (void **)&s->host);
}

void staging_destroy(struct staging *s) {
    if (s->backend != NULL)
        s->backend->host_release(s->backend, s->host);
    memset(s, 0, sizeof *s);
}

enum status staging_start(struct staging *s, float *vector, size_t offset, size_t count) {
    float *values = vector + offset;
    if (s->host != NULL) {
        values = s->host + offset;
        s->parts[s->parts_count++] = (struct staging_part){offset, count};
        TRY(s->backend->download(s->backend, values, vector + offset, count * sizeof *values));
    }
    return s->communicator->allreduce_start(s->communicator, values, count);
}

/* What lies between the parts is nobody's sum. */
enum status staging_finish(struct staging *s, float *vector) {
    const int count = s->parts_count;
    s->parts_count = 0;
    TRY(s->communicator->allreduce_wait(s->communicator));
    for (int i = 0; i < count; i++) {
        const struct staging_part *part = &s->parts[i];
        TRY(s->backend->upload(s->backend, vector + part->offset, s->host + part->offset,
                               part->count * sizeof *vector));
    }
    return ST_OK;
}

/* In parts that need no memory of their own. */
static enum status sum_by_host(const struct staging *s, double *values, size_t count) {
    enum { PART = 512 };
    double part[PART];
    for (size_t done = 0; done < count; done += PART) {
        const size_t n = count - done < PART ? count - done : PART;
        TRY(s->backend->download(s->backend, part, values + done, n * sizeof *part));
        TRY(s->communicator->sum_doubles(s->communicator, part, n));
        TRY(s->backend->upload(s->backend, values + done, part, n * sizeof *part));
    }
    return ST_OK;
}

enum status staging_sum_doubles(struct staging *s, double *values, size_t count) {
    struct communicator *c = s->communicator;
    if (c->size == 1)
        return ST_OK;
    if (!reaches(s))
        return sum_by_host(s, values, count);
    if (!c->device_memory)
        return c->sum_doubles(c, values, count);
    TRY(c->allreduce_start_doubles(c, values, count));
    return c->allreduce_wait(c);
}

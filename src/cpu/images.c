/* Passes that take one image after the other, through one block or a chain of them. */
#include "cpu.h"

#include <string.h>

static int grains(int samples) {
    return (samples + GRAIN_IMAGES - 1) / GRAIN_IMAGES;
}

size_t images_grains(const struct block_plan *plan) {
    return (size_t)grains(plan->max_samples);
}

/* ---- chains ---- */

static bool goes_by_images(const struct block_plan *plan) {
    return plan->forward_kind->image != NULL && plan->backward_kind->images != NULL;
}

enum status images_join(struct block_plan *before, struct block_plan *after, bool *joined) {
    const size_t inputs = shape_size(after->desc.input);
    /* The backward pass goes down the chain in one go, where there is no dx to hand out yet. */
    const bool begins = before->first || before->before != NULL;
    *joined = begins && goes_by_images(before) && goes_by_images(after);
    if (!*joined)
        return ST_OK;
    after->dx_size = (inputs + CACHE_LINE_FLOATS - 1) / CACHE_LINE_FLOATS * CACHE_LINE_FLOATS;
    TRY(arena_alloc(after->arena, (size_t)after->threads, after->dx_size * sizeof(float),
                    (void **)&after->dx));
    after->before = before;
    before->is_joined = true;
    return ST_OK;
}

/* What comes out of the block before goes into this one while it is in the thread's caches; in
 * evaluation nobody else reads it, and it goes nowhere else. */
static void forward_chain(const struct block_plan *plan, const struct block_pass *pass,
                          struct image_values image) {
    if (plan->before != NULL) {
        const struct block_plan *before = plan->before;
        const size_t inputs = shape_size(before->desc.input);
        const size_t outputs = shape_size(before->desc.output);
        float *y = pass->training ? before->y + (size_t)image.sample * outputs
                                  : plan->dx + (size_t)omp_get_thread_num() * plan->dx_size;
        forward_chain(before, pass,
                      (struct image_values){.sample = image.sample,
                                            .x = before->x + (size_t)image.sample * inputs,
                                            .y = y});
        image.x = y;
        image.next = NULL;
    }
    blank_image(plan, image.sample, image.x);
    plan->forward_kind->image(plan, pass, &image);
}

/* What the block before the one of `image` has to do for the same sample. */
static struct image_gradient image_before(const struct block_plan *plan,
                                          const struct image_gradient *image) {
    const struct block_plan *before = plan->before;
    const size_t inputs = shape_size(before->desc.input);
    return (struct image_gradient){.pass = image->pass,
                                   .sample = image->sample,
                                   .x = before->x + (size_t)image->sample * inputs,
                                   .y = image->x,
                                   .dy = image->dx};
}

/* The gradient of the image goes down the chain while it is in the thread's caches. */
static void backward_chain(const struct block_plan *plan, struct image_gradient image) {
    for (;; plan = plan->before) {
        if (plan->before != NULL)
            image.dx = plan->dx + (size_t)omp_get_thread_num() * plan->dx_size;
        plan->backward_kind->images->backward(plan, &image);
        if (plan->before == NULL)
            return;
        image = image_before(plan, &image);
    }
}

/* ---- the batch ---- */

/* A thread's part of the images or grains: the same in all passes, so that what it wrote lies in
 * its caches when it reads it, and not in another core's. A thread that is through with its part
 * takes from the others'. */
struct share {
    _Alignas(64) int next;
    int end;
};

static int first_of_share(int count, int threads, int thread) {
    return (int)((long long)count * thread / threads);
}

enum status images_create(struct block_plan *plan) {
    return ARENA_ARRAY(plan->arena, (size_t)plan->threads, &plan->shares);
}

/* Shares of what `limit` counts, of which a grain has `unit`: whole grains. */
static void deal(const struct block_plan *plan, int samples, int unit, int limit) {
    const int count = grains(samples), threads = plan->threads;
    for (int t = 0; t < threads; t++) {
        const int end = unit * first_of_share(count, threads, t + 1);
        plan->shares[t].next = unit * first_of_share(count, threads, t);
        plan->shares[t].end = end < limit ? end : limit;
    }
}

/* -1 when there is none left. */
static int take(const struct block_plan *plan) {
    const int threads = plan->threads, own = omp_get_thread_num();
    for (int i = 0; i < threads; i++) {
        struct share *share = &plan->shares[(own + i) % threads];
        int taken;
#pragma omp atomic capture
        taken = share->next++;
        if (taken < share->end)
            return taken;
    }
    return -1;
}

/* Each thread takes an image while it is still at the one before, so that it can fetch it. */
void images_forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                    float *y) {
    const size_t inputs = shape_size(plan->desc.input), outputs = shape_size(plan->desc.output);
    blank_begin(plan, pass);
    deal(plan, pass->samples, GRAIN_IMAGES, pass->samples);
#pragma omp parallel num_threads(plan->threads)
    for (int n = take(plan); n >= 0;) {
        const int after = take(plan);
        forward_chain(plan, pass,
                      (struct image_values){.sample = n,
                                            .x = x + (size_t)n * inputs,
                                            .next = after >= 0 ? x + (size_t)after * inputs : NULL,
                                            .y = y + (size_t)n * outputs});
        n = after;
    }
}

static void backward_grain(const struct block_plan *plan, const struct block_pass *pass,
                           const struct backward_args *args, int grain) {
    const size_t inputs = shape_size(plan->desc.input), outputs = shape_size(plan->desc.output);
    const int first = grain * GRAIN_IMAGES, left = pass->samples - first;
    for (const struct block_plan *p = plan; p != NULL; p = p->before) {
        p->backward_kind->images->begin(p, grain);
        blank_clear(p, grain);
    }
    for (int n = first; n < first + (left < GRAIN_IMAGES ? left : GRAIN_IMAGES); n++) {
        const size_t in = (size_t)n * inputs, out = (size_t)n * outputs;
        backward_chain(plan,
                       (struct image_gradient){.pass = pass,
                                               .sample = n,
                                               .x = args->x + in,
                                               .y = args->y + out,
                                               .dy = args->dy + out,
                                               .dx = args->dx == NULL ? NULL : args->dx + in});
        poll_from_team(args->poll);
    }
}

void images_backward(struct block_plan *plan, const struct block_pass *pass,
                     const struct backward_args *args) {
    const struct images_kind *kind = plan->backward_kind->images;
    const int count = grains(pass->samples);
    const size_t parts = kind->parts(plan);
    deal(plan, pass->samples, 1, count);
#pragma omp parallel num_threads(plan->threads)
    {
        if (!plan->is_joined) {
            for (int g = take(plan); g >= 0; g = take(plan))
                backward_grain(plan, pass, args, g);
#pragma omp barrier
        }
#pragma omp for
        for (size_t part = 0; part < parts; part++)
            kind->reduce(plan, count, part, args);
    }
    blank_hand_down(plan, count);
}

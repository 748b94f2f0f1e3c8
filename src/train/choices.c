/* Which ways the plans' passes go, where that is measured: rank 0 tries them, and all take over
 * what it has found. */
#include <espalier/replica.h>
#include <string.h>

struct all_choices {
    uint32_t of[RECIPE_LAYERS_MAX][BLOCK_CHOICES];
};

/* Of those blocks that a checkpoint says nothing of. In passes as large as an update's. */
static enum status measure(struct replica *r) {
    const struct slice window = dataset_batch(r->data.count, (uint32_t)r->recipe->train.batch, 0);
    const int samples = (int)replica_shard(r->recipe, window.count, 0, r->communicator->size).count;
    for (int i = 0; i < r->network->blocks_count; i++) {
        struct block *block = &r->network->blocks[i];
        if (block->choice == CHOICE_NONE)
            TRY(r->backend->block_plan_choose(block->plan, samples, true, block->choices));
    }
    return ST_OK;
}

static enum status take_over(struct replica *r, const struct all_choices *all) {
    for (int i = 0; i < r->network->blocks_count; i++) {
        struct block *block = &r->network->blocks[i];
        if (block->choice == CHOICE_TAKEN)
            continue;
        memcpy(block->choices, all->of[i], sizeof block->choices);
        block->choice = CHOICE_TAKEN;
        TRY(r->backend->block_plan_choose(block->plan, 0, false, block->choices));
    }
    return ST_OK;
}

static int count_blocks(const struct network *network, enum choice_state state) {
    int count = 0;
    for (int i = 0; i < network->blocks_count; i++)
        count += network->blocks[i].choice == state;
    return count;
}

enum status replica_choose(struct replica *r, bool *measured) {
    struct communicator *c = r->communicator;
    struct all_choices all;
    *measured = false;
    if (!r->recipe->train.cudnn_autotune || r->backend->host_memory ||
        count_blocks(r->network, CHOICE_TAKEN) == r->network->blocks_count)
        return ST_OK;
    *measured = count_blocks(r->network, CHOICE_NONE) > 0;
    TRY_TOGETHER(c, c->rank == 0 ? measure(r) : ST_OK);
    memset(&all, 0, sizeof all);
    for (int i = 0; i < r->network->blocks_count; i++)
        memcpy(all.of[i], r->network->blocks[i].choices, sizeof all.of[i]);
    TRY(c->broadcast(c, &all, sizeof all, 0));
    return communicator_agree(c, take_over(r, &all));
}

"""1, 2, 3 and 4 ranks train the same network."""

import os

from program import SOURCE, ProgramTest, environment, largest_difference, model, read_events, summary

SMOOTH = os.path.join(SOURCE, "tests", "fixtures", "smooth.cfg")
REGULARISED = os.path.join(SOURCE, "tests", "fixtures", "regularised.cfg")

# A batch of 42 that four ranks cannot divide evenly; with 2,000 images an epoch ends with a batch of
# 2000 - 47 * 42 = 26, and 60 updates cross its end.
SUBSET = ["data.train_limit=2000", "data.test_limit=500"]

# Where the bound comes from: the ranks' gradients are float sums of the same terms in another order.
# A sum of n terms errs by at most gamma_n = n u / (1 - n u) of the sum of their magnitudes,
# u = 2^-24; the longest here are a convolution's, 42 samples x 144 positions, of magnitudes that sum
# to less than 0.2: 6048 * 6e-8 * 0.2 = 7e-5 at the very worst, and by the square root of n in the
# random case that roundings follow, 1e-6. The learning rate takes a tenth of it, 60 updates of
# independent errors add by their square root: 8e-7, and a network without kinks amplifies little.
# A gradient that is scaled wrongly (by the ranks, by uneven shares) is off by 1e-2 and more.
BOUND = 1e-5


class Invariance(ProgramTest):
    def agree(self, recipe, settings, ranks, steps):
        one = self.train(recipe, "one", settings)
        many = self.train(recipe, "many", settings, ranks=ranks)
        self.assertEqual((summary(many)["ranks"], summary(many)["steps"]), (ranks, steps))
        self.assertLess(largest_difference(model(one), model(many)), BOUND)
        losses = [[e["loss"] for e in read_events(r, "step")] for r in (one, many)]
        self.assertEqual(len(losses[0]), steps)
        for a, b in zip(*losses, strict=True):
            self.assertAlmostEqual(a, b, delta=BOUND)

    def test_60_updates_on_2_ranks(self):
        self.agree(SMOOTH, SUBSET, 2, 60)

    def test_60_updates_on_3_ranks(self):
        self.agree(SMOOTH, SUBSET, 3, 60)

    def test_60_updates_on_4_ranks(self):
        self.agree(SMOOTH, SUBSET, 4, 60)

    def test_batch_smaller_than_ranks(self):
        """Ranks without a sample take part all the same."""
        settings = ["train.batch=3", "data.train_limit=100", "data.test_limit=100"]
        self.agree(SMOOTH, settings, 4, 60)

    def test_regularised_60_updates_on_3_ranks(self):
        """Batch normalisation is over the batch of all ranks: three shares of 14 would differ."""
        self.agree(REGULARISED, SUBSET, 3, 60)

    def test_regularised_batch_smaller_than_ranks(self):
        """A rank without a sample takes part in the statistics all the same. A unit that dropout
        zeroes in all three samples has no variance, and magnifies roundings: epsilon keeps that
        small, and the updates are few."""
        settings = ["train.batch=3", "train.steps=20", "data.train_limit=100",
                    "data.test_limit=100", "network.batchnorm2.epsilon=0.1"]
        self.agree(REGULARISED, settings, 4, 20)

    def test_poster_network_on_3_ranks(self):
        """With relu and max-pool, for so few updates of so few images that no unit sits within
        rounding of its kink."""
        settings = SUBSET + ["train.optimizer=sgd", "train.learning_rate=0.1", "train.batch=7",
                             "train.steps=8", "train.log_every=1"]
        self.agree("ann_d", settings, 3, 8)

    def test_scale_is_visible(self):
        """The comparison can fail: a learning rate 1 % off is far outside the bound."""
        one = self.train(SMOOTH, "one", SUBSET)
        other = self.train(SMOOTH, "other", SUBSET + ["train.learning_rate=0.101"])
        self.assertGreater(largest_difference(model(one), model(other)), 10 * BOUND)


def zeros(run_dir):
    return {
        name: [i for i, x in enumerate(values) if x == 0.0]
        for name, (_, values) in model(run_dir).items()
        if name.endswith("weight") and "norm" not in name
    }


class Pruning(ProgramTest):
    """A tenth of the connections goes every ten updates: six events."""

    LINEAR = SUBSET + ["prune.schedule=linear", "prune.every=10", "prune.rate=0.1"]

    def masks_agree(self, settings, ranks, recipe=SMOOTH):
        one = self.train(recipe, "one", self.LINEAR + settings)
        many = self.train(recipe, "many", self.LINEAR + settings, ranks=ranks)
        counts = [[e["survivors"] for e in read_events(r, "prune")] for r in (one, many)]
        self.assertEqual(len(counts[0]), 6)
        self.assertEqual(counts[0], counts[1])
        self.assertEqual(zeros(one), zeros(many))
        self.assertEqual(sum(map(len, zeros(one).values())),
                         summary(one)["connections"] - summary(one)["survivors"])
        self.assertLess(largest_difference(model(one), model(many)), BOUND)

    def test_per_layer_masks_on_2_ranks(self):
        self.masks_agree(["prune.layers=[dense1,dense2]"], 2)

    def test_per_layer_masks_on_3_ranks(self):
        self.masks_agree(["prune.layers=[conv2,dense1]"], 3)

    def test_global_masks_on_4_ranks(self):
        self.masks_agree(["prune.layers=[conv1,conv2,dense1,dense2]", "prune.scope=global"], 4)


    def test_regularised_masks_on_2_ranks(self):
        """Neither decay nor the running statistics, which move when the connections before them
        go, disturb the pruning, nor the other way round."""
        self.masks_agree(["prune.layers=[conv1,dense1,dense2]"], 2, REGULARISED)


class Masks(ProgramTest):
    """With dense kernels and whole layers, deleting connections and masking them is the same
    training."""

    def same(self, recipe, settings, ranks):
        runs = [self.train(recipe, kind, SUBSET + settings + [
            "prune.sparse_below=0", f"prune.deletion={kind}"], ranks=ranks)
            for kind in ("delete", "mask")]
        told = [[(e["survivors"], e["layers"]) for e in read_events(r, "prune")] for r in runs]
        self.assertEqual(told[0], told[1])
        self.assertGreater(len(told[0]), 1)
        self.assertEqual(*(summary(r)["weights_sha256"] for r in runs))
        self.assertEqual(*([e["loss"] for e in read_events(r, "step")] for r in runs))

    def test_poster_network(self):
        self.same("ann_a", ["prune.every=4", "prune.rate=0.1", "prune.keep=0.3"], 1)

    def test_fsa_over_all_layers_on_2_ranks(self):
        self.same("ann_a_global", ["prune.every=2", "train.steps=12", "prune.keep=0.1"], 2)

    def test_momentum_on_2_ranks(self):
        self.same("lenet_300_100", ["prune.every=2", "train.steps=16", "prune.rate=0.15"], 2)


class SparseForm(ProgramTest):
    """Computing with the survivors alone is the masked training to rounding, whatever stands beside
    the layers; at the end a tenth of the connections is left."""

    SETTINGS = SUBSET + ["prune.schedule=linear", "prune.every=10", "prune.rate=0.15"]

    def agrees(self, recipe, settings, ranks):
        deleted = self.train(recipe, "deleted", self.SETTINGS + settings + [
            "prune.sparse_below=0.9"], ranks=ranks)
        masked = self.train(recipe, "masked", self.SETTINGS + settings + [
            "prune.deletion=mask"], ranks=ranks)
        told = [[e["layers"] for e in read_events(r, "prune")] for r in (deleted, masked)]
        self.assertEqual(len(told[0]), 6)
        self.assertEqual(*told)
        self.assertEqual(*([[x == 0 for x in v] for n, (_, v) in model(r).items() if "weight" in n
                            and "norm" not in n] for r in (deleted, masked)))
        self.assertLess(largest_difference(model(deleted), model(masked)), BOUND)
        self.assertNotEqual(*(summary(r)["weights_sha256"] for r in (deleted, masked)))

    def test_convolutions_and_dense_layers(self):
        self.agrees(SMOOTH, ["prune.layers=[conv1,conv2,dense1,dense2]"], 1)

    def test_every_regulariser(self):
        self.agrees(REGULARISED, ["prune.layers=[conv1,dense1,dense2]"], 1)

    def test_every_regulariser_on_2_ranks(self):
        self.agrees(REGULARISED, ["prune.layers=[conv1,dense1,dense2]"], 2)


class Repeatability(ProgramTest):
    SETTINGS = SUBSET + ["train.steps=20", "prune.every=10", "network.dense1.units=24"]

    def test_same_ranks_give_same_bits(self):
        runs = [self.train("ann_a", name, self.SETTINGS, ranks=3) for name in ("one", "two")]
        self.assertEqual(*(summary(r)["weights_sha256"] for r in runs))

    def shared_or_sent(self, *settings):
        """Digests of a run whose ranks share memory and of one whose ranks send."""
        runs = [self.train("ann_a", f"shared{wanted}", self.SETTINGS + list(settings), ranks=2,
                           env=environment(ESPALIER_SHARED_MEMORY=wanted))
                for wanted in ("1", "0")]
        return [summary(r)["weights_sha256"] for r in runs]

    def test_shared_updates_are_those_of_an_all_reduce(self):
        """Of two ranks: a + b has no order. Pruning renumbers Adadelta's state, which each rank
        has of its share alone, after updates 10 and 20; 10 more depend on it."""
        self.assertEqual(*self.shared_or_sent("train.steps=30"))

    def test_shared_momentum_is_that_of_an_all_reduce(self):
        self.assertEqual(*self.shared_or_sent("train.optimizer=sgd", "train.learning_rate=0.05",
                                              "train.momentum=0.9", "train.steps=30"))

    def test_threads_do_not_change_the_bits(self):
        runs = [
            self.train("ann_a", f"threads{n}", self.SETTINGS + [f"train.threads={n}"])
            for n in (1, 2, 3)
        ]
        self.assertEqual(len({summary(r)["weights_sha256"] for r in runs}), 1)


class Deleted(ProgramTest):
    """So few connections are left that whole channels have none: shapes shrink."""

    FEW = SUBSET + ["prune.schedule=linear", "prune.every=10", "prune.rate=0.16",
                    "prune.layers=[conv1,conv2,dense1]"]

    def channels_without(self, run_dir):
        """Filters of conv1 that have no input, and that conv2 does not read."""
        (rows, inputs, height, width), conv1 = model(run_dir)["conv1.weight"]
        (filters, channels, *kernel), conv2 = model(run_dir)["conv2.weight"]
        size, taps = inputs * height * width, kernel[0] * kernel[1]
        empty = [r for r in range(rows) if not any(conv1[r * size:(r + 1) * size])]
        unread = [c for c in range(channels)
                  if not any(any(conv2[(f * channels + c) * taps:(f * channels + c + 1) * taps])
                             for f in range(filters))]
        return empty, unread

    def computes_as_masked(self, settings, ranks):
        masked = self.train(SMOOTH, "masked", self.FEW + ["prune.deletion=mask"])
        deleted = self.train(SMOOTH, "deleted", self.FEW + settings, ranks=ranks)
        self.assertTrue(any(self.channels_without(deleted)))
        self.assertEqual(zeros(deleted), zeros(masked))
        self.assertLess(largest_difference(model(deleted), model(masked)), BOUND)

    def test_in_dense_form_on_1_rank(self):
        self.computes_as_masked(["prune.sparse_below=0"], 1)

    def test_in_dense_form_on_2_ranks(self):
        self.computes_as_masked(["prune.sparse_below=0"], 2)

    def test_in_sparse_form_on_2_ranks(self):
        self.computes_as_masked(["prune.sparse_below=1"], 2)

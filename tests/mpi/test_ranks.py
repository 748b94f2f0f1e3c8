"""1, 2, 3 and 4 ranks train the same network."""

from program import ProgramTest, largest_difference, model, read_events, summary

# A small network and a batch that three ranks cannot divide evenly; with train_limit 2,000 an
# epoch ends with a batch of 2000 - 47*42 = 26, and 60 updates cross its end.
SMALL = [
    "data.train_limit=2000",
    "data.test_limit=500",
    "train.batch=42",
    "train.steps=60",
    "train.epochs=2",
    "train.log_every=1",
    "network.conv1.filters=4",
    "network.conv2.filters=6",
    "network.dense1.units=24",
]
SGD = SMALL + ["train.optimizer=sgd", "train.learning_rate=0.1"]

# Where the bound comes from: the ranks' partial sums are float sums of the same terms in another
# order. A sum of n terms errs by at most gamma_n = n u / (1 - n u) of the sum of its terms'
# magnitudes, u = 2^-24; a gradient entry here sums at most 42 samples x 576 positions of terms
# whose magnitudes sum to about 0.1. One update by learning rate 0.1 so moves a weight by up to
# 0.1 * 2.4e4 * 6e-8 * 0.1 = 1.4e-5 in the worst case, and by its square root's share, 1e-7, in the
# random case that roundings follow; 60 updates that amplify little stay below 1e-5. A gradient
# scaled wrongly (by the ranks, or by the uneven shares) is off by 1e-2 and more.
BOUND = 1e-5


class Invariance(ProgramTest):
    def models_agree(self, recipe, settings, bound, ranks):
        one = self.train(recipe, "one", settings)
        many = self.train(recipe, "many", settings, ranks=ranks)
        self.assertEqual(summary(many)["ranks"], ranks)
        self.assertEqual(summary(many)["steps"], 60)
        self.assertLess(largest_difference(model(one), model(many)), bound)
        for a, b in zip(read_events(one, "step"), read_events(many, "step"), strict=True):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=bound * 10)
        self.assertEqual(len(read_events(many, "step")), 60)

    def test_sgd_with_dropout_on_2_ranks(self):
        self.models_agree("ann_d", self.sgd("ann_d"), BOUND, 2)

    def test_sgd_with_dropout_on_3_ranks(self):
        self.models_agree("ann_d", self.sgd("ann_d"), BOUND, 3)

    def test_sgd_with_dropout_on_4_ranks(self):
        self.models_agree("ann_d", self.sgd("ann_d"), BOUND, 4)

    def sgd(self, recipe):
        return SGD + [f"train.seed={len(recipe)}"]

    def test_batch_smaller_than_ranks(self):
        """Ranks without a sample take part all the same."""
        settings = [s for s in SGD if not s.startswith(("train.batch", "data.train_limit"))]
        self.models_agree("ann_d", settings + ["train.batch=3", "data.train_limit=100"], BOUND, 4)

    def test_scale_is_visible(self):
        """The comparison can fail: a learning rate 1 % off is far outside the bound."""
        one = self.train("ann_d", "one", SGD)
        other = self.train("ann_d", "other", SGD + ["train.learning_rate=0.101"])
        self.assertGreater(largest_difference(model(one), model(other)), 10 * BOUND)


class Pruning(ProgramTest):
    SETTINGS = SGD + ["prune.every=10", "prune.rate=0.1"]

    def zeros(self, run_dir):
        return {
            name: [i for i, x in enumerate(values) if x == 0.0]
            for name, (_, values) in model(run_dir).items()
            if name.endswith("weight")
        }

    def masks_agree(self, recipe, ranks):
        one = self.train(recipe, "one", self.SETTINGS)
        many = self.train(recipe, "many", self.SETTINGS, ranks=ranks)
        counts = [[e["survivors"] for e in read_events(r, "prune")] for r in (one, many)]
        self.assertEqual(len(counts[0]), 6)
        self.assertEqual(counts[0], counts[1])
        self.assertEqual(self.zeros(one), self.zeros(many))
        self.assertLess(largest_difference(model(one), model(many)), BOUND)

    def test_per_layer_masks_on_2_ranks(self):
        self.masks_agree("ann_a", 2)

    def test_per_layer_masks_on_3_ranks(self):
        self.masks_agree("ann_a", 3)

    def test_global_masks_on_4_ranks(self):
        self.masks_agree("ann_a_global", 4)


class Repeatability(ProgramTest):
    def test_same_ranks_give_same_bits(self):
        settings = SMALL + ["prune.every=10"]
        runs = [self.train("ann_a", name, settings, ranks=3) for name in ("one", "two")]
        self.assertEqual(*(summary(r)["weights_sha256"] for r in runs))

    def test_threads_do_not_change_the_bits(self):
        settings = SMALL + ["prune.every=10"]
        runs = [
            self.train("ann_a", f"threads{n}", settings + [f"train.threads={n}"]) for n in (1, 2, 3)
        ]
        self.assertEqual(len({summary(r)["weights_sha256"] for r in runs}), 1)

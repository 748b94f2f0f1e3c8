"""Training in memory that the host cannot touch is the CPU backend's training, bit for bit.

The program under test is espalier over tests/foreign: following a device pointer outside the
backend is a crash.
"""

import json
import os

from program import MNIST, PROGRAM, SOURCE, ProgramTest, environment, read_events, run, summary
from resuming import SETTINGS, SMOOTH, history

FOREIGN = os.environ["ESPALIER_FOREIGN"]
REGULARISED = os.path.join(SOURCE, "tests", "fixtures", "regularised.cfg")

# Where the host's memory is shared, ranks of one node sum in another order.
SENT = environment(ESPALIER_SHARED_MEMORY="0")

SUBSET = ["data.train_limit=600", "data.test_limit=200", "data.validation=100",
          "checkpoint.every=13", "prune.schedule=linear", "prune.every=5", "prune.rate=0.1",
          "prune.sparse_below=0.6"]


class SameBits(ProgramTest):
    def same(self, recipe, settings, ranks=1):
        runs = [self.train(recipe, name, settings, ranks=ranks, env=SENT, program=program)
                for name, program in (("host", PROGRAM), ("device", FOREIGN))]
        self.assertEqual([summary(r)["backend"] for r in runs], ["cpu", "foreign"])
        self.assertEqual(*(summary(r)["weights_sha256"] for r in runs))
        self.assertEqual(*(history(r) for r in runs))
        return runs[1]

    def test_pruned_layer_by_layer(self):
        trained = self.same(SMOOTH, SUBSET + ["prune.layers=[conv2,dense1]"])
        self.assertGreater(len(read_events(trained, "prune")), 3)

    def test_pruned_over_all_layers_on_2_ranks(self):
        layers = "prune.layers=[conv1,conv2,dense1,dense2]"
        self.same(SMOOTH, SUBSET + [layers, "prune.scope=global", "prune.normalise=true"], 2)

    def test_under_a_mask_on_2_ranks(self):
        self.same(SMOOTH, SUBSET + ["prune.layers=[conv2,dense1]", "prune.deletion=mask"], 2)

    def test_regularised_on_3_ranks(self):
        """Batch normalisation sums over the ranks from inside a pass."""
        self.same(REGULARISED, SUBSET + ["prune.layers=[conv1,dense1]"], 3)

    def test_shares_of_nothing_on_3_ranks(self):
        self.same(SMOOTH, SUBSET + ["prune.layers=[dense1]", "train.batch=2", "train.steps=25"], 3)

    def test_measured_break_even(self):
        """Measured, the densities at which layers turn sparse are a matter of time; training goes
        on in either form."""
        settings = SUBSET + ["prune.layers=[dense1]", "prune.rate=0.3", "prune.sparse_below=-1"]
        trained = self.train(SMOOTH, "run", settings, program=FOREIGN)
        self.assertEqual(summary(trained)["backend"], "foreign")


class Commands(ProgramTest):
    def test_resume_on_2_ranks(self):
        whole = self.train(SMOOTH, "whole", SETTINGS, ranks=2, program=FOREIGN)
        parts = self.path("parts")
        words = ["train", SMOOTH, "-o", parts, "-s", f"data.dir={MNIST}"]
        for setting in SETTINGS:
            words += ["-s", setting]
        self.run_ok(*words, "-s", "train.epochs=1", ranks=2, program=FOREIGN)
        self.run_ok(*words, "--resume", ranks=2, program=FOREIGN)
        self.assertEqual(summary(whole)["weights_sha256"], summary(parts)["weights_sha256"])
        self.assertEqual(history(whole), history(parts))

    def test_evaluate(self):
        trained = self.train(SMOOTH, "run", SUBSET[:3], program=FOREIGN)
        for ranks in (1, 2):
            told = [self.run_ok("evaluate", trained, "--data", MNIST, ranks=ranks, program=program).out
                    for program in (PROGRAM, FOREIGN)]
            self.assertEqual(*told)

    def test_bench(self):
        words = ["bench", SMOOTH, "-s", f"data.dir={MNIST}", "-s", "data.train_limit=500",
                 "-s", "prune.layers=[dense1]", "--steps", "3", "--density", "0.1"]
        for ranks in (1, 2):
            told = self.run_ok(*words, "--json", ranks=ranks, program=FOREIGN).out
            self.assertEqual(json.loads(told)["backend"], "foreign")
        told = self.run_ok(*words, "--plans", program=FOREIGN).out
        self.assertIn("dense1", told)

    def test_reproducible_is_refused(self):
        result = run("train", SMOOTH, "-o", self.path("run"), "-s", f"data.dir={MNIST}", "-s",
                     "train.reproducible=true", program=FOREIGN)
        self.assert_refused(result, "train.reproducible", "foreign", code=1)

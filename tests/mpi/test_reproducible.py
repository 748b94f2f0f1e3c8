"""With train.reproducible, ranks and threads change no bit of what a run leaves."""

import os
import signal

from program import MNIST, ProgramTest, read_events, run, summary
from resuming import SETTINGS, SMOOTH, STEPS, ResumeTest, history, ranks_of, timeless

CIRCUMSTANCES = {"ranks", "threads", "communicator"}

# relu and max-pool, where the smallest difference grows at once; conv kernels of each kind, layers
# wide enough for the kernels that skip zeros, a last batch that fills two and a half grains.
ANN_A = [
    "data.train_limit=2000", "data.test_limit=500", "data.validation=200", "train.epochs=1",
    "prune.every=4", "prune.rate=0.05", "train.log_every=4", "network.conv1.filters=4",
    "network.conv2.filters=9", "network.dense1.units=40", "train.reproducible=true",
]


def outcome(run_dir):
    results = timeless(summary(run_dir))
    return {k: v for k, v in results.items() if k not in CIRCUMSTANCES}, history(run_dir)


class Reproducible(ProgramTest):
    def test_any_ranks_and_threads(self):
        whole = outcome(self.train("ann_a", "whole", ANN_A + ["train.threads=1"]))
        for ranks, threads in ((1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2), (5, 1)):
            self.check(whole, ranks, threads)
        os.environ["ESPALIER_SHARED_MEMORY"] = "0"  # as ranks of several nodes
        self.addCleanup(os.environ.pop, "ESPALIER_SHARED_MEMORY")
        for ranks, threads in ((2, 2), (3, 1)):
            self.check(whole, ranks, threads)

    def check(self, whole, ranks, threads):
        name = f"run{ranks}{threads}{os.environ.get('ESPALIER_SHARED_MEMORY', '')}"
        settings = ANN_A + [f"train.threads={threads}"]
        run_dir = self.train("ann_a", name, settings, ranks=ranks)
        found = summary(run_dir)
        self.assertEqual((found["ranks"], found["threads"]), (ranks, threads))
        self.assertEqual(outcome(run_dir), whole, name)

    def test_without_it_ranks_differ(self):
        """What the test above compares can tell."""
        settings = ANN_A + ["train.reproducible=false"]
        one, two = (self.train("ann_a", f"run{n}", settings, ranks=n) for n in (1, 2))
        self.assertNotEqual(*(summary(r)["weights_sha256"] for r in (one, two)))

    def test_dropout_and_batches_smaller_than_the_grains(self):
        settings = ["data.train_limit=101", "data.test_limit=70", "train.batch=3",
                    "train.reproducible=true"]
        whole = outcome(self.train(SMOOTH, "whole", settings))
        self.assertEqual(outcome(self.train(SMOOTH, "run", settings, ranks=4)), whole)

    def test_close_to_a_run_that_is_not(self):
        """The same mathematics: losses agree to the roundings that 9 updates leave."""
        runs = [
            self.train(SMOOTH, f"reproducible_{r}", ["data.train_limit=400", "data.test_limit=50",
                       "train.epochs=1", f"train.reproducible={r}"])
            for r in ("false", "true")
        ]
        for a, b in zip(*(read_events(r, "step") for r in runs), strict=True):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=1e-5)

    def test_batch_normalisation_is_refused(self):
        recipe = self.write("bn.cfg", """
network = ({ type = "dense"; units = 12; }, { type = "batchnorm"; },
           { type = "dense"; units = 10; });
train = { reproducible = true; };
""")
        result = run("train", recipe, "-o", self.path("run"), "-s", f"data.dir={MNIST}")
        self.assert_refused(result, "train.reproducible: layer batchnorm1")


class Resumed(ResumeTest):
    def test_resumed_on_other_ranks(self):
        """Bit for bit, too."""
        settings = SETTINGS + ["train.reproducible=true", "train.log_every=5"]
        whole = outcome(self.train(SMOOTH, "whole", settings))
        self.assertEqual(whole[0]["steps"], STEPS)
        process = self.start_and_pause("run", settings, ranks=2)
        os.kill(ranks_of(process)[1], signal.SIGUSR1)
        os.kill(ranks_of(process)[0], signal.SIGCONT)
        self.finish(process, 75)
        self.finish(self.start("run", settings, "--resume", ranks=3))
        self.assertEqual(outcome(self.path("run")), whole)

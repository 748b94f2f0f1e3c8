"""Training on the GPU of this machine, against the CPU; skipped (77) where there is none."""

import os
import unittest

from program import (MNIST, RECIPES, SOURCE, ProgramTest, environment, largest_difference, model,
                     read_events, run, summary)

SMOOTH = os.path.join(SOURCE, "tests", "fixtures", "smooth.cfg")
PRUNED = ["data.train_limit=2000", "data.test_limit=500", "prune.layers=[conv2,dense1]",
          "prune.schedule=linear", "prune.every=10", "prune.rate=0.1"]
# Whole batches and a rest; each size runs plainly, is recorded, and replayed, and recorded again after
# an event, in 12 updates.
RECORDED = ["data.train_limit=448", "data.test_limit=100", "train.epochs=3"]
ANNEALED = ["data.train_limit=6400", "data.test_limit=1000", "train.epochs=2", "prune.every=7"]


def visible(**changes):
    """The devices that other tests hide."""
    return environment(CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES"), **changes)


def zeros(run_dir):
    return {name: [i for i, x in enumerate(values) if x == 0]
            for name, (_, values) in model(run_dir).items() if name.endswith("weight")}


class Device(ProgramTest):
    def setUp(self):
        super().setUp()
        found = run("bench", os.path.join(RECIPES, "logistic.cfg"), "-s", f"data.dir={MNIST}", "-s",
                    "data.train_limit=256", "-s", "train.backend=cuda", "--steps", "1",
                    env=visible())
        if found.code != 0:
            raise unittest.SkipTest(found.err.strip())

    def on(self, backend, name, recipe, settings, **env):
        run_dir = self.train(recipe, name, settings + [f"train.backend={backend}"],
                             env=visible(**env))
        self.assertEqual(summary(run_dir)["backend"], backend)
        if backend == "cuda":
            self.assertIn("compute_capability", read_events(run_dir, "start")[0])
        return run_dir

    def test_trains_as_the_cpu_does(self):
        """As near to it as the CPU's instruction sets are to each other, with the same masks."""
        cpu = self.on("cpu", "cpu", SMOOTH, PRUNED)
        other = self.on("cpu", "other", SMOOTH, PRUNED, ESPALIER_ISA="baseline")
        cuda = self.on("cuda", "cuda", SMOOTH, PRUNED)
        self.assertEqual(len(read_events(cuda, "prune")), 6)
        self.assertEqual(zeros(cpu), zeros(cuda))
        apart = largest_difference(model(cpu), model(other))
        self.assertLessEqual(largest_difference(model(cpu), model(cuda)), 8 * apart + 1e-6)

    def test_captured_or_not_the_same_bits(self):
        for recipe, settings in ((SMOOTH, PRUNED), ("ann_a", [*RECORDED, "prune.every=5"]),
                                 ("ann_d", RECORDED)):
            name = os.path.basename(recipe)
            runs = [self.on("cuda", f"{name}-{i}", recipe, settings, ESPALIER_CUDA_GRAPH=graph)
                    for i, graph in enumerate(("1", "1", "0"))]
            self.assertEqual(len({summary(r)["weights_sha256"] for r in runs}), 1, name)

    def test_autotuned_engines_train_as_the_heuristics_do(self):
        """The CPU's masks, and the engines' names in the events."""
        settings = [*PRUNED, "train.cudnn_autotune=true", "train.epochs=2"]
        whole = self.on("cuda", "whole", SMOOTH, settings)
        self.assertRegex(read_events(whole, "engines")[0]["conv2.forward"], r"^(direct|cudnn \d+\.\d+)$")
        cpu = self.on("cpu", "cpu", SMOOTH, settings)
        self.assertEqual(zeros(cpu), zeros(whole))

    def test_two_ranks_train_as_the_cpu_does(self):
        """On GPUs of their own, by NCCL, captured or not; or both on the only one. Where MPI is not
        compiled in there is one rank, as in the other tests."""
        if not os.environ.get("MPIEXEC"):
            return
        cpu = self.train(SMOOTH, "cpu", [*PRUNED, "train.backend=cpu"], ranks=2)
        bits = set()
        for graph in ("1", "0"):
            run_dir = self.path(f"graph{graph}")
            words = ["train", SMOOTH, "-o", run_dir]
            for setting in [f"data.dir={MNIST}", *PRUNED, "train.backend=cuda"]:
                words += ["-s", setting]
            env = visible(ESPALIER_CUDA_GRAPH=graph)
            result = run(*words, ranks=2, env=env)
            shared = "let them share it with --share-gpus" in result.err
            if shared:
                result = run(*words, "--share-gpus", ranks=2, env=env)
            self.assertEqual(result.code, 0, result.err)
            self.assertEqual(zeros(run_dir), zeros(cpu))
            self.assertIn(summary(run_dir)["communicator"], ("mpi",) if shared else ("nccl", "mpi"))
            bits.add(summary(run_dir)["weights_sha256"])
        self.assertEqual(len(bits), 1)

    def test_poster_network_learns(self):
        """100 updates: the CPU's accuracy to a few images of 1,000."""
        cpu, cuda = (self.on(b, b, "ann_a", ANNEALED) for b in ("cpu", "cuda"))
        self.assertGreater(summary(cuda)["test_accuracy"], summary(cpu)["test_accuracy"] - 0.03)
        self.assertEqual(summary(cuda)["survivors"], summary(cpu)["survivors"])

"""espalier bench: what it prints, and that the figures fit each other and the network."""

import json
import os
import re

from program import MNIST, RECIPES, ProgramTest, run

KEYS = {"images_per_second", "step_seconds", "phases", "allreduce_bytes_per_step",
        "communication_wait_seconds", "peak_rss_bytes", "ranks", "threads", "backend", "density"}
UPDATE_KEYS = {"phases", "allreduce_bytes_per_step", "communication_wait_seconds"}
PHASES = {"gather", "forward", "loss", "backward", "wait", "update", "load"}

# Parameters of lenet_300_100, and of ann_a: its convolutions, dense layers and their biases.
LENET_WEIGHTS, LENET_BIASES = 784 * 300 + 300 * 100 + 100 * 10, 410
CONV, DENSE1, DENSE2, ANN_BIASES = 9 * 32 + 9 * 32 * 32, 4608 * 128, 1280, 32 + 32 + 128 + 10


def words(recipe, *options):
    return ["bench", os.path.join(RECIPES, recipe + ".cfg"), "-s", f"data.dir={MNIST}", *options]


class Measurement(ProgramTest):
    def bench(self, recipe, *options, ranks=1):
        """The object that --json prints, which is all of the output."""
        result = self.run_ok(*words(recipe, "--json", *options), ranks=ranks, cwd=self.directory)
        self.assertEqual(result.err, "")
        self.assertEqual(os.listdir(self.directory), [])
        return json.loads(result.out)

    def test_keys(self):
        figures = self.bench("lenet_300_100", "--steps", "5")
        self.assertEqual(set(figures), KEYS)
        self.assertEqual(set(figures["phases"]), PHASES)
        self.assertEqual((figures["ranks"], figures["threads"]), (1, 1))
        self.assertEqual((figures["backend"], figures["density"]), ("cpu", 1))

    def test_images_per_second_are_of_the_batch(self):
        for batch in (128, 50):
            figures = self.bench("logistic", "--steps", "9", "-s", f"train.batch={batch}")
            self.assertAlmostEqual(
                figures["images_per_second"] * figures["step_seconds"] / batch, 1, delta=1e-9)

    def test_batch_larger_than_the_data(self):
        figures = self.bench("logistic", "--steps", "2", "-s", "data.train_limit=70")
        self.assertAlmostEqual(figures["images_per_second"] * figures["step_seconds"], 70, delta=1e-6)

    def test_phases_add_up_to_the_step(self):
        """Of two steps the median is the mean, and so the sum is exact but for what lies between
        the clocks, where another program may get the core now and then."""
        for _ in range(5):
            figures = self.bench("ann_d", "--steps", "2", "-s", "train.batch=16")
            total = sum(figures["phases"].values())
            self.assertLessEqual(total, figures["step_seconds"])
            # A convolutional network spends its time in the layers.
            layers = figures["phases"]["forward"] + figures["phases"]["backward"]
            if figures["step_seconds"] - total < 1e-4 and layers > 0.5 * total:
                break
        self.assertAlmostEqual(total, figures["step_seconds"], delta=1e-4)
        self.assertEqual(figures["communication_wait_seconds"], figures["phases"]["wait"])
        self.assertGreater(layers, 0.5 * total, figures)

    def test_allreduced_bytes_are_the_parameters(self):
        figures = self.bench("lenet_300_100", "--steps", "1")
        self.assertEqual(figures["allreduce_bytes_per_step"], 4 * 266610)
        self.assertEqual(4 * 266610, 4 * (LENET_WEIGHTS + LENET_BIASES))

    def test_memory_holds_the_images(self):
        """The training set's bytes, 47 MB, and not a machine's worth."""
        peak = self.bench("logistic", "--steps", "1")["peak_rss_bytes"]
        self.assertGreater(peak, 60000 * 784)
        self.assertLess(peak, 2e9)

    def test_density_of_the_whole_network(self):
        """One mask over all layers: lenet_300_100 has prune.scope global."""
        for density in (0.1, 0.015, 1):
            figures = self.bench("lenet_300_100", "--steps", "1", "--density", str(density))
            left = round(density * LENET_WEIGHTS)
            self.assertEqual(figures["allreduce_bytes_per_step"], 4 * (left + LENET_BIASES))
            self.assertAlmostEqual(figures["density"], left / LENET_WEIGHTS, delta=1e-12)

    def test_density_of_each_layer(self):
        """ann_a lists its dense layers alone."""
        figures = self.bench("ann_a", "--steps", "1", "--density", "0.3", "-s", "train.batch=16")
        left = round(0.3 * DENSE1) + round(0.3 * DENSE2) + CONV
        self.assertEqual(figures["allreduce_bytes_per_step"], 4 * (left + ANN_BIASES))
        self.assertAlmostEqual(figures["density"], left / (CONV + DENSE1 + DENSE2), delta=1e-12)

    def test_density_needs_no_schedule(self):
        figures = self.bench("logistic", "--steps", "1", "--density", "0.5", "-s",
                             "prune.layers=[dense1]")
        self.assertEqual(figures["allreduce_bytes_per_step"], 4 * (3920 + 10))

    def test_two_ranks(self):
        figures = self.bench("lenet_300_100", "--steps", "2", "--density", "0.1", ranks=2)
        self.assertEqual(set(figures), KEYS)
        self.assertEqual((figures["ranks"], figures["threads"]), (2, 1))
        self.assertEqual(figures["allreduce_bytes_per_step"],
                         4 * (LENET_WEIGHTS // 10 + LENET_BIASES))
        self.assertAlmostEqual(figures["images_per_second"] * figures["step_seconds"], 128,
                               delta=1e-6)
        self.assertGreater(figures["communication_wait_seconds"], 0)
        self.assertLessEqual(sum(figures["phases"].values()), figures["step_seconds"])

    def test_evaluation(self):
        for ranks in (1, 2):
            figures = self.bench("logistic", "--evaluate", "--steps", "3", "-s",
                                 "data.test_limit=700", ranks=ranks)
            self.assertEqual(set(figures), KEYS - UPDATE_KEYS)
            self.assertEqual(figures["ranks"], ranks)
            self.assertAlmostEqual(figures["images_per_second"] * figures["step_seconds"], 700,
                                   delta=1e-6)


class Text(ProgramTest):
    def test_for_people(self):
        out = self.run_ok(*words("lenet_300_100", "--steps", "3")).out
        self.assertRegex(out, r"^lenet_300_100: \d+ images/s, \d+\.\d+ ms per update of 128 images")
        self.assertRegex(out, r"\n1 rank of 1 thread on cpu, density 1\.0000, peak memory \d+")
        for phase in PHASES:
            self.assertRegex(out, rf"\n{phase} +\d+\.\d+ ms +\d+\.\d %")
        self.assertRegex(out, r"\nall-reduced +1066440 bytes per update\n$")

    def plans(self, ranks):
        """{block: (forward ms, GFLOPS, backward ms, GFLOPS)} of a batch of 32."""
        out = self.run_ok(*words("ann_d", "--plans", "--steps", "1", "-s", "train.batch=32"),
                          ranks=ranks).out
        step = float(re.search(r", (\d+\.\d+) ms per update", out).group(1))
        rows = [line.split() for line in out.split("\nblock ")[1].splitlines()[1:]]
        rows = {row[0]: row for row in rows if len(row) == 9}
        self.assertEqual(list(rows), ["conv1", "conv2", "dense1", "dense2"])
        for row in rows.values():
            self.assertRegex(row[1], r"^[a-z]")
            self.assertRegex(row[4], r"^[a-z]")
            # Times are printed to a microsecond, shares to 0.1 %.
            share = 100 * (float(row[2]) + float(row[5])) / step
            self.assertAlmostEqual(float(row[7]), share, delta=0.051 + (0.1 + 0.0005 * share) / step)
        conv1 = rows.pop("conv1")  # its passes are conv2's matter
        self.assertEqual((conv1[3], conv1[6]), ("-", "-"))
        return {name: [float(row[i]) for i in (2, 3, 5, 6)] for name, row in rows.items()}

    def check_plans(self, ranks):
        """Multiplications and additions of the direct algorithm, forward and backward; conv1 needs
        no input gradient."""
        conv1, conv2, dense1 = 2 * 9 * 32 * 26 * 26, 2 * 9 * 32 * 32 * 24 * 24, 2 * 4608 * 128
        flops = {"conv2": (conv2 + conv1, 2 * conv2 + conv1), "dense1": (dense1, 2 * dense1)}
        rows = self.plans(ranks)
        for name, (forward_work, backward_work) in flops.items():
            forward_ms, forward, backward_ms, backward = rows[name]
            images = 32 / ranks
            # Times are printed to a microsecond, figures to 0.1.
            for ms, rate, work in ((forward_ms, forward, forward_work),
                                   (backward_ms, backward, backward_work)):
                self.assertAlmostEqual(rate * ms, 1e-6 * images * work,
                                       delta=0.06 * (ms + 0.001) + rate * 0.0006, msg=name)

    def test_plans(self):
        self.check_plans(1)

    def test_plans_of_a_rank(self):
        self.check_plans(2)


class Refusal(ProgramTest):
    def refused(self, options, *texts, recipe="lenet_300_100"):
        self.assert_refused(run(*words(recipe, *options)), *texts)

    def test_steps(self):
        for steps in ("0", "-1", "2.5", "many", "", "1000001", "99999999999999999999"):
            self.refused(["--steps", steps], "--steps", f"'{steps}'", "from 1 to 1000000")

    def test_density(self):
        for density in ("0", "-0.1", "1.01", "nan", "half", ""):
            self.refused(["--density", density], "--density", f"'{density}'", "above 0")

    def test_option_without_value(self):
        self.refused(["--steps"], "--steps", "value")

    def test_density_without_layers_to_prune(self):
        self.refused(["--density", "0.5"], "--density", "prune.layers", recipe="ann_d")

    def test_two_kinds_of_output(self):
        self.refused(["--plans", "--json"], "--plans", "--json")
        self.refused(["--plans", "--evaluate"], "--plans", "--evaluate")

    def test_unknown_option(self):
        self.refused(["--step", "5"], "--step", "usage: espalier bench")

    def test_no_recipe(self):
        self.assert_refused(run("bench", "--json"), "bench: no recipe")

    def test_unknown_key(self):
        self.refused(["-s", "train.bach=1"], "train.bach", "train.batch")

    def test_refused_once_on_two_ranks(self):
        self.assert_refused(run(*words("logistic", "--steps", "0"), ranks=2), "--steps")

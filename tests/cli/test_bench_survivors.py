"""tests/bench/survivors.py: that it runs, what is all-reduced at each density, and its table."""

import csv
import json
import os
import subprocess
import sys
import unittest

from program import MNIST, PROGRAM, SOURCE, ProgramTest, environment

BENCH = os.path.join(SOURCE, "tests", "bench")
sys.path.insert(0, BENCH)

import survivors  # noqa: E402

WEIGHTS = {"lenet_300_100": (784 * 300, 300 * 100, 100 * 10),
           "ann_a": (9 * 32, 9 * 32 * 32, 4608 * 128, 1280)}
BIASES = {"lenet_300_100": 410, "ann_a": 32 + 32 + 128 + 10}


def steps(masked, deleted):
    """A round in which every step takes so many milliseconds, and an update a tenth of it."""
    return [{"asked": density, "density": density, "side": side, "step_ms": ms, "update_ms": ms / 10,
             "forward_ms": ms / 2, "backward_ms": ms / 3, "allreduce_bytes": bytes_left}
            for density in survivors.DENSITIES
            for side, ms, bytes_left in (("deleted", deleted * density, round(4000 * density)),
                                         ("masked", masked, 4000))]


class Table(unittest.TestCase):
    def rows(self, part, rounds):
        return survivors.table({part: {"rounds": rounds}}).splitlines()[2:]

    def test_ratios_are_taken_within_a_round(self):
        rounds = [steps(8, 100), steps(6, 60), steps(10, 250)]  # 2 ms, 1.2, 5 deleted at 2 %
        self.assertEqual(self.rows("density_lenet_300_100", rounds), [
            "| `lenet_300_100` at 2 %: step, masked / deleted | 2.00 | 4.00 | 5.00 | at least 4 |",
            "| `lenet_300_100` at 5 %: bytes all-reduced per step, 200 of 4,000 "
            "| 0.0500 | 0.0500 | 0.0500 | 0.05 and biases |",
            "| `lenet_300_100` at 5 %: optimizer's time / unpruned "
            "| 0.050 | 0.050 | 0.050 | below 0.1 |"])

    def test_event_is_the_slowest(self):
        rounds = [{"connections": 1000, "ranks": 2, "event_seconds": [0.001, peak, 0.002],
                   "select_seconds": {"noise": 0.0005, "equal": 0.00075}} for peak in (.004, .003)]
        event, selection = self.rows("event", rounds)
        self.assertIn("| 3.00 | 3.50 | 4.00 | below 10 |", event)
        self.assertIn("| 0.75 | 0.75 | 0.75 | below 3 |", selection)

    def test_whole_run_by_epochs_and_in_all(self):
        def run(*seconds):
            return [{"seconds_train": s} for s in seconds]
        epochs, whole = self.rows("whole_run", [{"ann_a": run(10, 18), "ann_d": run(10, 20)}])
        self.assertIn("| 0.800 | 0.900 | 1.000 |", epochs)
        self.assertIn("18.0 s / 20.0 s | 0.900 | 0.900 | 0.900 | at most 1 |", whole)


class Driver(ProgramTest):
    def drive(self, *options):
        return subprocess.run(
            [sys.executable, "-B", os.path.join(BENCH, "survivors.py"), "--quick", "--build",
             os.path.dirname(PROGRAM), "--data", MNIST, "--out", self.path("out"), *options],
            capture_output=True, text=True, env=environment(), timeout=200)

    def test_measures_both_sides_at_every_density(self):
        for recipe, weights in WEIGHTS.items():
            done = self.drive("--only", f"density_{recipe}")
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(self.path("out", f"density_{recipe}.csv")) as file:
                rows = list(csv.DictReader(file))
            self.assertEqual(len(rows), 16)
            for row in rows:
                density = 1 if row["side"] == "masked" else float(row["asked"])
                left = sum(round(density * count) for count in weights)
                self.assertEqual(int(row["allreduce_bytes"]), 4 * (left + BIASES[recipe]), row)
                self.assertGreater(float(row["step_ms_min"]), 0)
        self.assertIn("`lenet_300_100` at 2 %", done.stdout)  # of the part that was there
        with open(self.path("out", "survivors.md")) as file:
            self.assertEqual(file.read(), done.stdout[:-1])

    def test_the_other_parts(self):
        done = self.drive("--only", "dense_layer", "--only", "event", "--only", "whole_run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("pruning event, 20,000 connections on 2 ranks, slowest of 19", done.stdout)
        if "dense_layer is skipped" not in done.stderr:
            self.assertIn("dense 4608 -> 128 at 5 %, forward and backward, 2 threads", done.stdout)
        self.assertIn("training, `ann_a` / `ann_d`, 2 epochs", done.stdout)
        with open(self.path("out", "survivors-whole_run.json")) as file:
            runs = json.load(file)["rounds"][0]
        self.assertEqual([len(runs["ann_a"]), len(runs["ann_d"])], [2, 2])
        # Results are for the repository: none of this machine's paths.
        for path in (SOURCE, self.directory, os.path.dirname(PROGRAM)):
            self.assertNotIn(path, done.stdout + json.dumps(runs))


if __name__ == "__main__":
    unittest.main()

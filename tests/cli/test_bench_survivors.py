"""tests/bench/density.py: that it runs, and what is all-reduced at each density."""

import csv
import os
import subprocess
import sys
import unittest

from program import MNIST, PROGRAM, SOURCE, ProgramTest, environment

WEIGHTS = {"lenet_300_100": (784 * 300, 300 * 100, 100 * 10),
           "ann_a": (9 * 32, 9 * 32 * 32, 4608 * 128, 1280)}
BIASES = {"lenet_300_100": 410, "ann_a": 32 + 32 + 128 + 10}


class Density(ProgramTest):
    def test_density_measures_both_sides_at_every_density(self):
        out = os.path.join(self.directory, "out")
        done = subprocess.run(
            [sys.executable, "-B", os.path.join(SOURCE, "tests", "bench", "density.py"), "--quick",
             "--build", os.path.dirname(PROGRAM), "--data", MNIST, "--out", out],
            capture_output=True, text=True, env=environment(), timeout=200)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("lenet_300_100 at 2 %: step, masked / deleted", done.stdout)
        for recipe, weights in WEIGHTS.items():
            with open(os.path.join(out, f"density_{recipe}.csv")) as file:
                rows = list(csv.DictReader(file))
            self.assertEqual(len(rows), 16)
            for row in rows:
                density = 1 if row["side"] == "masked" else float(row["asked"])
                left = sum(round(density * count) for count in weights)
                self.assertEqual(int(row["allreduce_bytes"]), 4 * (left + BIASES[recipe]), row)
                self.assertGreater(float(row["step_ms"]), 0)


if __name__ == "__main__":
    unittest.main()

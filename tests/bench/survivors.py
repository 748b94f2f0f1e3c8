#!/usr/bin/env python3
"""Measures what deleted connections save: the training step against density, computed with the
survivors alone where that is faster, and with everything dense and masked (prune.deletion).

Both sides run in turn at every density, several rounds; the figures are those of the fastest round
of each. Writes one CSV for each recipe and a table of ratios. Standard library only.
"""

import argparse
import csv
import json
import os
import sys

from run import SOURCE, Failure, environment, execute, processor, say

DENSITIES = (1, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
RECIPES = {  # name: overrides; every layer that has weights is pruned
    "lenet_300_100": ("prune.scope=layer",),
    "ann_a": ("prune.layers=[conv1,conv2,dense1,dense2]",),
}
SIDES = {"deleted": (), "masked": ("prune.deletion=mask",)}
COLUMNS = ("asked", "density", "side", "step_ms", "forward_ms", "backward_ms", "update_ms",
           "allreduce_bytes", "images_per_second")


class Density:
    def __init__(self, options):
        self.options = options
        self.program = os.path.join(options.build, "espalier")
        self.dense_layer = os.path.join(options.build, "tests", "bench", "sparse_dense")

    def step(self, recipe, density, side):
        """One run of espalier bench, as a row."""
        words = [self.program, "bench", os.path.join("jobs", "recipes", recipe + ".cfg")]
        settings = (f"data.dir={self.options.data}", f"train.threads={self.options.threads}",
                    f"data.train_limit={256 if self.options.quick else 0}")
        for setting in settings + RECIPES[recipe] + SIDES[side]:
            words += ["-s", setting]
        words += ["--density", str(density), "--json", "--steps", str(self.options.steps)]
        found = json.loads(execute(words, environment())[0])
        phases = found["phases"]
        return {"asked": density, "density": round(found["density"], 6), "side": side,
                "step_ms": 1e3 * found["step_seconds"], "forward_ms": 1e3 * phases["forward"],
                "backward_ms": 1e3 * phases["backward"], "update_ms": 1e3 * phases["update"],
                "allreduce_bytes": found["allreduce_bytes_per_step"],
                "images_per_second": found["images_per_second"]}

    def recipe(self, recipe):
        """{(density, side): its row of the fastest round}"""
        best = {}
        for index in range(self.options.rounds):
            for density in DENSITIES:
                for side in SIDES:
                    row = self.step(recipe, density, side)
                    seen = best.setdefault((density, side), row)
                    if row["step_ms"] < seen["step_ms"]:
                        best[density, side] = row
            say(f"round {index + 1}/{self.options.rounds}  {recipe}")
        return best

    def layer(self):
        """The dense layer against OpenBLAS told which processor it is on, where it does not see."""
        with open("/proc/cpuinfo") as file:
            flags = file.read()
        core = "SkylakeX" if "avx512bw" in flags else "Haswell" if "avx2" in flags else None
        rows = []
        for threads in (1, self.options.threads):
            words = [self.dense_layer, "0.05", str(threads), str(5 * self.options.rounds)]
            rows.append(json.loads(execute(words, environment(OPENBLAS_CORETYPE=core))[0]))
        return rows


def write_csv(path, best):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in best.values():
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) and k.endswith("_ms") else
                             f"{v:.0f}" if k == "images_per_second" else v
                             for k, v in row.items()})


def ratio(best, density, column="step_ms"):
    return best[density, "masked"][column] / best[density, "deleted"][column]


def table(measured, layers):
    """Markdown of what the figures come to."""
    lines = ["| what | figure | goal |", "|---|--:|---|"]
    lenet, ann = measured["lenet_300_100"], measured["ann_a"]
    lines.append(f"| lenet_300_100 at 2 %: step, masked / deleted | {ratio(lenet, 0.02):.2f} | "
                 "at least 4 |")
    lines.append(f"| ann_a, all layers at 10 %: step, masked / deleted | {ratio(ann, 0.1):.2f} | "
                 "at least 1.3 |")
    for row in layers:
        factor = row["openblas_seconds"] / row["sparse_seconds"]
        lines.append(f"| dense 4608 -> 128 at 5 %, forward and backward, {row['threads']} "
                     f"thread(s): OpenBLAS ({row['openblas_core']}) / sparse | {factor:.2f} | "
                     "at least 5 |")
    for name, best in measured.items():
        dense, sparse = best[1, "deleted"], best[0.05, "deleted"]
        part = sparse["allreduce_bytes"] / dense["allreduce_bytes"]
        lines.append(f"| {name} at 5 %: bytes all-reduced / unpruned | {part:.4f} | "
                     "0.05 and biases |")
        part = sparse["update_ms"] / dense["update_ms"]
        lines.append(f"| {name} at 5 %: update / unpruned | {part:.3f} | below 0.1 |")
    return "\n".join(lines) + "\n"


def read_options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="one round of few steps: does everything run? Figures mean nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", default=os.path.join(SOURCE, "build"))
    parser.add_argument("--data", default=os.path.join(SOURCE, "data", "mnist"))
    parser.add_argument("--out", default=os.path.join(SOURCE, "results", "bench"))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 1, 2
    for name in ("out", "build", "data"):
        setattr(options, name, os.path.abspath(getattr(options, name)))
    return options


def main():
    options = read_options()
    density = Density(options)
    measured = {recipe: density.recipe(recipe) for recipe in RECIPES}
    layers = density.layer() if os.access(density.dense_layer, os.X_OK) else []
    os.makedirs(options.out, exist_ok=True)
    for recipe, best in measured.items():
        write_csv(os.path.join(options.out, f"density_{recipe}.csv"), best)
    text = (f"# Step time against density\n\nWritten by `tests/bench/density.py --rounds "
            f"{options.rounds} --steps {options.steps} --threads {options.threads}` on "
            f"{processor()}, {options.threads} threads. Masked and deleted ran in turn; each "
            "figure is of the fastest of the rounds.\n\n" + table(measured, layers))
    with open(os.path.join(options.out, "density.md"), "w") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        say(f"density.py: {failure}")
        sys.exit(1)

#!/usr/bin/env python3
"""Measures what deleted connections save: tests/bench/run.sh survivors. Standard library only.

Two sides run in turn, several rounds, and ratios are taken within a round. Each part leaves one JSON
file with everything that was measured; survivors.md is the table of all parts in the directory, so
that they can be measured one after the other. Each recipe leaves a CSV of the step against density.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import sys
import tempfile

from run import (SOURCE, Failure, absolute_places, add_places, environment, execute, machine, say)
from table import row

DENSITIES = (1, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
RECIPES = {  # name: overrides; every layer that has weights is pruned
    "lenet_300_100": ("prune.scope=layer",),
    "ann_a": ("prune.layers=[conv1,conv2,dense1,dense2]",),
}
SIDES = {"deleted": (), "masked": ("prune.deletion=mask",)}
PHASES = ("forward", "backward", "update", "load")
CONNECTIONS, EVENT_RANKS = 1200000, 2
NEEDS = {"dense_layer": "OpenBLAS (Debian: libopenblas-dev)", "event": "mpirun"}
WHOLE_RUN, CONTROL = "ann_a", "ann_d"


class Survivors:
    def __init__(self, options):
        self.options = options
        self.program = os.path.join(options.build, "espalier")

    def tool(self, name):
        return os.path.join(self.options.build, "tests", "bench", name)

    def words(self, command, recipe, *settings):
        """One of the program's commands on a recipe and its settings."""
        words = [self.program, command, os.path.join("jobs", "recipes", recipe + ".cfg")]
        settings += (f"data.dir={self.options.data}", f"train.threads={self.options.threads}")
        settings += ("data.train_limit=256", "data.test_limit=100") if self.options.quick else ()
        return words + [word for setting in settings for word in ("-s", setting)]

    def can_measure(self, part):
        """Whether what the part is compared with, or runs under, is there."""
        return {"dense_layer": os.access(self.tool("sparse_dense"), os.X_OK),
                "event": shutil.which("mpirun") is not None}.get(part, True)

    # ---- the parts: each a function of the round's index, which returns what it measured ----

    def step(self, recipe, density, side):
        words = self.words("bench", recipe, *RECIPES[recipe], *SIDES[side])
        words += ["--density", str(density), "--json", "--steps", str(self.options.steps)]
        found = json.loads(execute(words, environment())[0])
        return {"asked": density, "density": found["density"], "side": side,
                "step_ms": 1e3 * found["step_seconds"],
                **{f"{phase}_ms": 1e3 * found["phases"][phase] for phase in PHASES},
                "allreduce_bytes": found["allreduce_bytes_per_step"]}

    def steps(self, recipe):
        """Every density, masked and deleted; the side that goes first changes with the round."""
        return lambda index: [self.step(recipe, density, side) for density in DENSITIES
                              for side in sorted(SIDES, reverse=index % 2 == 1)]

    def layer(self, _index):
        """The dense layer against OpenBLAS told which processor it is on, where it does not see."""
        with open("/proc/cpuinfo") as file:
            flags = file.read()
        core = "SkylakeX" if "avx512bw" in flags else "Haswell" if "avx2" in flags else None
        words = [self.tool("sparse_dense"), "0.05"]
        passes = "1" if self.options.quick else "10"
        return [json.loads(execute([*words, str(threads), passes],
                                   environment(OPENBLAS_CORETYPE=core))[0])
                for threads in (1, self.options.threads)]

    def event(self, _index):
        launch = ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", str(EVENT_RANKS)]
        words = [self.tool("pruning"), str(20000 if self.options.quick else CONNECTIONS)]
        return json.loads(execute(launch + words, environment())[0])

    def whole_run(self, _index):
        """Both networks, an epoch of each in turn: what one epoch leaves, the next goes on from."""
        epochs = 2 if self.options.quick else self.options.epochs
        found = {}
        with tempfile.TemporaryDirectory() as directory:
            for epoch in range(1, epochs + 1):
                for recipe in (WHOLE_RUN, CONTROL):
                    run_dir = os.path.join(directory, recipe)
                    execute([*self.words("train", recipe, f"train.epochs={epoch}"), "--quiet",
                             "--resume", "-o", run_dir], environment())
                    with open(os.path.join(run_dir, "summary.json")) as file:
                        ended = json.load(file)
                    found.setdefault(recipe, []).append(
                        {"seconds_train": ended["seconds_train"], "survivors": ended["survivors"],
                         "test_accuracy": ended["test_accuracy"]})
                say(f"epoch {epoch}/{epochs}  " + "  ".join(
                    f"{recipe} {runs[-1]['seconds_train']:.1f} s" for recipe, runs in found.items()))
        return found

    def parts(self):
        """{name: (function of the round's index, rounds)}"""
        rounds = self.options.rounds
        parts = {f"density_{recipe}": (self.steps(recipe), rounds) for recipe in RECIPES}
        return {**parts, "dense_layer": (self.layer, rounds), "event": (self.event, rounds),
                "whole_run": (self.whole_run, 1)}


# ---- what the figures come to ----

def summarised(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def write_csv(path, rounds):
    """A line for each density and side: the step over the rounds, its phases' medians."""
    columns = ["density", "asked", "side", "step_ms_min", "step_ms_median", "step_ms_max",
               *(f"{phase}_ms" for phase in PHASES), "allreduce_bytes"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for density in DENSITIES:
            for side in SIDES:
                rows = [pick(r, density, side) for r in rounds]
                line = {f"step_ms_{name}": f"{value:.4f}" for name, value in
                        summarised([r["step_ms"] for r in rows]).items()}
                line.update({f"{phase}_ms": format(statistics.median(
                    r[f"{phase}_ms"] for r in rows), ".4f") for phase in PHASES})
                writer.writerow({"density": round(rows[0]["density"], 6), "asked": density,
                                 "side": side, **line,
                                 "allreduce_bytes": rows[0]["allreduce_bytes"]})


def pick(a_round, density, side):
    return next(r for r in a_round if (r["asked"], r["side"]) == (density, side))


def ratios(rounds, column, over, under):
    """In each round: `column` of one (density, side) over that of another."""
    return [pick(r, *over)[column] / pick(r, *under)[column] for r in rounds]


def speedup(rounds, density):
    return ratios(rounds, "step_ms", (density, "masked"), (density, "deleted"))


def of_five_percent(rounds, column):
    return ratios(rounds, column, (0.05, "deleted"), (1, "deleted"))


def density_lines(recipe, rounds, *speedups):
    """Rows of one recipe; `speedups` are (density, words, goal)."""
    first = rounds[0]
    bytes_left = pick(first, 0.05, "deleted")["allreduce_bytes"]
    bytes_all = pick(first, 1, "deleted")["allreduce_bytes"]
    lines = [row(f"`{recipe}` {words}: step, masked / deleted", speedup(rounds, density), ".2f",
                 goal) for density, words, goal in speedups]
    lines.append(row(f"`{recipe}` at 5 %: bytes all-reduced per step, {bytes_left:,} of "
                     f"{bytes_all:,}", of_five_percent(rounds, "allreduce_bytes"), ".4f",
                     "0.05 and biases"))
    lines.append(row(f"`{recipe}` at 5 %: optimizer's time / unpruned",
                     of_five_percent(rounds, "update_ms"), ".3f", "below 0.1"))
    return lines


def layer_lines(rounds):
    lines = []
    for index, first in enumerate(rounds[0]):
        values = [r[index]["openblas_seconds"] / r[index]["sparse_seconds"] for r in rounds]
        lines.append(row(f"dense 4608 -> 128 at 5 %, forward and backward, {first['threads']} "
                         f"thread{'s' if first['threads'] > 1 else ''}: OpenBLAS "
                         f"({first['openblas_core']}) / sparse", values, ".2f", "at least 5"))
    return lines


def event_lines(rounds):
    first = rounds[0]
    slowest = [1e3 * max(r["event_seconds"]) for r in rounds]
    selects = [1e3 * max(r["select_seconds"].values()) for r in rounds]
    return [row(f"pruning event, {first['connections']:,} connections on {first['ranks']} ranks, "
                f"slowest of {len(first['event_seconds'])}: ms", slowest, ".2f", "below 10"),
            row(f"selection, {first['connections']:,} connections on one core, slowest of "
                f"{len(first['select_seconds'])} inputs: ms", selects, ".2f", "below 3")]


def whole_run_lines(rounds):
    """The parts of the epochs, and the whole, which is what the goal speaks of."""
    ours, control = rounds[0][WHOLE_RUN], rounds[0][CONTROL]
    epochs = [[b["seconds_train"] - a["seconds_train"] for a, b in zip([{"seconds_train": 0}] + run,
                                                                       run)]
              for run in (ours, control)]
    seconds = ours[-1]["seconds_train"], control[-1]["seconds_train"]
    return [row(f"training, `{WHOLE_RUN}` / `{CONTROL}`, each epoch of {len(ours)}",
                [a / b for a, b in zip(*epochs)], ".3f", ""),
            row(f"training, `{WHOLE_RUN}` / `{CONTROL}`, {len(ours)} epochs: {seconds[0]:.1f} s / "
                f"{seconds[1]:.1f} s", [seconds[0] / seconds[1]], ".3f", "at most 1")]


LINES = {
    "density_lenet_300_100": lambda rounds: density_lines(
        "lenet_300_100", rounds, (0.02, "at 2 %", "at least 4")),
    "density_ann_a": lambda rounds: density_lines(
        "ann_a", rounds, (0.1, "with all four layers at 10 %", "at least 1.3")),
    "dense_layer": layer_lines, "event": event_lines, "whole_run": whole_run_lines,
}
PARTS = tuple(LINES)


def table(measured):
    """Markdown of {part: rounds}."""
    lines = ["| what | min | median | max | goal |", "|---|--:|--:|--:|---|"]
    for part in PARTS:
        if part in measured:
            lines += LINES[part](measured[part]["rounds"])
    return "\n".join(lines) + "\n"


def density_table(recipe, rounds):
    lines = [f"### `{recipe}`: step, masked / deleted", "",
             "| part left | masked, ms | deleted, ms | min | median | max |",
             "|--:|--:|--:|--:|--:|--:|"]
    for density in DENSITIES:
        medians = [statistics.median(pick(r, density, side)["step_ms"] for r in rounds)
                   for side in ("masked", "deleted")]
        lines.append(row(f"{density:g} | " + " | ".join(f"{m:.3f}" for m in medians),
                         speedup(rounds, density), ".2f"))
    return "\n".join(lines) + "\n"


def page(measured):
    """survivors.md."""
    machines = [part["machine"] for part in measured.values()]
    parts = []
    for m in [m for i, m in enumerate(machines) if m not in machines[:i]]:
        names = [name for name in PARTS if name in measured and measured[name]["machine"] == m]
        parts.append(f"{', '.join(names)}: {m['processor']}, {m['cores']} cores, {m['compiler']}.")
    commands = [measured[name]["command"] for name in PARTS if name in measured]
    commands = "\n".join(dict.fromkeys(commands))
    text = (f"# What deleted connections save\n\nWritten by\n\n```sh\n{commands}\n```\n\n"
            "\"Masked\" is `prune.deletion = \"mask\"`: the same connections pruned, everything "
            "computed and stored dense. Both sides ran in turn in each round; a step is the median "
            "of its run, ratios are taken within a round, and min, median and max are over the "
            "rounds. The pruning event is timed from the end of an update to the beginning of the "
            "next on the slowest rank (`tests/bench/pruning.c`); the whole runs were trained an "
            "epoch of each in turn.\n\nMeasured on\n\n"
            + "".join(f"- {line}\n" for line in parts) + "\n" + table(measured))
    for recipe in RECIPES:
        if f"density_{recipe}" in measured:
            text += "\n" + density_table(recipe, measured[f"density_{recipe}"]["rounds"])
    return text


# ---- files ----

def path_of(options, part):
    return os.path.join(options.out, f"survivors-{part}.json")


def write_results(options):
    measured = {}
    for part in PARTS:
        if os.path.exists(path_of(options, part)):
            with open(path_of(options, part)) as file:
                measured[part] = json.load(file)
    for recipe in RECIPES:
        if f"density_{recipe}" in measured:
            write_csv(os.path.join(options.out, f"density_{recipe}.csv"),
                      measured[f"density_{recipe}"]["rounds"])
    text = page(measured)
    with open(os.path.join(options.out, "survivors.md"), "w") as file:
        file.write(text)
    return text


def command(options):
    words = ["tests/bench/run.sh", "survivors"]
    for name in ("rounds", "steps", "threads", "epochs"):
        words += [f"--{name}", str(getattr(options, name))]
    return " ".join(words + (["--quick"] if options.quick else []))


def read_options():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh survivors", description=(
        "Measures what deleted connections save: the training step against density, deleted and "
        "masked; the sparse dense layer against OpenBLAS; the pruning event; ann_a against ann_d."))
    parser.add_argument("--quick", action="store_true",
                        help="one round of few steps: does everything run? Figures mean nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="measured updates of a run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12, help="of the whole runs")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART",
                        help=f"one of {', '.join(PARTS)}; may be repeated")
    add_places(parser)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 1, 2
    absolute_places(options)
    return options


def main():
    options = read_options()
    survivors = Survivors(options)
    os.makedirs(options.out, exist_ok=True)
    for part, (measure, rounds) in survivors.parts().items():
        if options.only is not None and part not in options.only:
            continue
        if not survivors.can_measure(part):
            say(f"{part} is skipped: {NEEDS[part]} is missing")
            continue
        found = []
        for index in range(rounds):
            found.append(measure(index))
            say(f"{part}: round {index + 1} of {rounds}")
        with open(path_of(options, part), "w") as file:
            json.dump({"part": part, "command": command(options),
                       "machine": machine(survivors.program), "rounds": found}, file, indent=1)
            file.write("\n")
    print(write_results(options))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        say(f"survivors.py: {failure}")
        sys.exit(1)

"""From measured rounds to figures, and from figures to the tables of results/bench/README.md.

A round of a case is {"fma_peak_gflops": float, "runs": {setting: what the program printed}}, with
settings named "espalier ..." and "PyTorch ...". Ratios are taken within a round, where both sides
ran within minutes of each other, and only then compared across rounds.
"""

import statistics
from dataclasses import dataclass


AS_IT_COMES = "PyTorch as it comes"  # settings in which nothing was chosen in its favour


@dataclass(frozen=True)
class Case:
    """One thing to be measured: a recipe's training step, or its evaluation."""

    name: str
    title: str
    recipe: str
    steps: int  # measured updates, or passes over the test set
    isa: str = ""  # the instruction set that both sides are held to
    overrides: tuple = ()
    network: str = ""  # what tests/peers/torch_mnist.py calls it
    filters: int = 32
    evaluates: bool = False
    goals: tuple = ()  # (figure of `ratios`, what it should be), printed beside it


def direct_flops(case):
    """Floating-point operations for one image by the direct algorithms: forward; when training, the
    gradients of weights and of inputs as well, except that no input gradient of the first layer."""
    if case.network == "lenet_300_100":
        layers = [784 * 300, 300 * 100, 100 * 10]
    else:
        layers = [26 * 26 * 9 * 32, 24 * 24 * 9 * 32 * case.filters,
                  12 * 12 * case.filters * 128, 128 * 10]
    forward = 2 * sum(layers)
    return forward if case.evaluates else 3 * forward - 2 * layers[0]


def rate(rounds, setting):
    """Images per second of a setting in each round that has it."""
    return [r["runs"][setting]["images_per_second"] for r in rounds if setting in r["runs"]]


def settings(rounds, program):
    """The program's settings, in the order in which they were run first."""
    names = [name for r in rounds for name in r["runs"] if name.startswith(program)]
    return list(dict.fromkeys(names))


def fastest_settings(rounds, program, count):
    """The program's settings that were fastest in the first round; none before it."""
    runs = {name: run["images_per_second"] for r in rounds[:1] for name, run in r["runs"].items()
            if name.startswith(program)}
    return sorted(runs, key=runs.get, reverse=True)[:count]


def best(a_round, program):
    """The speed of the program's fastest setting in a round; None when it was not run."""
    return max((run["images_per_second"] for name, run in a_round["runs"].items()
                if name.startswith(program)), default=None)


def ratios(case, rounds):
    """{figure: values by round}, for the settings of espalier that each round has."""
    figures = {}

    def add(name, value):
        if value is not None:
            figures.setdefault(name, []).append(value)

    for r in rounds:
        peers = {"PyTorch's best": best(r, "PyTorch"), AS_IT_COMES: best(r, AS_IT_COMES)}
        ours = {name: run for name, run in r["runs"].items() if name.startswith("espalier")}
        for name, run in ours.items():
            speed = run["images_per_second"]
            for peer, their_speed in peers.items():
                add(f"{name} / {peer}", speed / their_speed if their_speed else None)
            gflops = 1e-9 * speed * direct_flops(case)
            add(f"{name}: direct FLOPs per second / FMA peak", gflops / r["fma_peak_gflops"])
            if run["ranks"] > 1 and "communication_wait_seconds" in run:
                add(f"{name}: waiting for communication, part of the step",
                    run["communication_wait_seconds"] / sum(run["phases"].values()))
        one, many = "espalier 1 rank x 2 threads", "espalier 2 ranks x 1 thread"
        if one in ours and many in ours:
            add("2 ranks x 1 thread / 1 rank x 2 threads",
                ours[many]["images_per_second"] / ours[one]["images_per_second"])
        if "epoch" in r and one in ours:
            add("images/s of a whole epoch of `espalier train` / bench",
                r["epoch"]["images_per_second"] / ours[one]["images_per_second"])
            add("peak memory of `espalier train`, MB", 1e-6 * r["epoch"]["peak_rss_bytes"])
        if one in ours and not case.evaluates:
            add("peak memory of 1 rank, MB", 1e-6 * ours[one]["peak_rss_bytes"])
    return figures


def row(name, values, form, goal=None):
    cells = [name] + [format(f(values), form) for f in (min, statistics.median, max)]
    return "| " + " | ".join(cells + ([] if goal is None else [goal])) + " |"


def number_format(name):
    return ".1f" if name.endswith("MB") else ".3f"


def case_tables(case, rounds):
    """Markdown: images per second by setting, then the ratios."""
    lines = [f"### {case.title}{', ' + case.isa if case.isa else ''}", "", "| images/s | min | median | max |", "|---|--:|--:|--:|"]
    for program in ("espalier", "PyTorch"):
        lines += [row(name, rate(rounds, name), ",.0f") for name in settings(rounds, program)]
    lines.append(row("FMA peak, GFLOPS", [r["fma_peak_gflops"] for r in rounds], ",.1f"))
    lines += ["", "| figure | min | median | max | goal |", "|---|--:|--:|--:|---|"]
    goals = dict(case.goals)
    lines += [row(name, values, number_format(name), goals.get(name, ""))
              for name, values in ratios(case, rounds).items()]
    return "\n".join(lines) + "\n"


def compare(rounds, peer):
    """Cells: the peer's speed by its best setting, and ours over it, medians over the rounds."""
    pairs = [(best(r, "espalier"), best(r, peer)) for r in rounds]
    if any(theirs is None for _, theirs in pairs):
        return " | "
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return f"{statistics.median(theirs for _, theirs in pairs):,.0f} | {ratio:.1f}"


def summary(measured):
    """Markdown: each case in a line, both sides by their best setting, medians over the rounds."""
    lines = [f"| images/s | instruction set | espalier | PyTorch | ratio | {AS_IT_COMES} | ratio |",
             "|---|---|--:|--:|--:|--:|--:|"]
    for case, rounds in measured:
        if any(best(r, "PyTorch") is None for r in rounds):
            continue
        ours = statistics.median(best(r, "espalier") for r in rounds)
        cells = " | ".join(compare(rounds, peer) for peer in ("PyTorch", AS_IT_COMES))
        lines.append(f"| {case.title} | {case.isa} | {ours:,.0f} | {cells} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def readme(machine, command, measured):
    """The whole of README.md; `measured` is [(case, rounds)]."""
    rounds = max(len(r) for _, r in measured)
    lines = ["# Benchmarks", "", "Written by", "", "```sh", command, "```", "",
             f"Each case was run {rounds} time{'s' if rounds > 1 else ''}, setting after setting, the "
             "order reversed from one round to the next; of PyTorch's settings the first round has "
             "all, the others the fastest of the first. Both sides are held to the instruction set "
             "that a table names (`HELD_TO` in `tests/bench/run.py`). Ratios are taken within a round, "
             "against the setting in which PyTorch was fastest in that round; min, median and max "
             "are over the rounds. A step is the median of the measured steps, after a warm-up. "
             "`tests/peers/torch_mnist.py` says what was chosen in PyTorch's favour; \"as it comes\" "
             "nothing was, as in a first program. Its processes "
             "train by DistributedDataParallel. The FMA peak "
             "is what 2 threads reached right before or after with that set "
             "(`tests/bench/fma_peak.c`); above 1, "
             "the fraction of it that the direct algorithms' FLOPs would need says that no direct "
             "convolution could be as fast.", "", "| machine | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in machine.items()]
    overview = summary(measured)
    return "\n".join(lines) + "\n\n" + (overview + "\n" if overview else "") + "\n".join(
        case_tables(c, r) for c, r in measured)

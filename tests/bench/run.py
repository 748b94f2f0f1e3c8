#!/usr/bin/env python3
"""Runs espalier and PyTorch in turn on the same work and compares them; see --help of run.sh.

Standard library only. Progress goes to stderr, the tables to stdout; --out gets one JSON file for
each case with everything that was measured, and README.md with the tables.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace

from table import AS_IT_COMES, Case, case_tables, fastest_settings, readme

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEER = os.path.join(SOURCE, "tests", "peers", "torch_mnist.py")
THREADS = 2  # cores that either side gets
ROUNDS = 3
FASTEST = 2  # settings of PyTorch that later rounds repeat, with the fastest as it comes
WARM_UP, EVALUATION_WARM_UP = 20, 2  # steps; espalier bench's own
RUN_SECONDS = 900  # after which a run is given up

ONE_RANK, TWO_RANKS = "espalier 1 rank x 2 threads", "espalier 2 ranks x 1 thread"
OURS = {ONE_RANK: (1, 2), TWO_RANKS: (2, 1)}
EPOCH = "images/s of a whole epoch of `espalier train` / bench"
PEERS = {
    f"{program} {label}, OPENBLAS_NUM_THREADS {blas or 'unset'}": (ranks, threads, blas, chosen)
    for program, chosen in (("PyTorch", ()), (AS_IT_COMES + ",", ("--as-it-comes",)))
    for label, ranks, threads in (("1 thread", 1, 1), ("2 threads", 1, 2),
                                  ("2 processes x 1 thread", 2, 1))
    for blas in ("1", None)
}


# What holds a program to an instruction set. Left alone, both sides take the best that they find.
HELD_TO = {
    "avx512": {"ESPALIER_ISA": "avx512"},
    "avx2": {"ESPALIER_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2",
             "ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell"},
    "baseline": {"ESPALIER_ISA": "baseline", "ONEDNN_MAX_CPU_ISA": "SSE41",
                 "DNNL_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default",
                 "OPENBLAS_CORETYPE": "Prescott"},
}
NEEDS = {"avx512": {"avx512f", "avx512vl", "avx512bw", "avx512dq", "avx2", "fma", "bmi2"},
         "avx2": {"avx2", "fma", "bmi2"}, "baseline": set()}


def step_goals(ratio, *more):
    return tuple((f"{name} / {peer}", f"at least {ratio}") for name in OURS
                 for peer in ("PyTorch's best", AS_IT_COMES)) + more


CASES = (
    Case("ann_d", "ann_d, training", "ann_d", 60, network="ann_d", goals=step_goals(
        6.5,
        (f"{ONE_RANK}: direct FLOPs per second / FMA peak", "at least 1.6"),
        (f"{TWO_RANKS}: waiting for communication, part of the step", "below 0.03"),
        ("2 ranks x 1 thread / 1 rank x 2 threads", "at least 0.95"),
        (EPOCH, "0.95 to 1.05"), ("peak memory of 1 rank, MB", "at most 250"))),
    Case("ann_d_64", "ann_d with 64 filters in the second convolution, training", "ann_d", 60,
         overrides=("network.conv2.filters=64",), network="ann_d", filters=64,
         goals=step_goals(6)),
    Case("lenet_300_100", "lenet_300_100, training", "lenet_300_100", 300,
         network="lenet_300_100", goals=step_goals(3)),
    Case("evaluate_ann_d", "ann_d, evaluation of the 10,000 test images", "ann_d", 5,
         network="ann_d", evaluates=True, goals=step_goals(6)),
)


class Failure(Exception):
    """Something that ends the benchmark, or one peer's run, with a message."""


def say(text, end="\n"):
    print(text, end=end, file=sys.stderr, flush=True)


def environment(**settings):
    """What all runs have in common: the user's, without what would set threads or algorithms."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("ESPALIER_", "OMP_", "OPENBLAS_", "GOMP_", "ONEDNN_", "DNNL_",
                                  "ATEN_"))}
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    env.update({key: value for key, value in settings.items() if value is not None})
    return env


def execute(words, env, cwd=SOURCE):
    """Run to the end; (standard output, peak memory in bytes of the process itself)."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env,
                                   cwd=cwd, start_new_session=True)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
        signal.alarm(RUN_SECONDS)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            signal.alarm(0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode != 0:
            lines = err.read().strip().splitlines() or ["no message"]
            told = [line for line in lines if line.startswith("espalier: ")] or lines[-1:]
            raise Failure(f"exit code {process.returncode}: {told[0]}")
        return out.read(), 1024 * usage.ru_maxrss


def version(*words):
    """The first line that a program prints; None when it is not there."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout.strip().splitlines() or [None])[0] if done.returncode == 0 else None


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file
                        if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def available_sets():
    """Instruction sets of this machine, best first."""
    flags = set()
    try:
        with open("/proc/cpuinfo") as file:
            flags = set(next(line for line in file if line.startswith("flags")).split())
    except (OSError, StopIteration):
        pass
    return [isa for isa, needs in NEEDS.items() if needs <= flags]


def machine(program):
    """What a reader of the figures has to know of this machine."""
    found = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "espalier": version(program, "--version"),
        "compiler": version("cc", "--version"),
        "OpenBLAS": version("pkg-config", "--modversion", "openblas"),
        "MPI": version("mpirun", "--version"),
    }
    return {key: value for key, value in found.items() if value is not None}


def add_places(parser):
    """Options for where things are; absolute_places completes them."""
    parser.add_argument("--out", help="directory of the results (default: results/bench, with "
                        "--quick results/runs/bench-quick)")
    parser.add_argument("--build", default=os.path.join(SOURCE, "build"),
                        help="directory of the build (default: build)")
    parser.add_argument("--data", default=os.path.join(SOURCE, "data", "mnist"),
                        help="directory of MNIST (default: data/mnist)")


def absolute_places(options):
    """Results of a quick run go where they are not taken for figures."""
    options.out = options.out or os.path.join(
        SOURCE, "results", *(("runs", "bench-quick") if options.quick else ("bench",)))
    for name in ("out", "build", "data"):
        setattr(options, name, os.path.abspath(getattr(options, name)))


class Bench:
    def __init__(self, options):
        self.options = options
        self.program = os.path.join(options.build, "espalier")
        for path in (self.program, *map(self.fma_peak, options.isa)):
            if not os.access(path, os.X_OK):
                raise Failure(f"{path} is missing; tests/bench/run.sh builds it")
        self.has_ranks = shutil.which("mpirun") is not None
        if not self.has_ranks:
            say("mpirun is missing: 2 ranks are skipped")
        self.torch = None if options.no_peer else find_torch()
        if self.torch is None and not options.no_peer:
            say("PyTorch is missing (Debian: python3-torch): its side is skipped")

    def fma_peak(self, isa):
        return os.path.join(self.options.build, "tests", "bench", f"fma_peak_{isa}")

    # ---- what is run ----

    def steps(self, case):
        return max(1, case.steps // 12) if self.options.quick else case.steps

    def recipe_words(self, case, threads):
        words = [os.path.join("jobs", "recipes", case.recipe + ".cfg"), "-s",
                 f"data.dir={self.options.data}", "-s", f"train.threads={threads}"]
        return words + [word for override in case.overrides for word in ("-s", override)]

    def measure_ours(self, case, ranks, threads):
        words = [self.program, "bench", *self.recipe_words(case, threads), "--json", "--steps",
                 str(self.steps(case))]
        words += ["--evaluate"] if case.evaluates else []
        launch = ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", str(ranks)]
        env = environment(**HELD_TO[case.isa])
        return json.loads(execute((launch if ranks > 1 else []) + words, env)[0])

    def measure_peer(self, case, ranks, threads, blas, chosen):
        warm_up = EVALUATION_WARM_UP if case.evaluates else WARM_UP
        words = [self.torch, PEER, "--data", self.options.data, "--network", case.network,
                 "--filters", str(case.filters), "--threads", str(threads), "--ranks", str(ranks),
                 "--steps", str(self.steps(case)), "--warm-up",
                 str(1 if self.options.quick else warm_up)]
        words += ["--evaluate", *chosen] if case.evaluates else chosen
        env = environment(**HELD_TO[case.isa], OPENBLAS_NUM_THREADS=blas)
        return json.loads(execute(words, env)[0])

    def measure_epoch(self, case):
        """A whole epoch of training, evaluation left out by espalier itself; 40 updates if quick."""
        limit = ["-s", "train.steps=40"] if self.options.quick else []
        with tempfile.TemporaryDirectory() as directory:
            run_dir = os.path.join(directory, "run")
            _, peak = execute([self.program, "train", *self.recipe_words(case, THREADS), "-s",
                               "train.epochs=1", *limit, "--quiet", "-o", run_dir],
                              environment(**HELD_TO[case.isa]))
            with open(os.path.join(run_dir, "summary.json")) as file:
                speed = json.load(file)["images_per_second"]
        return {"images_per_second": speed, "peak_rss_bytes": peak}

    def measure_peak(self, case):
        words = [self.fma_peak(case.isa), str(THREADS)]
        return json.loads(execute(words, environment())[0])["gflops"]

    # ---- rounds ----

    def runs(self, case, earlier):
        """[(setting, function)] of a round: all, and once there are some, PyTorch's fastest."""
        found = [(name, lambda s=setting: self.measure_ours(case, *s))
                 for name, setting in OURS.items() if setting[0] == 1 or self.has_ranks]
        if self.torch is not None:
            chosen = (fastest_settings(earlier, "PyTorch", FASTEST) +
                      fastest_settings(earlier, AS_IT_COMES, 1)) or PEERS
            found += [(name, lambda s=setting: self.measure_peer(case, *s))
                      for name, setting in PEERS.items() if name in chosen]
        return found

    def round(self, case, earlier):
        """A setting of PyTorch that fails is left out; espalier may not fail."""
        index = len(earlier)
        result, peaks = {"runs": {}}, [self.measure_peak(case)]
        runs = self.runs(case, earlier)
        for name, measure in runs if index % 2 == 0 else reversed(runs):
            say(f"round {index + 1}/{self.options.rounds}  {case.name} {case.isa}  {name}  ", end="")
            try:
                result["runs"][name] = measure()
                say(f"{result['runs'][name]['images_per_second']:,.0f} images/s")
            except Failure as failure:
                say("failed")
                if name in OURS:
                    raise
                say(f"  {failure}")
        if EPOCH in dict(case.goals):
            result["epoch"] = self.measure_epoch(case)
            say(f"round {index + 1}/{self.options.rounds}  {case.name} {case.isa}  an epoch of training  "
                f"{result['epoch']['images_per_second']:,.0f} images/s")
        result["fma_peak_gflops"] = max(*peaks, self.measure_peak(case))
        return result

    def machine(self, measured):
        peers = [run for _, rounds in measured for r in rounds for name, run in r["runs"].items()
                 if name in PEERS]
        found = machine(self.program)
        found["PyTorch"] = peers[0]["torch"] if peers else "not compared"
        if peers and peers[0]["openblas_coretype"] is not None:
            found["PyTorch's OPENBLAS_CORETYPE"] = peers[0]["openblas_coretype"]
        return found


def find_torch():
    """A Python that has torch: $TORCH_PYTHON, this one, the system's."""
    for python in (os.environ.get("TORCH_PYTHON"), sys.executable, "/usr/bin/python3"):
        if python and shutil.which(python) and subprocess.run(
                [python, "-c", "import torch"], capture_output=True).returncode == 0:
            return python
    return None


def write_results(options, machine, measured):
    os.makedirs(options.out, exist_ok=True)
    for case, rounds in measured:
        with open(os.path.join(options.out, f"{case.name}-{case.isa}.json"), "w") as file:
            json.dump({"case": case.name, "instruction_set": case.isa, "machine": machine,
                       "rounds": rounds}, file, indent=1)
            file.write("\n")
    command = ["tests/bench/run.sh"] + [w for c in options.only or () for w in ("--only", c)]
    command += [w for isa in options.named for w in ("--isa", isa)]
    command += ["--no-peer"] if options.no_peer else []
    command += ["--quick"] if options.quick else []
    command += ["--rounds", str(options.rounds)] if options.rounds != ROUNDS else []
    with open(os.path.join(options.out, "README.md"), "w") as file:
        file.write(readme(machine, " ".join(command), measured))


def read_options():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh", description=(
        "Builds espalier, and compares it with PyTorch: training of ann_d (32 and 64 filters) and "
        "of lenet_300_100, evaluation; every setting in turn, several rounds. Of PyTorch's settings "
        f"the first round takes all, the others the {FASTEST} that were fastest in it, and the fastest "
        "of those in which nothing was chosen in its favour."))
    parser.add_argument("--quick", action="store_true",
                        help="one round of few steps: does everything run? Figures mean nothing")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, with --quick 1")
    parser.add_argument("--isa", action="append", choices=HELD_TO, metavar="SET",
                        help="hold both sides to an instruction set: avx512, avx2 or baseline; may "
                        "be repeated (default: the best that this machine has)")
    parser.add_argument("--only", action="append", choices=[c.name for c in CASES], metavar="CASE",
                        help=f"one of {', '.join(c.name for c in CASES)}; may be repeated")
    parser.add_argument("--no-peer", action="store_true", help="without PyTorch")
    add_places(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    sets = available_sets()
    options.named = list(dict.fromkeys(options.isa or []))
    options.isa = options.named or sets[:1]
    missing = [isa for isa in options.isa if isa not in sets]
    if missing:
        parser.error(f"--isa {missing[0]}: this machine has {', '.join(sets)}")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected 1 or more")
    absolute_places(options)
    return options


def main():
    options = read_options()
    bench = Bench(options)
    cases = [replace(c, isa=isa) for isa in options.isa for c in CASES
             if options.only is None or c.name in options.only]
    measured = [(case, []) for case in cases]
    for _ in range(options.rounds):
        for case, rounds in measured:
            rounds.append(bench.round(case, rounds))
    write_results(options, bench.machine(measured), measured)
    for case, rounds in measured:
        print(case_tables(case, rounds))
    say(f"results: {options.out}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        say(f"run.py: {failure}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

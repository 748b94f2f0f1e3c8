"""Runs the program for the end-to-end tests, and reads what it leaves behind.

Standard library only. CTest passes the program, the source tree and mpirun in the
environment.
"""

import array
import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest
from dataclasses import dataclass

PROGRAM = os.environ["ESPALIER"]
SOURCE = os.environ["ESPALIER_SOURCE"]
MPIEXEC = os.environ.get("MPIEXEC", "mpirun")
MNIST = os.path.join(SOURCE, "data", "mnist")
RECIPES = os.path.join(SOURCE, "jobs", "recipes")
TIMEOUT_SECONDS = 120


def environment(**changes):
    """The process's environment, one thread a rank, no GPU, quiet about root, without stray settings."""
    env = {k: v for k, v in os.environ.items() if k not in ("ESPALIER_MNIST",)}
    env.update(
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
        OMP_WAIT_POLICY="passive",
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        OMPI_MCA_mpi_yield_when_idle="1",
        # Single-copy shared memory needs a capability that containers lack.
        OMPI_MCA_btl_vader_single_copy_mechanism="none",
    )
    env.update(changes)
    return {k: v for k, v in env.items() if v is not None}


def launcher(ranks):
    """The words before the program; none for one rank."""
    if ranks == 1:
        return []
    if not MPIEXEC:
        raise unittest.SkipTest("MPI is not compiled in")
    return [MPIEXEC, "--bind-to", "none", "--oversubscribe", "-n", str(ranks)]


def run(*arguments, ranks=1, env=None, cwd=None, stdout=subprocess.PIPE, program=PROGRAM):
    """Run the program to its end; ends the whole process group when it hangs."""
    process = subprocess.Popen(
        launcher(ranks) + [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() if env is None else env,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"no end within {TIMEOUT_SECONDS} s: {arguments}\n{err}")
    return Result(process.returncode, out or "", err)


@dataclass
class Result:
    code: int
    out: str
    err: str

    def messages(self):
        """The program's own error lines, without the launcher's; one may follow another rank's
        progress on a line."""
        return re.findall(r"\bespalier: .*", self.err)


class ProgramTest(unittest.TestCase):
    """A test with a directory of its own."""

    maxDiff = None

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="espalier-test-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def write(self, name, content):
        mode = "wb" if isinstance(content, bytes) else "w"
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), mode) as file:
            file.write(content)
        return self.path(name)

    def run_ok(self, *arguments, **options):
        result = run(*arguments, **options)
        self.assertEqual(result.code, 0, result.err)
        return result

    def assert_refused(self, result, *texts, code=2):
        """One line on stderr that holds every text, and the exit code."""
        self.assertEqual(result.code, code, result.err)
        self.assertEqual(len(result.messages()), 1, result.err)
        for text in texts:
            self.assertIn(text, result.messages()[0])

    def train(self, recipe, run_dir, settings=(), ranks=1, **options):
        """Train to the end and return the run's directory. `recipe` is a name or a path."""
        if not recipe.endswith(".cfg"):
            recipe = os.path.join(RECIPES, recipe + ".cfg")
        words = ["train", recipe, "-o", self.path(run_dir), "-s", f"data.dir={MNIST}"]
        for setting in settings:
            words += ["-s", setting]
        self.run_ok(*words, ranks=ranks, **options)
        return self.path(run_dir)


def read_json(path):
    with open(path) as file:
        return json.load(file)


def read_events(run_dir, kind=None):
    with open(os.path.join(run_dir, "events.jsonl")) as file:
        events = [json.loads(line) for line in file]
    return [e for e in events if kind is None or e["event"] == kind]


def summary(run_dir):
    return read_json(os.path.join(run_dir, "summary.json"))


def read_safetensors(path):
    """{name: (shape, array of floats)} of a file of F32 tensors, read independently of ours."""
    with open(path, "rb") as file:
        content = file.read()
    (header_length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + header_length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + header_length + offset for offset in entry["data_offsets"])
        values = array.array("f")
        values.frombytes(content[begin:end])
        assert entry["dtype"] == "F32" and len(values) == math.prod(entry["shape"])
        tensors[name] = (entry["shape"], values)
    return tensors


def model(run_dir):
    return read_safetensors(os.path.join(run_dir, "model.safetensors"))


def largest_difference(a, b):
    """The largest |difference| of two models' values."""
    assert a.keys() == b.keys()
    return max(
        abs(x - y) for name in a for x, y in zip(a[name][1], b[name][1], strict=True)
    )

"""Runs that are stopped and go on: how to stop them, and how to tell that nothing was lost."""

import json
import os
import random
import signal
import subprocess
import time

from program import MNIST, PROGRAM, SOURCE, ProgramTest, environment, launcher, read_events, summary

SMOOTH = os.path.join(SOURCE, "tests", "fixtures", "smooth.cfg")

# Two epochs of 43 updates that end with a smaller batch; dropout, pruning, validation and momentum
# all leave something behind that a checkpoint must hold. No interval divides another.
SETTINGS = [
    "data.train_limit=2000", "data.test_limit=200", "data.validation=200", "train.steps=0",
    "train.momentum=0.9", "train.learning_rate=0.02", "train.log_every=1", "prune.layers=[conv2,dense1]",
    "prune.schedule=linear", "prune.every=10", "prune.rate=0.05", "checkpoint.every=7",
]
STEPS = 86

# The same in two epochs of 3 updates, where every single one can be tried.
SHORT = SETTINGS + ["data.train_limit=320", "data.test_limit=50", "prune.every=2", "checkpoint.every=2"]

TIMES = {"seconds", "seconds_event", "seconds_epoch", "seconds_train", "seconds_total",
         "images_per_second"}
WAIT_SECONDS = 120  # that only a hang reaches


def timeless(record):
    return {key: value for key, value in record.items() if key not in TIMES}


def history(run_dir):
    """The step, prune and epoch events, in their order, without times."""
    kinds = ("step", "prune", "epoch")
    return [timeless(e) for e in read_events(run_dir) if e["event"] in kinds]


def checkpoints(run_dir):
    """Paths of the checkpoints, the oldest first."""
    folder = os.path.join(run_dir, "checkpoints")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, n) for n in names if n.endswith(".safetensors")]


def read_checkpoint(path):
    """{name: bytes of the tensor} and the metadata, by the format's description alone."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    metadata = header.pop("__metadata__")
    return {n: data[slice(*e["data_offsets"])] for n, e in header.items()}, metadata


def survivors_of(path):
    """{weight: whole number whose bit i tells whether connection i is left} of a checkpoint."""
    tensors, _ = read_checkpoint(path)
    return {n.removesuffix(".survivors"): int.from_bytes(bits, "little")
            for n, bits in tensors.items() if n.endswith(".weight.survivors")}


def lines(run_dir):
    """How many updates events.jsonl tells of (or a part of a line)."""
    try:
        with open(os.path.join(run_dir, "events.jsonl"), "rb") as file:
            return file.read().count(b'"event":"step"')
    except FileNotFoundError:
        return 0


def ranks_of(process):
    """Process ids of the program's ranks under a launcher, the lowest rank first."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        children = sorted(map(int, file.read().split()))
    return [pid for pid in children if os.path.realpath(f"/proc/{pid}/exe") == PROGRAM]


def is_stopped(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "T"


class ResumeTest(ProgramTest):
    def words(self, run_dir, settings, recipe=SMOOTH):
        words = ["train", recipe, "-o", self.path(run_dir), "-s", f"data.dir={MNIST}"]
        for setting in settings:
            words += ["-s", setting]
        return words

    def start(self, run_dir, settings, *options, ranks=1, env=None):
        """Begin to train; the process ends with the test at the latest."""
        process = subprocess.Popen(
            launcher(ranks) + [PROGRAM, *self.words(run_dir, settings), *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=environment() if env is None else env, start_new_session=True,
        )
        self.addCleanup(self.end, process)
        return process

    def start_and_pause(self, run_dir, settings, ranks=1, line=20):
        """Begin to train, and return with rank 0 stopped before that line of events.jsonl: whatever is
        done to the run then, it has not ended before. It goes on by SIGCONT."""
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT_DIR=self.path(run_dir), FAULT="stop",
                          FAULT_SITE="write events.jsonl", FAULT_AT=str(line))
        process = self.start(run_dir, settings, ranks=ranks, env=env)
        end = time.monotonic() + WAIT_SECONDS
        while not any(is_stopped(pid) for pid in (ranks_of(process) if ranks > 1 else [process.pid])):
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), end, "the run does not stop")
            time.sleep(0.001)
        return process

    @staticmethod
    def end(process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        process.stderr.close()

    def wait_for_updates(self, process, run_dir, updates):
        """True when so many updates have been told of, False when the run ended before."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            if lines(self.path(run_dir)) >= updates:
                return True
            if process.poll() is not None:
                return False
            time.sleep(0.001)
        self.fail(f"no {updates} updates within {WAIT_SECONDS} s")

    def finish(self, process, code=0):
        """Wait for the end, and return what it said."""
        try:
            _, err = process.communicate(timeout=WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.end(process)
            self.fail("the run does not end")
        self.assertEqual(process.returncode, code, err)
        return err

    def assert_same_run(self, one, other):
        """Nothing but times tells two runs apart."""
        one, other = self.path(one), self.path(other)
        self.assertEqual(timeless(summary(one)), timeless(summary(other)))
        self.assertEqual(history(one), history(other))

    def kill_and_resume(self, run_dir, settings, kill, seed, ranks=1):
        """Kill a run again and again, after a few more updates each time, until it gets through.
        Returns how many times it was killed."""
        chance = random.Random(seed)
        target = kills = 0
        while True:
            process = self.start(run_dir, settings, "--resume", ranks=ranks)
            target += chance.randint(3, 16)
            if target >= STEPS or not self.wait_for_updates(process, run_dir, target):
                self.finish(process)
                return kills
            time.sleep(chance.uniform(0, 0.02))
            if process.poll() is None:
                kill(process, chance)
                kills += 1
            process.communicate()

"""Disks that fail and processes that die at every single call that changes a file; clocks that jump."""

import os
import shutil

from program import environment, read_events, run, summary
from resuming import SMOOTH, ResumeTest

# Three checkpoints, of which one is dropped, in as few calls as possible.
SETTINGS = [
    "data.train_limit=120", "data.test_limit=20", "data.validation=20", "train.steps=0",
    "train.batch=50", "train.epochs=1", "train.log_every=2", "checkpoint.every=1", "checkpoint.keep=1",
    "network.conv1.filters=2", "network.conv2.filters=2", "network.dense1.units=4",
]


class Faults(ResumeTest):
    def setUp(self):
        super().setUp()
        self.train(SMOOTH, "whole", SETTINGS)

    def run_with(self, *options, **faults):
        faults = {key: str(value) for key, value in faults.items()}
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT_DIR=self.path("run"), **faults)
        return run(*self.words("run", SETTINGS), *options, env=env)

    def calls(self, *options):
        """The calls that change files of the run, in their order."""
        result = self.run_with(*options, FAULT_LOG=self.path("log"))
        self.assertEqual(result.code, 0, result.err)
        with open(self.path("log")) as file:
            calls = file.read().split()
        os.remove(self.path("log"))
        return calls

    def every_call(self, fault, check, only=None):
        """Fail at each call in turn; afterwards the run goes on, and nothing is missing."""
        calls = self.calls()
        self.assertGreater(len(calls), 30)
        self.assertEqual({"open", "write", "fsync", "rename", "unlink", "mkdir"} - set(calls), set())
        for at, call in enumerate(calls, 1):
            if call != (only or call):
                continue
            with self.subTest(at=at, call=call):
                shutil.rmtree(self.path("run"))
                check(call, self.run_with(FAULT=fault, FAULT_AT=at))
                self.finish(self.start("run", SETTINGS, "--resume"))
                self.assert_same_run("whole", "run")
                self.assertEqual(self.leftovers(), [])

    def leftovers(self):
        return [name for _, _, names in os.walk(self.path("run"))
                for name in names if name.endswith((".tmp", ".damaged"))]

    def killed(self, _call, result):
        self.assertEqual(result.code, -9, result.err)

    def test_killed_at_every_call(self):
        self.every_call("kill", self.killed)

    def test_killed_in_the_midst_of_every_write(self):
        self.every_call("torn", self.killed, only="write")

    def refused(self, call, result, reason):
        """One line names the file and the reason; only a directory may stay unflushed."""
        if result.code == 0 and call == "fsync":
            return
        self.assert_refused(result, self.path("run"), reason, code=1)

    def test_full_disk_at_every_call(self):
        def check(call, result):
            if call in ("open", "write", "mkdir") or result.code != 0:
                self.refused(call, result, "No space left on device")
            self.assertEqual(self.leftovers(), [])

        self.every_call("ENOSPC", check)

    def test_error_at_every_call(self):
        self.every_call("EIO", lambda call, result: self.refused(call, result,
                                                                 "Input/output error"))

    def test_read_only_directory(self):
        """From the start, and half way."""
        self.assert_refused(self.run_with(FAULT="EROFS", FAULT_AT=1), self.path("run"),
                            "Read-only file system", code=1)
        at = len(self.calls()) // 2
        shutil.rmtree(self.path("run"))
        self.assert_refused(self.run_with(FAULT="EROFS", FAULT_AT=at), self.path("run"),
                            "Read-only file system", code=1)
        self.finish(self.start("run", SETTINGS, "--resume"))
        self.assert_same_run("whole", "run")

    def test_killed_while_it_resumes(self):
        """The calls that a resumed run makes before it trains are stages too."""
        shutil.copytree(self.path("whole"), self.path("begun"))
        os.remove(self.path("begun", "summary.json"))
        shutil.copytree(self.path("begun"), self.path("run"))
        for at, call in enumerate(self.calls("--resume"), 1):
            with self.subTest(at=at, call=call):
                shutil.rmtree(self.path("run"))
                shutil.copytree(self.path("begun"), self.path("run"))
                self.killed(call, self.run_with("--resume", FAULT="kill", FAULT_AT=at))
                self.finish(self.start("run", SETTINGS, "--resume"))
                self.assert_same_run("whole", "run")


class Clock(ResumeTest):
    def test_jumps(self):
        """Only the monotonic clock counts: neither times nor the weights notice."""
        settings = SETTINGS + ["checkpoint.seconds=3600", "checkpoint.every=0"]
        self.train(SMOOTH, "whole", settings)
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT_CLOCK="1")
        begun = []
        for name in ("one", "two"):
            self.finish(self.start(name, settings, env=env))
            self.assert_same_run("whole", name)
            begun.append(read_events(self.path(name))[0]["time"][:10])
            seconds = [e["seconds"] for e in read_events(self.path(name))]
            self.assertEqual(seconds, sorted(seconds))
            self.assertLess(summary(self.path(name))["seconds_total"], 60)
            self.assertEqual(len(read_events(self.path(name), "checkpoint")), 1)
        before = read_events(self.path("whole"))[0]["time"][:10]
        self.assertNotEqual(begun, [before, before], "the clock did not jump")

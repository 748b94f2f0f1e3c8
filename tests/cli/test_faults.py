"""Disks that fail and processes that die at every single call that changes a file; clocks that jump."""

import os
import resource
import shutil

from program import environment, read_events, run, summary
from resuming import SETTINGS as RUN
from resuming import SMOOTH, STEPS, ResumeTest, lines

# Two checkpoints, of which one is dropped, in as few calls as possible.
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

    def sites(self, *options):
        """Each call that changes a file of the run, as ("rename summary.json.tmp", 1): the first of
        those. What threads do to different files has no order; what is done to one has."""
        result = self.run_with(*options, FAULT_LOG=self.path("log"))
        self.assertEqual(result.code, 0, result.err)
        with open(self.path("log")) as file:
            lines = file.read().splitlines()
        os.remove(self.path("log"))
        return [(line, lines[:i].count(line) + 1) for i, line in enumerate(lines)]

    def every_call(self, fault, check, only=""):
        """Fail at each call in turn; afterwards the run goes on, and nothing is missing."""
        sites = self.sites()
        self.assertGreater(len(sites), 30)
        calls = {site.split()[0] for site, _ in sites}
        self.assertEqual({"open", "write", "fsync", "rename", "unlink", "mkdir"} - calls, set())
        for site, at in sites:
            if not site.startswith(only):
                continue
            with self.subTest(site=site, at=at):
                shutil.rmtree(self.path("run"))
                check(site, self.run_with(FAULT=fault, FAULT_SITE=site, FAULT_AT=at))
                self.finish(self.start("run", SETTINGS, "--resume"))
                self.assert_same_run("whole", "run")
                self.assertEqual(self.leftovers(), [])

    def leftovers(self):
        return [name for _, _, names in os.walk(self.path("run"))
                for name in names if name.endswith((".tmp", ".damaged"))]

    def killed(self, _site, result):
        self.assertEqual(result.code, -9, result.err)

    def test_everything_is_on_the_disk_before_what_follows_from_it(self):
        """What a power failure leaves follows from the order of calls: a file's content is flushed
        before its name appears, and its name before anything counts on it."""
        names = [name for name, _ in self.sites()]
        steps = [name.split()[1] for name in names if name.startswith("rename step-")]
        self.assertEqual(len(steps), 2)
        for file, folder in [(step, "checkpoints") for step in steps] + [
                (f"{name}.tmp", "run") for name in ("recipe.cfg", "model.safetensors", "summary.json")]:
            calls = [name for name in names if name.split()[1] in (file, folder, "events.jsonl")]
            at = calls.index(f"rename {file}")
            written = [call for call in calls[:at] if call.split()[1] == file]
            self.assertEqual((written[0], written[-2], written[-1]),
                             (f"open {file}", f"write {file}", f"fsync {file}"))
            self.assertIn(f"fsync {folder}", calls[at:])
            if folder == "checkpoints":
                opened = names.index(f"open {file}")
                self.assertIn("fsync events.jsonl", names[:opened])  # on the same thread
        last = [name for name in names[:names.index("rename summary.json.tmp")] if "events" in name][-1]
        self.assertEqual(last, "fsync events.jsonl")
        # The first checkpoint is dropped when the second one's name has been flushed.
        drop = names.index("unlink " + steps[0].removesuffix(".tmp"))
        self.assertIn("fsync checkpoints", names[names.index(f"rename {steps[1]}"):drop])

    def test_killed_at_every_call(self):
        self.every_call("kill", self.killed)

    def test_killed_in_the_midst_of_every_write(self):
        self.every_call("torn", self.killed, only="write ")

    def refused(self, site, result, reason):
        """One line names the file and the reason; only a directory may stay unflushed."""
        if site in ("fsync run", "fsync checkpoints"):
            self.assertEqual(result.code, 0, result.err)
        else:
            self.assert_refused(result, self.path("run"), reason, code=1)

    def test_full_disk_at_every_call(self):
        def check(site, result):
            if site.split()[0] in ("open", "write", "mkdir") or result.code != 0:
                self.assert_refused(result, self.path("run"), "No space left on device", code=1)
            self.assertEqual(self.leftovers(), [])

        self.every_call("ENOSPC", check)

    def test_error_at_every_call(self):
        self.every_call("EIO", lambda site, result: self.refused(site, result,
                                                                 "Input/output error"))

    def test_read_only_directory(self):
        """From the start, and half way."""
        self.assert_refused(self.run_with(FAULT="EROFS", FAULT_AT=1), self.path("run"),
                            "Read-only file system", code=1)
        at = len(self.sites()) // 2
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
        for site, at in self.sites("--resume"):
            with self.subTest(site=site, at=at):
                shutil.rmtree(self.path("run"))
                shutil.copytree(self.path("begun"), self.path("run"))
                self.killed(site, self.run_with("--resume", FAULT="kill", FAULT_SITE=site, FAULT_AT=at))
                self.finish(self.start("run", SETTINGS, "--resume"))
                self.assert_same_run("whole", "run")


class Limited(ResumeTest):
    def test_limit_on_the_size_of_files(self):
        """As ulimit -f sets it: a message in place of a signal that ends the process without one, on
        the main thread and on that of the checkpoint."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        for limit, file in ((512, "recipe.cfg"), (4096, "step-00000001.safetensors")):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            try:
                result = run(*self.words("run", SETTINGS), "--resume")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            self.assert_refused(result, self.path("run"), f"{file}: File too large", code=1)
        self.finish(self.start("run", SETTINGS, "--resume"))
        self.train(SMOOTH, "whole", SETTINGS)
        self.assert_same_run("whole", "run")


class Background(ResumeTest):
    """A checkpoint is written while the run goes on."""

    CHECKPOINTS = [s for s in RUN if not s.startswith("checkpoint.")] + ["checkpoint.every=20"]

    def hang(self, site, *settings):
        """Start a run that hangs in the first call of that kind."""
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT_DIR=self.path("run"),
                          FAULT="hang", FAULT_SITE=site, FAULT_AT="1")
        return self.start("run", self.CHECKPOINTS + list(settings), env=env)

    def test_disk_that_hangs_holds_up_the_next_checkpoint_only(self):
        """Updates go on to it; the process is killed, and goes on from the checkpoint before."""
        for at, before, after in ((40, 20, 43), (43, 40, 60), (80, 60, STEPS)):
            with self.subTest(at=at):
                self.train(SMOOTH, f"whole{at}", self.CHECKPOINTS)
                process = self.hang(f"fsync step-{at:08}.safetensors.tmp")
                self.assertTrue(self.wait_for_updates(process, "run", after))
                process.kill()
                process.communicate()
                self.assertEqual(lines(self.path("run")), after)
                self.finish(self.start("run", self.CHECKPOINTS, "--resume"))
                self.assertEqual(read_events(self.path("run"), "resume")[0]["step"], before)
                self.assert_same_run(f"whole{at}", "run")
                shutil.rmtree(self.path("run"))

    def test_disk_that_hangs_is_told_of(self):
        process = self.hang("fsync step-00000020.safetensors.tmp", "train.hang_seconds=2")
        self.assertIn("rank 0 hangs", self.finish(process, 1))


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

"""Disks that fail and processes that die at every single call that changes a file; clocks that jump."""

import os
import resource
import shutil

from program import environment, read_events, run, summary
from resuming import SETTINGS as RUN
from resuming import SMOOTH, STEPS, ResumeTest, checkpoints, lines

# Two checkpoints, of which one is dropped, in as few calls as possible.
SETTINGS = [
    "data.train_limit=120", "data.test_limit=20", "data.validation=20", "train.steps=0",
    "train.batch=50", "train.epochs=1", "train.log_every=2", "checkpoint.every=1", "checkpoint.keep=1",
    "network.conv1.filters=2", "network.conv2.filters=2", "network.dense1.units=4",
]


class FaultTest(ResumeTest):
    settings = SETTINGS
    options = ()
    damaged = ()  # checkpoints that the run finds

    def setUp(self):
        super().setUp()
        self.train(SMOOTH, "whole", self.settings)

    def begin(self):
        """What the run finds: nothing."""
        shutil.rmtree(self.path("run"), ignore_errors=True)

    def run_with(self, **faults):
        faults = {key: str(value) for key, value in faults.items()}
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT_DIR=self.path("run"), **faults)
        return run(*self.words("run", self.settings), *self.options, env=env)

    def sites(self):
        """Each call that changes a file of the run, as ("rename summary.json.tmp", 1): the first of
        those. What threads do to different files has no order; what is done to one has."""
        self.begin()
        result = self.run_with(FAULT_LOG=self.path("log"))
        self.assertEqual(result.code, 0, result.err)
        with open(self.path("log")) as file:
            lines = file.read().splitlines()
        os.remove(self.path("log"))
        return [(line, lines[:i].count(line) + 1) for i, line in enumerate(lines)]

    def every_call(self, fault, check, only=""):
        """Fail at each call in turn; afterwards the run goes on, and nothing is missing."""
        for site, at in self.sites():
            if not site.startswith(only):
                continue
            with self.subTest(site=site, at=at):
                self.begin()
                check(site, self.run_with(FAULT=fault, FAULT_SITE=site, FAULT_AT=at))
                self.finish(self.start("run", self.settings, "--resume"))
                self.assert_same_run("whole", "run")
                self.assertEqual(*([os.path.basename(path) for path in checkpoints(self.path(name))]
                                   for name in ("whole", "run")))
                self.assertEqual(self.names(".tmp"), [])
                self.assertEqual(self.names(".damaged"), [f"{name}.damaged" for name in self.damaged])

    def names(self, ending):
        return [name for _, _, names in os.walk(self.path("run")) for name in names
                if name.endswith(ending)]

    def check_killed(self, _site, result):
        self.assertEqual(result.code, -9, result.err)

    def check_message(self, result, reason):
        """One line names the file and the reason."""
        self.assertEqual(result.code, 1, result.err)
        (message,) = [line for line in result.messages() if "warning: " not in line]
        self.assertIn(self.path("run"), message)
        self.assertIn(reason, message)

    def check_full(self, site, result):
        if site.split()[0] in ("open", "write", "mkdir") or result.code != 0:
            self.check_message(result, "No space left on device")
        self.assertEqual(self.names(".tmp"), [])

    def check_error(self, _site, result):
        self.check_message(result, "Input/output error")


class Faults(FaultTest):
    def test_every_kind_of_call_is_seen(self):
        sites = self.sites()
        self.assertGreater(len(sites), 30)
        self.assertEqual({site.split()[0] for site, _ in sites},
                         {"open", "write", "fsync", "ftruncate", "rename", "unlink", "mkdir"})

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
        made = names.index("mkdir checkpoints")
        self.assertIn("fsync run", names[made:names.index(f"open {steps[0]}")])
        last = [name for name in names[:names.index("rename summary.json.tmp")] if "events" in name][-1]
        self.assertEqual(last, "fsync events.jsonl")
        # The first checkpoint is dropped when the second one's name has been flushed.
        drop = names.index("unlink " + steps[0].removesuffix(".tmp"))
        self.assertIn("fsync checkpoints", names[names.index(f"rename {steps[1]}"):drop])

    def test_killed_at_every_call(self):
        self.every_call("kill", self.check_killed)

    def test_killed_in_the_midst_of_every_write(self):
        self.every_call("torn", self.check_killed, only="write ")

    def test_full_disk_at_every_call(self):
        self.every_call("ENOSPC", self.check_full)

    def test_error_at_every_call(self):
        self.every_call("EIO", self.check_error)

    def test_read_only_directory(self):
        """From the start, and half way."""
        at = len(self.sites()) // 2
        for at in (1, at):
            self.begin()
            self.check_message(self.run_with(FAULT="EROFS", FAULT_AT=at), "Read-only file system")
        self.finish(self.start("run", SETTINGS, "--resume"))
        self.assert_same_run("whole", "run")


class Resumed(FaultTest):
    """What a run does that goes on is a stage too: it takes away the results that it finds, cuts the
    events back, sets a damaged checkpoint aside."""

    settings = SETTINGS + ["train.epochs=2"]
    options = ("--resume",)
    damaged = ("step-00000003.safetensors",)

    def setUp(self):
        super().setUp()
        self.train(SMOOTH, "begun", SETTINGS)
        with open(self.path("begun", "events.jsonl"), "a") as file:
            file.write('{"event":"st')
        for name in self.damaged:
            self.write(f"begun/checkpoints/{name}", "damaged")

    def begin(self):
        super().begin()
        shutil.copytree(self.path("begun"), self.path("run"))

    def test_every_stage_of_resuming_is_seen(self):
        names = {site for site, _ in self.sites()}
        self.assertLess({"ftruncate events.jsonl", "unlink summary.json", "unlink model.safetensors",
                         "rename step-00000003.safetensors"}, names)

    def test_killed_at_every_call_of_resuming(self):
        self.every_call("kill", self.check_killed)

    def test_full_disk_at_every_call_of_resuming(self):
        self.every_call("ENOSPC", self.check_full)

    def test_error_at_every_call_of_resuming(self):
        self.every_call("EIO", self.check_error)

    def test_read_only_directory_to_resume(self):
        self.begin()
        self.check_message(self.run_with(FAULT="EROFS", FAULT_AT=1), "Read-only file system")
        self.assertEqual(summary(self.path("begun")), summary(self.path("run")))


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

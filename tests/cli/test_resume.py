"""A run that was stopped, however it was, goes on as if nothing had happened."""

import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import threading
import time

from program import MNIST, environment, model, read_events, run, summary
from resuming import (SETTINGS, SHORT, SMOOTH, STEPS, ResumeTest, checkpoints, history,
                      read_checkpoint, survivors_of, timeless)


def kill(process, _chance):
    process.kill()


class Killed(ResumeTest):
    def resumes(self, settings, seed):
        self.train(SMOOTH, "whole", settings)
        self.assertEqual(summary(self.path("whole"))["steps"], STEPS)
        kills = self.kill_and_resume("killed", settings, kill, seed)
        self.assertGreater(kills, 3)
        self.assert_same_run("whole", "killed")
        self.assertEqual(*([os.path.basename(path) for path in checkpoints(self.path(name))]
                           for name in ("whole", "killed")))

    def test_killed_with_momentum(self):
        self.resumes(SETTINGS, 1)

    def test_killed_with_adadelta(self):
        self.resumes([s for s in SETTINGS if "momentum" not in s] + ["train.optimizer=adadelta"], 2)

    def test_killed_with_adam_and_a_global_mask(self):
        settings = [s for s in SETTINGS if "momentum" not in s]
        self.resumes(settings + ["train.optimizer=adam", "prune.scope=global"], 3)

    def test_killed_with_masks(self):
        self.resumes(SETTINGS + ["prune.deletion=mask"], 6)

    def test_killed_with_deleted_channels(self):
        """So few connections are left that shapes shrink, by what is left and nothing else."""
        self.resumes(SETTINGS + ["prune.rate=0.3", "prune.sparse_below=0"], 7)

    def test_killed_between_step_events(self):
        """The sums of updates that no event has told of yet are in the checkpoint."""
        settings = SETTINGS + ["train.log_every=5", "checkpoint.every=3"]
        self.train(SMOOTH, "whole", settings)
        process = self.start("killed", settings)
        self.assertTrue(self.wait_for_updates(process, "killed", 6))
        process.kill()
        process.communicate()
        self.finish(self.start("killed", settings, "--resume"))
        self.assert_same_run("whole", "killed")

    def test_killed_at_a_time_interval(self):
        settings = SETTINGS + ["checkpoint.every=0", "checkpoint.seconds=0.0001"]
        self.train(SMOOTH, "whole", settings)
        self.assertGreater(len(read_events(self.path("whole"), "checkpoint")), 3)
        self.kill_and_resume("killed", settings, kill, 4)
        self.assert_same_run("whole", "killed")


class Stopped(ResumeTest):
    def stops(self, number):
        self.train(SMOOTH, "whole", SETTINGS)
        process = self.start_and_pause("stopped", SETTINGS)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        self.assertIn("stopped on request after update", self.finish(process, 75))
        self.assertFalse(os.path.exists(self.path("stopped", "summary.json")))
        step = read_events(self.path("stopped"), "checkpoint")[-1]["step"]
        self.assertLess(step, STEPS)
        self.assertEqual(step, read_events(self.path("stopped"), "step")[-1]["step"])
        self.finish(self.start("stopped", SETTINGS, "--resume"))
        self.assertEqual(read_events(self.path("stopped"), "resume")[-1]["step"], step)
        self.assert_same_run("whole", "stopped")

    def test_sigterm(self):
        self.stops(signal.SIGTERM)

    def test_sigint(self):
        self.stops(signal.SIGINT)

    def test_sigusr1(self):
        self.stops(signal.SIGUSR1)

    def test_before_every_event(self):
        """At the end of an epoch too, where a checkpoint is due as it is, and after the last update,
        when there is nothing left to stop."""
        self.train(SMOOTH, "whole", SHORT)
        codes, steps = set(), set()
        for line in range(1, len(read_events(self.path("whole"))) + 1):
            with self.subTest(line=line):
                process = self.start_and_pause("run", SHORT, line=line)
                process.send_signal((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[line % 3])
                process.send_signal(signal.SIGCONT)
                _, err = process.communicate(timeout=60)
                self.assertIn(process.returncode, (0, 75), err)
                codes.add(process.returncode)
                if process.returncode == 75:
                    steps.add(read_events(self.path("run"), "checkpoint")[-1]["step"])
                    self.finish(self.start("run", SHORT, "--resume"))
                self.assert_same_run("whole", "run")
                shutil.rmtree(self.path("run"))
        self.assertEqual(codes, {0, 75})
        self.assertLess({1, 2, 3}, steps)

    def test_second_sigint_ends_at_once(self):
        """The first waits for the update, which a process that hangs in it never finishes."""
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT_HANG="1")
        process = self.start("stopped", SETTINGS, env=env)
        self.assertTrue(self.wait_for_updates(process, "stopped", 5))
        process.send_signal(signal.SIGUSR2)
        process.send_signal(signal.SIGINT)
        while not self.is_default(process.pid, signal.SIGINT):
            self.assertIsNone(process.poll())
            time.sleep(0.001)
        time.sleep(0.1)
        self.assertIsNone(process.poll(), "the first one ended it")
        process.send_signal(signal.SIGINT)
        self.finish(process, -signal.SIGINT)
        self.finish(self.start("stopped", SETTINGS, "--resume"))
        self.train(SMOOTH, "whole", SETTINGS)
        self.assert_same_run("whole", "stopped")

    @staticmethod
    def is_default(pid, number):
        """Whether a signal's handler has gone."""
        with open(f"/proc/{pid}/status") as file:
            caught = next(line for line in file if line.startswith("SigCgt"))
        return not int(caught.split()[1], 16) >> (number - 1) & 1

    def test_a_signal_that_is_ignored_stays_ignored(self):
        """As nohup and a shell's background jobs have it."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process = self.start_and_pause("run", SETTINGS)
        signal.signal(signal.SIGINT, before)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        self.finish(process)


class Directory(ResumeTest):
    def test_checkpoints_that_are_kept(self):
        """The third epoch prunes nearly all there is, so that the best is none of the last."""
        settings = SETTINGS + ["train.epochs=3", "checkpoint.every=4", "checkpoint.keep=3",
                               "prune.schedule=oneshot", "prune.keep=0.01", "prune.begin=100"]
        run_dir = self.train(SMOOTH, "run", settings)
        steps = [int(os.path.basename(p)[5:-12]) for p in checkpoints(run_dir)]
        epochs = read_events(run_dir, "epoch")
        best = max(epochs, key=lambda e: e["validation_accuracy"])["step"]
        self.assertIn(best, (43, 86))
        self.assertEqual(steps, [best, 124, 128, 129])
        with open(checkpoints(run_dir)[-1], "rb") as file:
            content = file.read()
        self.assertEqual(hashlib.sha256(content[:-32]).digest(), content[-32:])

    def test_any_reader(self):
        """What the format's description demands: tensors that cover the data without a hole, each as
        long as its type and shape say, and texts."""
        sizes = {"F32": 4, "F64": 8, "I64": 8, "U8": 1}
        run_dir = self.train(SMOOTH, "run", SETTINGS)
        with open(checkpoints(run_dir)[-1], "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header, rest = json.loads(file.read(length)), file.read()
        for key, text in header.pop("__metadata__").items():
            self.assertIsInstance(text, str, key)
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            self.assertEqual(set(entry), {"dtype", "shape", "data_offsets"})
            size = sizes[entry["dtype"]]
            self.assertEqual(entry["data_offsets"], [end, end + size * math.prod(entry["shape"])], name)
            self.assertEqual(((8 + length) + end) % size, 0, name)
            end = entry["data_offsets"][1]
        self.assertEqual(end, len(rest))

    def test_position_in_the_run(self):
        """Update 84 is the 41st of the second epoch, and 8 events are behind it."""
        path = checkpoints(self.train(SMOOTH, "run", SETTINGS))[-2]
        part, metadata = read_checkpoint(path)
        for name, value in (("run.step", 84), ("run.seed", 5), ("run.images", 43 * 42 - 6 + 41 * 42),
                            ("run.ranks", 1), ("sampler.epoch", 2), ("sampler.position", 41 * 42),
                            ("schedule.event", 8), ("optimizer.step", 84)):
            self.assertEqual(struct.unpack("<q", part[name])[0], value, name)
        self.assertEqual(metadata["espalier.checkpoint"], "1")
        with open(path, "rb") as file:
            self.assertEqual(hashlib.sha256(file.read()[:-32]).digest(), part["sha256"])

    def test_another_reader(self):
        """The file by the format's description alone: survivors, their bits, a state."""
        run_dir = self.train(SMOOTH, "run", SETTINGS)
        part, metadata = read_checkpoint(checkpoints(run_dir)[-1])
        bits = survivors_of(checkpoints(run_dir)[-1])["dense1.weight"]
        values = iter(struct.unpack(f"<{len(part['dense1.weight']) // 4}f", part["dense1.weight"]))
        dense = model(run_dir)["dense1.weight"][1]
        self.assertEqual([next(values) if bits >> i & 1 else 0.0 for i in range(len(dense))],
                         list(dense))
        self.assertEqual(len(part["dense1.weight.velocity"]), len(part["dense1.weight"]))
        self.assertEqual(struct.unpack("<q", part["run.step"])[0], STEPS)
        self.assertIn("batch = 42;", metadata["espalier.recipe"])

    def test_more_epochs(self):
        self.train(SMOOTH, "whole", SETTINGS + ["train.epochs=3"])
        self.train(SMOOTH, "longer", SETTINGS)
        settings = SETTINGS + ["train.epochs=3", "train.threads=2", "checkpoint.keep=1"]
        self.finish(self.start("longer", settings, "--resume"))
        self.assertEqual(history(self.path("whole")), history(self.path("longer")))
        self.assertEqual(*(summary(self.path(r))["weights_sha256"] for r in ("whole", "longer")))
        self.assertEqual(len(checkpoints(self.path("longer"))),
                         len(checkpoints(self.path("whole"))) - 1)

    def test_harmless_keys_and_a_directory_that_moved(self):
        """Where the run and its data lie, how often it tells of itself and is saved: none of it is in
        the weights, nor in the events of pruning and of epochs."""
        self.train(SMOOTH, "whole", SETTINGS)
        process = self.start_and_pause("run", SETTINGS, line=50)
        process.kill()
        process.communicate()
        os.rename(self.path("run"), self.path("moved"))
        os.symlink(MNIST, self.path("data"))
        settings = SETTINGS + ["train.log_every=3", "train.hang_seconds=77", "train.backend=cpu",
                               "checkpoint.every=0", "checkpoint.seconds=0", "checkpoint.keep=9"]
        words = self.words("moved", settings)
        words[words.index(f"data.dir={MNIST}")] = f"data.dir={self.path('data')}"
        self.run_ok(*words, "--resume")
        whole, moved = ([timeless(summary(self.path(name)))] + [
            event for event in history(self.path(name)) if event["event"] != "step"]
            for name in ("whole", "moved"))
        for a, b in zip(whole, moved, strict=True):  # the loss is summed by step events
            self.assertAlmostEqual(a.pop("train_loss", 0), b.pop("train_loss", 0), delta=1e-12)
            self.assertEqual(a, b)
        self.assertEqual([e["step"] for e in read_events(self.path("moved"), "step")][-3:], [81, 84, 86])

    def test_more_epochs_leave_the_schedule_as_it_was_planned(self):
        """Its end, which follows from the length of the run as it began, is in the checkpoint."""
        settings = SETTINGS + ["prune.schedule=cubic", "prune.keep=0.2"]
        whole = history(self.train(SMOOTH, "whole", settings))
        pruned = [event for event in whole if event["event"] == "prune"]
        self.assertEqual([event["step"] for event in pruned], [10, 20, 30, 40])
        for more, updates in ((), 15), (("train.epochs=3",), 25), (("train.epochs=4",), 35):
            process = self.start("run", settings + list(more), "--resume")
            self.assertTrue(self.wait_for_updates(process, "run", updates))
            process.kill()
            process.communicate()
        self.finish(self.start("run", settings + ["train.epochs=3"], "--resume"))
        longer = history(self.path("run"))
        self.assertEqual(longer[:len(whole)], whole)
        self.assertEqual([event for event in longer if event["event"] == "prune"], pruned)
        self.assertEqual(summary(self.path("run"))["epochs"], 3)

    def test_finished_run_is_left_alone(self):
        run_dir = self.train(SMOOTH, "run", SETTINGS)
        before = {name: os.stat(os.path.join(run_dir, name)) for name in os.listdir(run_dir)}
        self.assertIn("the run is finished", self.finish(self.start("run", SETTINGS, "--resume")))
        shutil.rmtree(os.path.join(run_dir, "checkpoints"))
        self.finish(self.start("run", SETTINGS, "--resume"))
        for name in ("events.jsonl", "summary.json", "model.safetensors", "recipe.cfg"):
            self.assertEqual(os.stat(os.path.join(run_dir, name)).st_mtime_ns,
                             before[name].st_mtime_ns, name)

    def test_no_checkpoint_starts_afresh(self):
        for leaves in ((), ("recipe.cfg",), ("recipe.cfg", "events.jsonl"), ("recipe.cfg.tmp",)):
            name = f"run{len(leaves)}{len(''.join(leaves))}"
            os.mkdir(self.path(name))
            for leaf in leaves:
                self.write(os.path.join(name, leaf), "left\n")
            self.finish(self.start(name, SETTINGS, "--resume"))
            self.assertEqual(summary(self.path(name))["steps"], STEPS)
            self.assertEqual(read_events(self.path(name))[0]["event"], "start")

    def test_what_is_no_run_is_refused(self):
        self.write("thesis/chapter1", "x")
        result = run(*self.words("thesis", SETTINGS), "--resume")
        self.assert_refused(result, "holds chapter1, but no recipe.cfg")
        self.assert_refused(run("train", SMOOTH, "--resume"), "needs -o RUN_DIR")

    def test_requeued_by_slurm(self):
        process = self.start_and_pause("run", SETTINGS)
        process.kill()
        process.communicate()
        again = run(*self.words("run", SETTINGS), env=self.slurm("0"))
        self.assert_refused(again, "not empty")
        self.assertEqual(run(*self.words("run", SETTINGS), env=self.slurm("1")).code, 0)
        self.assertEqual(len(read_events(self.path("run"), "resume")), 1)

    @staticmethod
    def slurm(restarts):
        return environment(SLURM_RESTART_COUNT=restarts)

    def test_another_recipe_is_refused(self):
        self.train(SMOOTH, "run", SETTINGS)
        before = history(self.path("run"))
        for setting, said in (
            ("train.batch=43", "train.batch is 43 now, 42 then"),
            ("network.dense1.units=23", "network.dense1.units is 23 now, 24 then"),
            ("prune.layers=[dense1]", 'prune.layers is ["dense1"] now, ["conv2", "dense1"] then'),
            ("train.optimizer=adam", 'train.optimizer is "adam" now, "sgd" then'),
            ("data.train_limit=1999", "data.train_limit is 1999 now, 2000 then"),
        ):
            settings = [s for s in SETTINGS if setting != "train.optimizer=adam" or "mom" not in s]
            result = run(*self.words("run", settings + [setting]), "--resume")
            self.assert_refused(result, "step-00000086.safetensors", said)
        self.assertEqual(history(self.path("run")), before)

    def test_other_images_are_refused(self):
        """The same recipe, where the data have changed under it."""
        self.train(SMOOTH, "run", SETTINGS)
        shutil.copytree(MNIST, self.path("data"))
        target = self.path("data", "train-images-idx3-ubyte")
        with open(target, "r+b") as file:
            file.seek(16 + 28 * 28 * 7 + 300)
            file.write(b"\x7f")
        words = self.words("run", SETTINGS + ["train.epochs=3"])
        words[words.index(f"data.dir={MNIST}")] = f"data.dir={self.path('data')}"
        self.assert_refused(run(*words, "--resume"), "on other images than", self.path("data"))


class Locked(ResumeTest):
    def lock(self, run_dir):
        os.mkdir(self.path(run_dir))
        file = open(self.path(run_dir, "events.jsonl"), "w")
        self.addCleanup(file.close)
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def test_second_run_is_refused(self):
        process = self.start("run", SETTINGS)
        self.assertTrue(self.wait_for_updates(process, "run", 1))
        self.assert_refused(run(*self.words("run", SETTINGS)), "not empty")
        self.finish(process)

    def test_two_runs_on_an_empty_directory(self):
        self.lock("run")
        self.assert_refused(run(*self.words("run", SETTINGS)), "run is in use")

    def test_resume_waits_for_the_lock(self):
        file = self.lock("run")
        threading.Timer(1, file.close).start()
        self.finish(self.start("run", SETTINGS, "--resume"))
        self.assertEqual(timeless(summary(self.path("run")))["steps"], STEPS)

    def test_resume_does_not_wait_for_ever(self):
        """For one that stands still, but may yet go on."""
        first = self.start_and_pause("run", SETTINGS)
        begin = time.monotonic()
        self.assert_refused(run(*self.words("run", SETTINGS), "--resume"), "run is in use")
        self.assertGreater(time.monotonic() - begin, 9)
        first.send_signal(signal.SIGCONT)
        self.finish(first)
        self.train(SMOOTH, "whole", SETTINGS)
        self.assert_same_run("whole", "run")

    def test_a_crash_releases_the_lock(self):
        """The one that waits goes on with the run as soon as the other is killed."""
        first = self.start_and_pause("run", SETTINGS)
        second = self.start("run", SETTINGS, "--resume")
        self.assertRaises(subprocess.TimeoutExpired, second.wait, timeout=2)
        first.kill()
        self.finish(second)
        self.assertEqual(len(read_events(self.path("run"), "resume")), 1)
        self.train(SMOOTH, "whole", SETTINGS)
        self.assert_same_run("whole", "run")


class Damaged(ResumeTest):
    def test_newest_is_named_and_the_one_before_used(self):
        self.train(SMOOTH, "whole", SETTINGS)
        self.stopped_run()
        before, newest = checkpoints(self.path("run"))[-2:]
        with open(newest, "r+b") as file:
            file.seek(-200, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 4]))
        err = self.finish(self.start("run", SETTINGS, "--resume", "--quiet"))
        self.assertIn(f"warning: {newest}: its SHA-256 is not the one", err)
        self.assertEqual(read_events(self.path("run"), "resume")[-1]["file"],
                         os.path.relpath(before, self.path("run")))
        self.assertTrue(os.path.exists(newest + ".damaged"))
        self.assert_same_run("whole", "run")

    def stopped_run(self):
        """A run that was killed with checkpoints left; the newest of them."""
        process = self.start_and_pause("run", SETTINGS, line=30)
        process.kill()
        process.communicate()
        return checkpoints(self.path("run"))[-1]

    def test_refused_run_leaves_a_damaged_one(self):
        newest = self.stopped_run()
        os.truncate(newest, 1000)
        result = run(*self.words("run", SETTINGS), "--resume", "-s", "train.batch=25")
        self.assertIn(f"warning: {newest}: ", result.err)
        self.assertIn("under another recipe", result.err)
        self.assertNotEqual(result.code, 0)
        self.assertTrue(os.path.exists(newest))
        self.assertFalse(os.path.exists(newest + ".damaged"))

    def test_one_that_cannot_be_read_may_be_whole(self):
        """A disk that fails for a while costs no checkpoint: the run ends, and goes on later."""
        self.train(SMOOTH, "whole", SETTINGS)
        newest = self.stopped_run()
        os.rename(newest, self.path("away"))
        os.mkdir(newest)
        before = history(self.path("run"))
        self.assert_refused(run(*self.words("run", SETTINGS), "--resume"),
                            f"cannot read {newest}: ", code=1)
        self.assertTrue(os.path.isdir(newest))
        self.assertEqual(history(self.path("run")), before)
        os.rmdir(newest)
        os.rename(self.path("away"), newest)
        self.finish(self.start("run", SETTINGS, "--resume"))
        self.assertEqual(read_events(self.path("run"), "resume")[-1]["file"],
                         os.path.relpath(newest, self.path("run")))
        self.assert_same_run("whole", "run")

    def test_all_are_damaged(self):
        """Then there is none: the run starts afresh."""
        run_dir = self.train(SMOOTH, "run", SETTINGS)
        before, damaged = history(run_dir), checkpoints(run_dir)
        for path in damaged:
            os.truncate(path, 1000)
        os.remove(os.path.join(run_dir, "summary.json"))
        err = self.finish(self.start("run", SETTINGS, "--resume"))
        for path in damaged:
            self.assertIn(f"warning: {path}: ", err)
        self.assertEqual(history(run_dir), before)

    def test_lost_events_are_refused(self):
        run_dir = self.train(SMOOTH, "run", SETTINGS)
        os.truncate(os.path.join(run_dir, "events.jsonl"), 100)
        os.remove(os.path.join(run_dir, "summary.json"))
        self.assert_refused(run(*self.words("run", SETTINGS), "--resume"), "events.jsonl", "cut short")

"""Ranks that were stopped go on together: killed one by one, asked to stop by any of them."""

import os
import signal

from program import environment, largest_difference, model, read_events, summary
from resuming import SETTINGS, SMOOTH, STEPS, ResumeTest, checkpoints, ranks_of, survivors_of


def kill_any(process, chance):
    """The launcher, or one of the ranks: the others end with it."""
    os.kill(chance.choice([process.pid, *ranks_of(process)]), signal.SIGKILL)


class Killed(ResumeTest):
    def test_killed_on_2_ranks(self):
        self.train(SMOOTH, "whole", SETTINGS, ranks=2)
        kills = self.kill_and_resume("killed", SETTINGS, kill_any, 5, ranks=2)
        self.assertGreater(kills, 3)
        self.assert_same_run("whole", "killed")

    def test_killed_between_step_events_on_3_ranks(self):
        """Each rank goes on with its own part of the sums."""
        settings = SETTINGS + ["train.log_every=5", "checkpoint.every=3"]
        self.train(SMOOTH, "whole", settings, ranks=3)
        process = self.start("killed", settings, ranks=3)
        self.assertTrue(self.wait_for_updates(process, "killed", 6))
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        process.communicate()
        self.finish(self.start("killed", settings, "--resume", ranks=3))
        self.assert_same_run("whole", "killed")


class Stopped(ResumeTest):
    def stop(self, run_dir, choose, ranks, settings=SETTINGS, number=signal.SIGUSR1):
        process = self.start_and_pause(run_dir, settings, ranks=ranks)
        first = (ranks_of(process) or [process.pid])[0]
        os.kill(choose(process), number)
        os.kill(first, signal.SIGCONT)
        self.assertIn("stopped on request after update", self.finish(process, 75))
        step = read_events(self.path(run_dir), "checkpoint")[-1]["step"]
        self.assertLess(step, STEPS)
        return step

    def stops(self, choose, ranks, number=signal.SIGUSR1):
        self.train(SMOOTH, "whole", SETTINGS, ranks=ranks)
        self.stop("stopped", choose, ranks, number=number)
        self.finish(self.start("stopped", SETTINGS, "--resume", ranks=ranks))
        self.assert_same_run("whole", "stopped")

    def test_signal_to_the_first_rank(self):
        self.stops(lambda process: ranks_of(process)[0], 2)

    def test_signal_to_the_last_rank(self):
        self.stops(lambda process: ranks_of(process)[-1], 3)

    def test_sigterm_to_one_in_the_middle(self):
        self.stops(lambda process: ranks_of(process)[1], 3, signal.SIGTERM)

    def test_sigint_to_the_last_rank(self):
        self.stops(lambda process: ranks_of(process)[-1], 2, signal.SIGINT)

    def test_signal_to_the_launcher(self):
        """mpirun forwards SIGUSR1 to all ranks."""
        self.stops(lambda process: process.pid, 2)

    def test_on_another_number_of_ranks(self):
        """Agrees to rounding; the bound is test_ranks.py's, where its derivation stands, with the
        learning rate 5 times smaller and 86 updates in place of 60, momentum adding up to 10 of
        them: below 3 times the bound."""
        for before, after in ((1, 2), (2, 1), (2, 3)):
            name = f"from{before}to{after}"
            self.train(SMOOTH, name + "whole", SETTINGS, ranks=before)
            self.stop(name, lambda process: (ranks_of(process) or [process.pid])[0], before)
            self.finish(self.start(name, SETTINGS, "--resume", ranks=after))
            whole, other = self.path(name + "whole"), self.path(name)
            self.assertEqual(summary(other)["ranks"], after)
            self.assertLess(largest_difference(model(whole), model(other)), 3e-5)
            for a, b in zip(read_events(whole, "epoch"), read_events(other, "epoch"), strict=True):
                self.assertAlmostEqual(a["train_loss"], b["train_loss"], delta=3e-5)

    def test_nothing_comes_back(self):
        """What was pruned before the stop is 0 at the end, and pruned in every later checkpoint."""
        plain = [s for s in SETTINGS if "momentum" not in s and "learning_rate" not in s]
        for name, settings in (("momentum", SETTINGS), ("adam", plain + ["train.optimizer=adam"]),
                               ("decay", plain + ["train.optimizer=adadelta", "train.l1=0.0001",
                                                  "train.l2=0.001"])):
            settings = settings + ["prune.every=6", "checkpoint.keep=30"]
            for before, after in ((1, 3), (2, 1)):
                run_dir = f"{name}from{before}to{after}"
                self.stop(run_dir, lambda process: (ranks_of(process) or [process.pid])[0], before,
                          settings)
                self.finish(self.start(run_dir, settings, "--resume", ranks=after))
                self.check_survivors(self.path(run_dir))

    def check_survivors(self, run_dir):
        files = checkpoints(run_dir)
        masks = [survivors_of(path) for path in files]
        weights = {n: v for n, (_, v) in model(run_dir).items() if n.endswith(".weight")}
        self.assertGreater(len(masks), 8)
        for earlier, later in zip(masks, masks[1:]):
            for name, bits in later.items():
                self.assertEqual(bits & ~earlier[name], 0, name)
        for name, bits in masks[-1].items():
            self.assertEqual([i for i, w in enumerate(weights[name]) if w and not bits >> i & 1], [])
        left = [sum(bits.bit_count() for bits in mask.values()) for mask in masks]
        self.assertLess(left[-1], left[0])


class Refused(ResumeTest):
    def test_another_recipe_is_refused_once(self):
        self.train(SMOOTH, "run", SETTINGS, ranks=2)
        process = self.start("run", SETTINGS + ["train.seed=6"], "--resume", ranks=2)
        err = self.finish(process, 2)
        self.assertEqual(err.count("train.seed is 6 now, 5 then"), 1, err)


class BadDisk(ResumeTest):
    def test_failed_checkpoint_ends_all_ranks_with_one_message(self):
        """It fails on rank 0's thread, while all train."""
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT_DIR=self.path("run"), FAULT="EIO",
                          FAULT_SITE="write step-00000014.safetensors.tmp", FAULT_AT="1")
        err = self.finish(self.start("run", SETTINGS, "--quiet", ranks=2, env=env), 1)
        (message,) = [line for line in err.splitlines() if line.startswith("espalier: ")]
        self.assertIn("step-00000014.safetensors: Input/output error", message)
        self.finish(self.start("run", SETTINGS, "--resume", ranks=2))
        self.train(SMOOTH, "whole", SETTINGS, ranks=2)
        self.assert_same_run("whole", "run")
        self.assertEqual(read_events(self.path("run"), "resume")[0]["step"], 7)

"""A rank that hangs is named, and all end."""

import os
import signal

from program import environment
from resuming import SETTINGS, ResumeTest, ranks_of

# Long beside an update even on a busy machine; the run itself would go on for minutes.
SLOW = SETTINGS + ["train.epochs=100000", "train.hang_seconds=4", "checkpoint.every=50",
                   "data.validation=0"]


class Hang(ResumeTest):
    def hang(self, ranks, victim, number, *settings, how="wait"):
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT_HANG=how)
        process = self.start("run", SLOW + list(settings), "--quiet", ranks=ranks, env=env)
        self.assertTrue(self.wait_for_updates(process, "run", 10))
        pids = ranks_of(process) if ranks > 1 else [process.pid]
        self.assertEqual(len(pids), ranks)
        os.kill(pids[victim], number)
        err = self.finish(process, 1)
        return [line for line in err.splitlines() if line.startswith("espalier: ")]

    def test_in_compute_on_one_rank(self):
        (message,) = self.hang(1, 0, signal.SIGUSR2)
        self.assertIn("rank 0 hangs: nothing has moved for", message)

    def test_in_compute_on_the_second_of_2(self):
        (message,) = self.hang(2, 1, signal.SIGUSR2)
        self.assertIn("rank 1 hangs: nothing has moved for", message)

    def test_without_shared_memory_on_the_first_of_3(self):
        os.environ["ESPALIER_SHARED_MEMORY"] = "0"
        self.addCleanup(os.environ.pop, "ESPALIER_SHARED_MEMORY")
        (message,) = self.hang(3, 0, signal.SIGUSR2)
        self.assertIn("rank 0 hangs: nothing has moved for", message)

    def test_stopped_process(self):
        """Its own watchdog is stopped with it: those who wait for it end the run, and name it."""
        messages = self.hang(3, 1, signal.SIGUSR2, how="stop")
        self.assertRegex(messages[0], "rank [02] has waited [0-9]+ s for rank 1, which must")

    def test_stopped_anywhere_without_shared_memory(self):
        os.environ["ESPALIER_SHARED_MEMORY"] = "0"
        self.addCleanup(os.environ.pop, "ESPALIER_SHARED_MEMORY")
        messages = self.hang(2, 1, signal.SIGSTOP)
        self.assertRegex(messages[0], "rank 0 has waited [0-9]+ s for another rank, which must")

    def test_stopped_process_before_the_first_update(self):
        """At its first event, between the ranks' meeting and the training."""
        env = environment(LD_PRELOAD=os.environ["FAULT_SHIM"], FAULT="stop", FAULT_AT="1",
                          FAULT_DIR=self.path("run"), FAULT_SITE="write events.jsonl")
        err = self.finish(self.start("run", SLOW + ["train.hang_seconds=2"], ranks=2, env=env), 1)
        self.assertRegex(err, "rank 1 has waited [0-9]+ s for rank 0, which must")

    def test_suspended_and_continued(self):
        """Time that the process was not running does not count."""
        process = self.start_and_pause("run", SETTINGS + ["train.hang_seconds=3"])
        self.assertRaises(Exception, process.wait, timeout=6)
        process.send_signal(signal.SIGCONT)
        self.finish(process)

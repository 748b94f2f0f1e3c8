"""Kills and resumes many runs, at moments drawn from a seed; prints how many it tried.

    ESPALIER=$PWD/build/espalier ESPALIER_SOURCE=$PWD python3 tests/support/soak_resume.py SECONDS
"""

import os
import signal
import sys
import time
import unittest

from resuming import SETTINGS, SMOOTH, ResumeTest, ranks_of

PLAIN = [s for s in SETTINGS if "momentum" not in s]
VARIANTS = [
    SETTINGS,
    PLAIN + ["train.optimizer=adadelta", "train.learning_rate=1.0"],
    PLAIN + ["train.optimizer=adam", "prune.scope=global", "train.log_every=1"],
    SETTINGS + ["checkpoint.every=0", "checkpoint.seconds=0.02"],
    SETTINGS + ["prune.deletion=mask"],
    SETTINGS + ["train.reproducible=true"],
]


def kill_any(process, chance):
    os.kill(chance.choice([process.pid, *ranks_of(process)]), signal.SIGKILL)


class Soak(ResumeTest):
    def runTest(self):
        end = time.monotonic() + float(os.environ["SOAK_SECONDS"])
        seed = runs = kills = 0
        while time.monotonic() < end:
            for ranks in (1, 2):
                for i, settings in enumerate(VARIANTS):
                    seed += 1
                    whole, killed = f"whole{ranks}{i}", f"killed{seed}"
                    if not os.path.exists(self.path(whole)):
                        self.train(SMOOTH, whole, settings, ranks=ranks)
                    kills += self.kill_and_resume(killed, settings, kill_any, seed, ranks)
                    self.assert_same_run(whole, killed)
                    runs += 1
        print(f"{runs} runs, {kills} kills and resumes, all as the undisturbed run")


if __name__ == "__main__":
    os.environ["SOAK_SECONDS"] = sys.argv.pop() if len(sys.argv) > 1 else "60"
    unittest.main()

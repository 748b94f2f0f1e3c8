"""jobs/local.sh: its options, refused before anything is installed or built."""

import os
import subprocess

from program import SOURCE, ProgramTest, environment

LOCAL = os.path.join(SOURCE, "jobs", "local.sh")


class Local(ProgramTest):
    def local(self, *words, cwd=None):
        return subprocess.run([LOCAL, *words], capture_output=True, text=True, env=environment(),
                              cwd=cwd or self.directory, timeout=240)

    def refused(self, words, *texts):
        done = self.local(*words)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stdout, "")
        for text in texts:
            self.assertIn(text, done.stderr)

    def test_help(self):
        done = self.local("--help")
        self.assertEqual(done.returncode, 0)
        for option in ("-n RANKS", "-e EPOCHS", "--recipe NAME"):
            self.assertIn(option, done.stdout)

    def test_bad_options_are_refused_before_anything_is_built(self):
        self.refused(["--fast"], "--fast")
        self.refused(["-n"], "-n", "value")
        self.refused(["-n", "0"], "-n 0")
        self.refused(["-e", "many"], "-e many")
        self.refused(["--recipe", "ann_z"], "ann_z", "ann_a", "logistic")
        self.refused(["--recipe", "ann_a", "--recipe", "ann_a"], "two recipes", "ann_a")

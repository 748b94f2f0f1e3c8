"""jobs/local.sh: its options, refused before anything is installed or built. jobs/dependencies.sh:
what must be there, and what may be missing."""

import os
import shutil
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


class Dependencies(ProgramTest):
    """On a machine that has the listed commands, and no apt-get."""

    COMMANDS = "bash cat id cc make cmake pkg-config mpicc mpirun curl python3".split()

    def check(self, without=()):
        for name in set(self.COMMANDS) - set(without):
            os.makedirs(self.path("bin"), exist_ok=True)
            os.symlink(shutil.which(name), self.path("bin", name))
        return subprocess.run(
            [os.path.join(SOURCE, "jobs", "dependencies.sh"), "tests"], capture_output=True,
            text=True, env=environment(PATH=self.path("bin")), timeout=60)

    def test_what_some_tests_need_may_be_missing(self):
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("slurmd", done.stderr)
        self.assertIn("skipped", done.stderr)

    def test_what_the_build_needs_may_not(self):
        done = self.check(without=["cmake"])
        self.assertEqual(done.returncode, 1)
        self.assertIn("missing (by their names in Debian and Ubuntu): cmake", done.stderr)


class Fsa(ProgramTest):
    def fsa(self, *words):
        return subprocess.run([os.path.join(SOURCE, "jobs", "fsa.sh"), *words], text=True,
                              capture_output=True, env=environment(), timeout=240)

    def test_fsa_help(self):
        done = self.fsa("--help")
        self.assertEqual(done.returncode, 0)
        for option in ("-n RANKS", "--runs RUNS", "--seed SEED"):
            self.assertIn(option, done.stdout)

    def test_fsa_bad_options_are_refused_before_anything_is_built(self):
        for words, text in ((["--fast"], "--fast"), (["-n"], "-n:"), (["--runs", "0"], "--runs:")):
            done = self.fsa(*words)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(text, done.stderr)

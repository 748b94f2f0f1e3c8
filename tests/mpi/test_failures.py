"""Ranks fail together: one message, a non-zero exit, no hang."""

import os
import signal
import subprocess
import time

from program import MNIST, PROGRAM, RECIPES, ProgramTest, environment, launcher, run

ANN_A = os.path.join(RECIPES, "ann_a.cfg")


class Together(ProgramTest):
    def rank_script(self, rank, command):
        """A program that runs `command` in place of ours' first steps on one rank."""
        script = self.write(
            f"rank{rank}.sh",
            f'#!/bin/sh\nif [ "$OMPI_COMM_WORLD_RANK" = {rank} ]; then {command}; fi\n'
            f'exec "{PROGRAM}" "$@"\n',
        )
        os.chmod(script, 0o755)
        return script

    def test_bad_recipe_gives_one_message(self):
        result = run("train", self.path("missing.cfg"), ranks=3)
        self.assert_refused(result, "missing.cfg")

    def test_bad_run_directory_gives_one_message(self):
        for run_dir in ("x" * 3000, ""):
            result = run("train", ANN_A, "-o", run_dir, ranks=2, cwd=self.directory)
            self.assert_refused(result, "option '-o'")

    def test_unreadable_data_on_one_rank(self):
        """Rank 1 alone looks at an empty directory."""
        os.mkdir(self.path("empty"))
        script = self.rank_script(1, f'export ESPALIER_MNIST="{self.path("empty")}"')
        words = launcher(3) + [script, "train", ANN_A, "-o", self.path("run")]
        begin = time.monotonic()
        result = subprocess.run(
            words,
            env=environment(ESPALIER_MNIST=MNIST),
            capture_output=True,
            text=True,
            timeout=60,
        )
        messages = [line for line in result.stderr.splitlines() if line.startswith("espalier: ")]
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(len(messages), 1, result.stderr)
        self.assertIn("empty", messages[0])
        self.assertFalse(os.path.exists(self.path("run")), "left behind by a run that never began")
        self.assertLess(time.monotonic() - begin, 30)

    def test_killed_rank_ends_the_run(self):
        self.killed(1)

    def test_killed_writer_ends_the_run(self):
        self.killed(0)

    @staticmethod
    def kill_group(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def killed(self, rank):
        """SIGKILL in the middle of training: the others do not wait for ever."""
        script = self.rank_script(rank, f'echo $$ > "{self.path("pid")}"')
        words = launcher(2) + [script, "train", ANN_A, "-o", self.path("run")]
        words += ["-s", f"data.dir={MNIST}", "-s", "train.log_every=1"]
        process = subprocess.Popen(
            words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.addCleanup(self.kill_group, process)
        self.wait_for_steps(process)
        with open(self.path("pid")) as file:
            os.kill(int(file.read()), signal.SIGKILL)
        self.assertNotEqual(process.wait(timeout=30), 0)

    def wait_for_steps(self, process):
        """Until rank 0 has written that updates were done."""
        events = self.path("run", "events.jsonl")
        for _ in range(600):
            self.assertIsNone(process.poll(), "the run ended early")
            if os.path.exists(events):
                with open(events) as file:
                    if '"step"' in file.read():
                        return
            time.sleep(0.1)
        self.fail("no update within 60 s")

    def test_unwritable_run_directory_on_2_ranks(self):
        file = self.write("file", "in the way")
        result = run(
            "train", ANN_A, "-o", os.path.join(file, "run"), "-s", f"data.dir={MNIST}", ranks=2
        )
        self.assertNotEqual(result.code, 0)
        self.assertEqual(len(result.messages()), 1, result.err)
        self.assertIn("file/run", result.messages()[0])

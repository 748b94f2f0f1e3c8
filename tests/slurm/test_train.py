"""jobs/train.sbatch on a real Slurm of two nodes: whatever happens to the job, the run ends with the
same weights as one to which nothing happened."""

import os
import signal

from cluster import ClusterTest, command, rank_pid, wait_until
from program import read_events, summary

# State of every kind: momentum, pruning, checkpoints.
SETTINGS = ("train.epochs=30", "train.momentum=0.9", "prune.layers=[dense1]",
            "prune.schedule=linear", "prune.rate=0.005", "prune.every=50", "data.train_limit=20000",
            "data.test_limit=1000", "train.log_every=20")
FOREVER = "train.epochs=100000"


class Train(ClusterTest):
    def submit_train(self, run_dir, *changes, options=("--nodes=2",), **settings):
        words = ["logistic"]
        for setting in SETTINGS + changes:
            words += ["-s", setting]
        return self.submit("train.sbatch", *words, options=options, RUN_DIR=self.path(run_dir),
                           **settings)

    def assert_same_as_undisturbed(self, run_dir):
        """Two ranks under mpirun: a sum of two has no order, so that the weights are the same bits."""
        alone = self.train("logistic", "alone", SETTINGS, ranks=2)
        ours, theirs = summary(run_dir), summary(alone)
        for key in ("weights_sha256", "test_errors", "survivors", "epochs", "steps", "ranks"):
            self.assertEqual(ours[key], theirs[key], key)
        for kind in ("epoch", "prune", "step"):
            steps = [event["step"] for event in read_events(run_dir, kind)]
            self.assertEqual(steps, [event["step"] for event in read_events(alone, kind)], kind)

    def wait_for_restart(self, job, number):
        wait_until(lambda: self.field(job, "Restarts") == str(number),
                   lambda: f"restart {number}:\n{self.output(job)}")

    def test_two_nodes_train_and_agree(self):
        job = self.submit_train("run")
        self.wait_for(job, "COMPLETED")
        self.assertIn("on n[1-2]: start 1", self.output(job))
        self.assert_same_as_undisturbed(self.path("run"))

    def test_preempted_job_goes_on(self):
        job = self.submit_train("run", ESPALIER=self.freezing_program("run"))
        self.wait_until_frozen(job)  # Slurm continues what it preempts
        urgent = command("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive",
                         "--output=/dev/null", "--wrap=true").strip()
        self.wait_for(urgent, "COMPLETED")
        self.wait_for_restart(job, 1)
        self.wait_for(job, "COMPLETED")
        self.assertIn("exit code 75", self.output(job))
        self.assert_same_as_undisturbed(self.path("run"))

    def test_signal_before_the_time_limit(self):
        """What --signal sends when the time is nearly over, by scancel, which does not wait for it."""
        job = self.submit_train("run", ESPALIER=self.freezing_program("run"))
        self.wait_until_frozen(job)
        command("scancel", "--signal=USR1", job)
        command("scancel", "--signal=CONT", job)
        self.wait_for_restart(job, 1)
        self.assertIn("exit code 75", self.output(job))
        self.wait_for(job, "COMPLETED")
        self.assert_same_as_undisturbed(self.path("run"))

    def test_time_limit(self):
        """A minute, Slurm's shortest, of which the job uses nothing: Slurm's own signal, half a minute
        before the end, comes with one that lets it go on."""
        job = self.submit_train("run", options=("--nodes=2", "--time=1", "--signal=USR1@30"),
                                ESPALIER=self.freezing_program("run"))
        self.wait_until_frozen(job)
        self.wait_for_restart(job, 1)
        self.assertIn("exit code 75", self.output(job))
        self.wait_for(job, "COMPLETED")
        self.assert_same_as_undisturbed(self.path("run"))

    def test_signal_before_the_program_is_ready(self):
        """It ends a program in espalier's place at its first start: the job comes back as well."""
        program = self.write("program", '#!/bin/sh\n[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || kill -USR1 $$\n'
                             f"mkdir -p {self.path('run')}\n: >{self.path('run')}/summary.json\n")
        os.chmod(program, 0o755)
        job = self.submit_train("run", ESPALIER=program)
        self.wait_for_restart(job, 1)
        self.assertIn("exit code 75", self.output(job))
        self.wait_for(job, "COMPLETED")

    def test_dead_node_requeues_the_job(self):
        job = self.submit_train("run", "checkpoint.every=200",
                                ESPALIER=self.freezing_program("run", 60))
        self.wait_until_frozen(job)
        self.kill_node("n2")
        self.wait_for_restart(job, 1)
        self.start_node("n2")
        self.wait_for(job, "COMPLETED")
        self.assert_same_as_undisturbed(self.path("run"))

    def test_killed_rank_ends_the_job(self):
        job = self.submit_train("run", FOREVER)
        self.wait_for_steps(self.path("run"))
        os.kill(wait_until(lambda: rank_pid(job, 1), "rank 1"), signal.SIGKILL)
        self.assertEqual(self.wait_for(job, "FAILED"), "FAILED")
        self.assertEqual(self.field(job, "Restarts"), "0")
        self.assertIsNone(rank_pid(job, 0))

    def test_cancelled_job_stays_cancelled(self):
        job = self.submit_train("run", FOREVER)
        self.wait_for_steps(self.path("run"))
        command("scancel", job)
        self.wait_for(job, "CANCELLED")
        wait_until(lambda: "exit code" in self.output(job), lambda: self.output(job))
        self.assertEqual(self.field(job, "JobState"), "CANCELLED")
        self.assertEqual(self.field(job, "Restarts"), "0")

    def test_requeues_have_a_limit(self):
        job = self.submit_train("run", FOREVER, ESPALIER_REQUEUES="0")
        self.wait_for_steps(self.path("run"))
        command("scancel", "--signal=USR1", job)
        self.wait_for(job, "FAILED")
        self.assertEqual(self.field(job, "ExitCode"), "75:0")
        self.assertIn("was requeued 0 times; submit it again to go on", self.output(job))

    def test_bad_recipe_fails_at_once(self):
        job = self.submit_train("run", "train.epocs=3")
        self.wait_for(job, "FAILED")
        self.assertEqual(self.field(job, "ExitCode"), "2:0")
        self.assertIn("train.epochs", self.output(job))


class Ranks(ClusterTest):
    def ranks(self, *options):
        """What each rank got, as told by a program in espalier's place: rank, node, GPUs, cores."""
        told = 'echo "$SLURM_PROCID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $SLURM_CPUS_PER_TASK"'
        program = self.write("program", f"#!/bin/sh\n{told} >{self.path('rank')}.$SLURM_PROCID\n"
                             f": >{self.path('run')}/summary.json\n")
        os.chmod(program, 0o755)
        os.mkdir(self.path("run"))
        job = self.submit("train.sbatch", "logistic", RUN_DIR=self.path("run"), ESPALIER=program,
                          options=["--nodes=2", *options])
        self.wait_for(job, "COMPLETED")
        found = []
        while os.path.exists(self.path(f"rank.{len(found)}")):
            with open(self.path(f"rank.{len(found)}")) as file:
                found.append(file.read().strip())
        return found

    def test_one_rank_for_each_gpu(self):
        """The nodes' GPUs are pretended."""
        expected = ["0 n1 0 1", "1 n1 1 1", "2 n2 0 1", "3 n2 1 1"]
        self.assertEqual(self.ranks("--gpus-per-node=2", "--cpus-per-task=2"), expected)

    def test_fewer_cores_than_gpus(self):
        expected = ["0 n1 0 1", "1 n1 1 1", "2 n2 0 1", "3 n2 1 1"]
        self.assertEqual(self.ranks("--gpus-per-node=2", "--cpus-per-task=1"), expected)

    def test_one_rank_for_each_task_without_gpus(self):
        expected = ["0 n1  1", "1 n1  1", "2 n2  1", "3 n2  1"]
        self.assertEqual(self.ranks("--ntasks-per-node=2"), expected)

"""Jobs on the throwaway cluster that cluster.sh has started around the test.

The tests see all processes of the cluster, and tell the nodes apart by their names (a UTS namespace
each). Waiting is by polling for a state, with limits that only a hang reaches.
"""

import os
import re
import signal
import subprocess
import time

from program import MNIST, SOURCE, ProgramTest, environment
from resuming import is_stopped

JOBS = os.path.join(SOURCE, "jobs")
HANG_SECONDS = 150
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")


def command(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=HANG_SECONDS)
    if done.returncode != 0:
        raise AssertionError(f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_until(condition, what):
    """The first true result of `condition`."""
    end = time.monotonic() + HANG_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.03)
    raise AssertionError(f"not within {HANG_SECONDS} s: {what() if callable(what) else what}")


def processes():
    """(pid, environment) of each process but our own; of some the environment is not to be read."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                text = file.read().decode(errors="replace")
        except OSError:
            continue
        yield int(pid), dict(e.split("=", 1) for e in text.split("\0") if "=" in e)


def rank_pid(job, rank):
    """The process of a rank of the job, None while there is none."""
    for pid, env in processes():
        if env.get("SLURM_JOB_ID") == job and env.get("SLURM_PROCID") == str(rank):
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == "espalier":
                    return pid
    return None


class ClusterTest(ProgramTest):
    def submit(self, script, *words, options=(), **settings):
        """Submit one of the project's jobs; its output goes to the test's directory."""
        env = environment(ESPALIER_ROOT=SOURCE, ESPALIER_MNIST=MNIST, **settings)
        done = subprocess.run(
            ["sbatch", "--parsable", "--cpus-per-task=1", f"--output={self.path('%j.out')}",
             *options, os.path.join(JOBS, script), *words],
            capture_output=True, text=True, env=env, cwd=self.directory, timeout=HANG_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        job = done.stdout.strip().split(";")[0]
        self.addCleanup(self.show, job)
        return job

    def show(self, job):
        """The record of the tests, which ctest --verbose prints: what the job itself said."""
        for line in self.output(job).splitlines():
            print("|", line.replace(self.directory, "DIR"))

    def field(self, job, name):
        found = re.search(rf"\b{name}=(\S+)", command("scontrol", "show", "job", "-o", job))
        return found.group(1)

    def output(self, job):
        try:
            with open(self.path(f"{job}.out")) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def wait_for(self, job, *states):
        """Until the job is in one of the states; fails at once when it ends in another."""
        def reached():
            state = self.field(job, "JobState")
            if state in OVER and state not in states:
                raise AssertionError(f"job {job} is {state}, expected {states}:\n"
                                     + self.output(job))
            return state if state in states else None
        return wait_until(reached, lambda: f"job {job} {states}:\n{self.output(job)}")

    def wait_for_steps(self, run_dir):
        """Until the run has logged that updates were done."""
        def logged():
            try:
                with open(os.path.join(run_dir, "events.jsonl")) as file:
                    return '"step"' in file.read()
            except FileNotFoundError:
                return False
        return wait_until(logged, f"step events in {run_dir}")

    def freezing_program(self, run_dir, line=5):
        """The program, whose rank 0 stops itself before that line of events.jsonl at the job's first
        start: the run cannot end before what is to disturb it."""
        faults = (f'LD_PRELOAD={os.environ["FAULT_SHIM"]} FAULT_DIR={self.path(run_dir)} FAULT=stop '
                  f'FAULT_SITE="write events.jsonl" FAULT_AT={line}')
        program = self.write("freezing", '#!/bin/sh\n[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || '
                             f'export {faults}\nexec {os.environ["ESPALIER"]} "$@"\n')
        os.chmod(program, 0o755)
        return program

    def wait_until_frozen(self, job):
        def frozen():
            pid = rank_pid(job, 0)
            return pid is not None and is_stopped(pid)
        wait_until(frozen, lambda: f"rank 0 does not stop:\n{self.output(job)}")

    def kill_node(self, node):
        """End everything on the node at once, as a power failure does."""
        with open(os.path.join(os.environ["CLUSTER_DIR"], f"slurmd.{node}.pid")) as file:
            names = os.readlink(f"/proc/{file.read().strip()}/ns/uts")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/ns/uts") == names:
                    os.kill(int(pid), signal.SIGKILL)
            except OSError:
                continue

    def start_node(self, node):
        """Switch it on again."""
        command("sh", "-c", f'"$CLUSTER_DIR"/start_node {node} &')

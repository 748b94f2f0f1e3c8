"""A reader of README.md and jobs/README.md copies each command into a shell: it works."""

from documents import commands, make_tree, run_command
from program import ProgramTest

# Some minutes each; what needs a cluster is run on one (tests/slurm).
ELSEWHERE = ("./tests/run.sh", "tests/bench/run.sh", "jobs/fsa.sh", "sbatch", "RECIPES=")


class Reader(ProgramTest):
    def read(self, document, at_least):
        tree = self.path("tree")
        make_tree(tree, cmake="#!/bin/sh\n")
        lines = [line for line in commands(document) if not line.startswith(ELSEWHERE)]
        self.assertGreaterEqual(len(lines), at_least)
        for line in lines:
            done = run_command(line, tree)
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}")

    def test_readme(self):
        self.read("README.md", 10)

    def test_readme_of_jobs(self):
        self.read("jobs/README.md", 5)

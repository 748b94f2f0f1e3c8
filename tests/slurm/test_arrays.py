"""jobs/seeds.sbatch and jobs/scaling.sbatch on a real Slurm of two nodes."""

import csv
import os
import statistics
import subprocess

from cluster import JOBS, ClusterTest, command, wait_until
from program import MNIST, SOURCE, environment, read_json, summary

SMALL = ("-s", "train.steps=30", "-s", "data.train_limit=4000", "-s", "data.test_limit=1000")


class Seeds(ClusterTest):
    def wait_for_array(self, job, tasks):
        def over():
            states = [self.field(f"{job}_{task}", "JobState") for task in range(tasks)]
            return states if not {"PENDING", "RUNNING", "COMPLETING"} & set(states) else None
        return wait_until(over, lambda: command("squeue"))

    def table(self, results):
        """{recipe: the numbers of its line}"""
        with open(os.path.join(results, "summary.txt")) as file:
            lines = file.read().splitlines()
        return {line.split()[0]: line.split()[1:] for line in lines[2:]}

    def expected(self, results, recipe, seeds):
        numbers = []
        runs = [summary(os.path.join(results, recipe, f"seed-{seed}")) for seed in seeds]
        for values, digits in ([100 * run["test_accuracy"] for run in runs], 3), (
                [run["test_errors"] for run in runs], 1):
            for number in (statistics.mean(values), min(values), max(values),
                           statistics.stdev(values)):
                numbers.append(f"{number:.{digits}f}")
        return numbers

    def test_array_completes_with_its_table(self):
        """Six runs shared by three tasks; of one recipe all seeds fail."""
        results = self.path("results")
        with open(os.path.join(SOURCE, "jobs", "recipes", "logistic.cfg")) as file:
            good = file.read()
        first = self.write("first.cfg", good)
        second = self.write("second.cfg", good.replace("0.1", "0.5"))
        bad = self.write("third.cfg", good.replace("units = 10", "units = 3"))
        job = self.submit("seeds.sbatch", *SMALL, RECIPES=f"{first} {second} {bad}", SEEDS="3 5 9",
                          RESULTS=results, options=["--array=0-3"])
        states = self.wait_for_array(job, 4)
        self.assertEqual(len(states), 4)
        table = self.table(results)
        self.assertEqual(list(table), ["first", "second", "third"])
        for recipe in ("first", "second"):
            self.assertEqual(table[recipe][:2], ["3", "0"])
            self.assertEqual(table[recipe][2:], self.expected(results, recipe, (3, 5, 9)), recipe)
        self.assertEqual(table["third"], ["0", "3"])
        digests = {summary(os.path.join(results, "first", f"seed-{seed}"))["weights_sha256"]
                   for seed in (3, 5, 9)}
        self.assertEqual(len(digests), 3)


class Scaling(ClusterTest):
    SMALL = ("-s", "data.train_limit=4000")
    # Whole nodes would come with their GPUs, and with a rank for each.
    NODES = ["--nodes=2", "--ntasks-per-node=3", "--exclusive=user"]

    def read(self, results, ranks):
        with open(os.path.join(results, "scaling.csv")) as file:
            rows = list(csv.DictReader(file))
        expected = [(mode, str(n), str(64 if mode == "strong" else 64 * n))
                    for mode in ("strong", "weak") for n in ranks]
        self.assertEqual([(row["mode"], row["ranks"], row["batch"]) for row in rows], expected)
        for mode, n, _ in expected:
            measured = read_json(os.path.join(results, f"{mode}-{n}.json"))
            self.assertEqual(str(measured["ranks"]), n)
        for first in (rows[0], rows[len(ranks)]):
            for row in (r for r in rows if r["mode"] == first["mode"]):
                speedup = float(row["images_per_second"]) / float(first["images_per_second"])
                # Both are printed to 1e-4.
                self.assertAlmostEqual(float(row["speedup"]), speedup, delta=6e-5)
                self.assertAlmostEqual(float(row["efficiency"]), speedup / int(row["ranks"]),
                                       delta=6e-5)

    def test_under_slurm(self):
        results = self.path("results")
        job = self.submit("scaling.sbatch", *self.SMALL, RECIPE="logistic", STEPS="5", BATCH="64",
                          RESULTS=results, options=self.NODES)
        self.wait_for(job, "COMPLETED")
        self.read(results, (1, 2, 3, 6))
        self.assertIn("plot data", self.output(job))

    def test_ranks_that_fill_no_whole_nodes_are_refused(self):
        job = self.submit("scaling.sbatch", *self.SMALL, RECIPE="logistic", RANKS="1 4",
                          RESULTS=self.path("results"), options=self.NODES)
        self.wait_for(job, "FAILED")
        self.assertEqual(self.field(job, "ExitCode"), "2:0")
        self.assertIn("RANKS: found 4", self.output(job))

    def test_on_a_workstation(self):
        results = self.path("results")
        env = environment(RECIPE="logistic", STEPS="5", BATCH="64", RESULTS=results, RANKS="1 2",
                          ESPALIER_MNIST=MNIST, ESPALIER=os.environ["ESPALIER"])
        done = subprocess.run(["bash", os.path.join(JOBS, "scaling.sbatch"), *self.SMALL],
                              capture_output=True, text=True, env=env, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.read(results, (1, 2))

"""tests/bench: what it computes from measurements, and that it runs (against itself alone)."""

import json
import os
import subprocess
import sys
import unittest

from program import MNIST, PROGRAM, SOURCE, ProgramTest, environment

BENCH = os.path.join(SOURCE, "tests", "bench")
sys.path.insert(0, BENCH)

from table import (  # noqa: E402
    AS_IT_COMES, Case, case_tables, direct_flops, fastest_settings, ratios, readme, summary)

ONE, TWO = "espalier 1 rank x 2 threads", "espalier 2 ranks x 1 thread"


def ours(speed, ranks=1, wait=0.0):
    return {"images_per_second": speed, "step_seconds": 128 / speed, "ranks": ranks,
            "phases": {"forward": 0.9 - wait, "wait": wait, "update": 0.1},
            "communication_wait_seconds": wait, "peak_rss_bytes": 200e6}


def a_round(one, two, *peers, peak=100.0):
    runs = {ONE: ours(one), TWO: ours(two, ranks=2, wait=0.02)}
    runs.update({f"PyTorch {i}": {"images_per_second": s} for i, s in enumerate(peers)})
    return {"fma_peak_gflops": peak, "runs": runs}


class Table(unittest.TestCase):
    CASE = Case("ann_d", "Title", "ann_d", 60, network="ann_d",
                goals=((f"{ONE} / PyTorch's best", "at least 6.5"),))

    def test_direct_flops(self):
        """Multiplications by hand: 194,688 and 5,308,416 in the convolutions, 589,824 and 1,280 in
        the dense layers; each also an addition."""
        forward = 2 * (194688 + 5308416 + 589824 + 1280)
        self.assertEqual(direct_flops(self.CASE), 3 * forward - 2 * 194688)
        evaluation = Case("e", "", "ann_d", 5, network="ann_d", evaluates=True)
        self.assertEqual(direct_flops(evaluation), forward)
        wide = Case("w", "", "ann_d", 5, network="ann_d", filters=64, evaluates=True)
        self.assertEqual(direct_flops(wide), 2 * (194688 + 2 * 5308416 + 2 * 589824 + 1280))
        lenet = Case("l", "", "lenet_300_100", 5, network="lenet_300_100")
        self.assertEqual(direct_flops(lenet), 2 * (235200 + 3 * (30000 + 1000)) + 2 * 235200)

    def test_ratios_are_against_the_best_of_the_same_round(self):
        rounds = [a_round(8000, 6000, 900, 1000), a_round(9000, 9900, 1500, 700)]
        figures = ratios(self.CASE, rounds)
        self.assertEqual(figures[f"{ONE} / PyTorch's best"], [8, 6])
        self.assertEqual(figures[f"{TWO} / PyTorch's best"], [6, 6.6])
        self.assertEqual(figures["2 ranks x 1 thread / 1 rank x 2 threads"], [0.75, 1.1])

    def test_pytorch_as_it_comes_has_a_ratio_of_its_own(self):
        a = a_round(8000, 6000, 1000)
        for i, speed in enumerate((500, 800)):
            a["runs"][f"{AS_IT_COMES}, {i}"] = {"images_per_second": speed}
        figures = ratios(self.CASE, [a])
        self.assertEqual(figures[f"{ONE} / {AS_IT_COMES}"], [10])
        self.assertEqual(figures[f"{ONE} / PyTorch's best"], [8])
        a["runs"][f"{AS_IT_COMES}, 2"] = {"images_per_second": 2000}
        self.assertEqual(ratios(self.CASE, [a])[f"{ONE} / PyTorch's best"], [4])
        self.assertEqual(fastest_settings([a], AS_IT_COMES, 1), [f"{AS_IT_COMES}, 2"])

    def test_fraction_of_the_peak(self):
        """36,175,872 operations an image."""
        figures = ratios(self.CASE, [a_round(10000, 5000, peak=361.75872)])
        self.assertAlmostEqual(figures[f"{ONE}: direct FLOPs per second / FMA peak"][0], 1)
        self.assertAlmostEqual(figures[f"{TWO}: direct FLOPs per second / FMA peak"][0], 0.5)

    def test_wait_memory_and_epoch(self):
        rounds = [dict(a_round(8000, 6000), epoch={"images_per_second": 7600,
                                                   "peak_rss_bytes": 250e6})]
        figures = ratios(self.CASE, rounds)
        waits = [values for name, values in figures.items() if "waiting" in name]
        self.assertEqual(len(waits), 1)
        self.assertAlmostEqual(waits[0][0], 0.02)
        self.assertEqual(figures["peak memory of 1 rank, MB"], [200])
        self.assertEqual([v for k, v in figures.items() if "epoch" in k], [[0.95]])

    def test_without_pytorch_there_is_nothing_to_compare_with(self):
        figures = ratios(self.CASE, [a_round(8000, 6000)])
        self.assertFalse([name for name in figures if "PyTorch" in name])

    def test_later_rounds_take_the_fastest_of_the_first(self):
        rounds = [a_round(8000, 6000, 900, 1000, 950), a_round(8000, 6000, 5000, 1, 1)]
        self.assertEqual(fastest_settings(rounds, "PyTorch", 2), ["PyTorch 1", "PyTorch 2"])
        self.assertEqual(fastest_settings([], "PyTorch", 2), [])

    def test_a_set_is_named(self):
        case = Case("c", "Title", "ann_d", 5, isa="avx2")
        self.assertIn("### Title, avx2\n", case_tables(case, [a_round(8000, 6000)]))

    def test_summary_has_the_best_of_both_sides(self):
        rounds = [a_round(8000, 6000, 1000, 900), a_round(7000, 9000, 1500, 1600),
                  a_round(9000, 8000, 1000, 900)]
        text = summary([(self.CASE, rounds)])
        self.assertEqual(text.splitlines()[2], "| Title |  | 9,000 | 1,000 | 8.0 |  |  |")
        for r, speed in zip(rounds, (500, 100, 600)):
            r["runs"][f"{AS_IT_COMES}, 2 threads"] = {"images_per_second": speed}
        text = summary([(self.CASE, rounds)])
        self.assertEqual(text.splitlines()[2], "| Title |  | 9,000 | 1,000 | 8.0 | 500 | 16.0 |")
        self.assertEqual(summary([(self.CASE, [a_round(8000, 6000)])]), "")

    def test_tables(self):
        rounds = [a_round(8000, 6000, 1000), a_round(7000, 6000, 1000), a_round(9000, 6000, 1000)]
        text = case_tables(self.CASE, rounds)
        self.assertIn(f"| {ONE} | 7,000 | 8,000 | 9,000 |", text)
        self.assertIn(f"| {ONE} / PyTorch's best | 7.000 | 8.000 | 9.000 | at least 6.5 |", text)
        whole = readme({"cores": 2}, "tests/bench/run.sh", [(self.CASE, rounds)])
        self.assertIn(text, whole)
        self.assertIn("run 3 times", whole)
        self.assertIn("| cores | 2 |", whole)


class Driver(ProgramTest):
    def drive(self, *options):
        words = [sys.executable, "-B", os.path.join(BENCH, "run.py"), "--quick", "--no-peer",
                 "--only", "lenet_300_100", "--build", os.path.dirname(PROGRAM), "--data", MNIST,
                 "--out", self.path("out"), *options]
        return subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=120)

    def test_leaves_figures_and_a_table(self):
        done = self.drive("--rounds", "2", "--isa", "baseline")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(os.listdir(self.path("out"))),
                         ["README.md", "lenet_300_100-baseline.json"])
        with open(self.path("out", "lenet_300_100-baseline.json")) as file:
            result = json.load(file)
        self.assertEqual(result["instruction_set"], "baseline")
        self.assertEqual(len(result["rounds"]), 2)
        for r in result["rounds"]:
            self.assertGreater(r["fma_peak_gflops"], 1)
            self.assertEqual([r["runs"][name]["ranks"] for name in (ONE, TWO)], [1, 2])
            self.assertEqual([r["runs"][name]["threads"] for name in (ONE, TWO)], [2, 1])
        with open(self.path("out", "README.md")) as file:
            text = file.read()
        self.assertIn(done.stdout.strip(), text)
        self.assertIn("tests/bench/run.sh --only lenet_300_100 --isa baseline --no-peer --quick --rounds 2", text)
        # Results are for the repository: none of this machine's paths.
        for path in (SOURCE, self.directory, os.path.dirname(PROGRAM)):
            self.assertNotIn(path, text + json.dumps(result))

    def test_unknown_set(self):
        done = self.drive("--isa", "mmx")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("mmx", done.stderr)

    def test_missing_program(self):
        done = self.drive("--build", self.path("nowhere"))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("run.sh", done.stderr)

    def test_failure_of_the_program_is_told(self):
        done = self.drive("--data", self.path("nothing"))
        self.assertEqual(done.returncode, 1, done.stderr)
        last = done.stderr.splitlines()[-1]
        self.assertTrue(last.startswith("run.py: exit code 2: espalier: "), last)
        self.assertIn(self.path("nothing"), last)

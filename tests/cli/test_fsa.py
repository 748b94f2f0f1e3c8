"""espalier fsa: the paper's simulation from the command line."""

import json

from program import ProgramTest, run

SMALL = ["--samples", "200", "--variables", "100", "--keep", "3", "--runs", "10",
         "--iterations", "100", "--seed", "5"]


class Simulation(ProgramTest):
    def simulate(self, *words, ranks=1):
        found = json.loads(self.run_ok("fsa", *words, "--json", ranks=ranks).out)
        self.assertGreaterEqual(found.pop("seconds"), 0)
        return found

    def test_paper_in_small(self):
        """Ten runs of the row N = 1000, k = 10, on which the paper reports 100/100/1.00."""
        for loss, rate, growth in (("logistic", "5", "0"), ("lorenz", "0.3", "0.5")):
            found = self.simulate("--loss", loss, "--rate", rate, "--growth", growth,
                                  "--runs", "10")
            self.assertEqual((found["detection_rate"], found["detected"]), (1, 1))
            self.assertGreaterEqual(found["auc"], 0.995)
            self.assertEqual((found["loss"], found["samples"], found["keep"]), (loss, 1000, 10))

    def test_too_little_data_is_not_enough(self):
        """What is measured can fail: a tenth of the samples that the paper's smallest row has."""
        found = self.simulate("--samples", "30", "--runs", "10")
        self.assertEqual(found["detection_rate"], 0)
        self.assertLess(found["detected"], 0.6)
        self.assertLess(found["auc"], 0.95)

    def test_noise_bounds_the_auc(self):
        """A part p of random labels leaves even the true model about 1 - p / 2 of the pairs."""
        found = self.simulate(*SMALL, "--noise", "0.5", "--rate", "5")
        self.assertLess(found["auc"], 0.85)
        self.assertGreater(found["auc"], 0.6)

    def test_ranks_change_no_bit(self):
        one = self.simulate(*SMALL)
        for ranks in (2, 3):
            self.assertEqual(self.simulate(*SMALL, ranks=ranks), one)
        self.assertEqual(self.simulate(*SMALL, "--threads", "3"), one)
        self.assertNotEqual(self.simulate(*SMALL, "--seed", "6"), one)

    def test_more_ranks_than_runs(self):
        few = [*SMALL, "--runs", "2"]
        self.assertEqual(self.simulate(*few, ranks=3), self.simulate(*few))

    def test_test_set_of_one_class(self):
        """Among 20 runs of two samples there is one without a pair to order."""
        self.assertIsNone(self.simulate("--samples", "2", "--runs", "20")["auc"])

    def test_table(self):
        out = self.run_ok("fsa", *SMALL, "--noise", "0.1", "--loss", "squared", "--rate", "0.02").out
        self.assertIn("200 samples of 100 variables, 3 of them true, 10 % of the labels random", out)
        self.assertIn("loss squared, rate 0.02, growth 0, mu 300, 100 iterations", out)
        self.assertRegex(out, r"\(DR\) +[\d.]+ % of 10 runs")


class Refusals(ProgramTest):
    def refused(self, words, *texts, code=2, ranks=1):
        self.assert_refused(run("fsa", *words, ranks=ranks), *texts, code=code)

    def test_bad_values(self):
        for words, text in (
            (["--samples", "1"], "--samples '1': expected a whole number from 2 to 10000000"),
            (["--samples", "3.5"], "--samples '3.5'"),
            (["--keep", "many"], "--keep 'many'"),
            (["--noise", "1.5"], "--noise '1.5': expected a number from 0 to 1"),
            (["--noise", "nan"], "--noise 'nan'"),
            (["--correlation", "1"], "--correlation '1'"),
            (["--rate", "0"], "--rate '0'"),
            (["--runs", "0"], "--runs '0'"),
            (["--seed", "-1"], "--seed '-1'"),
            (["--loss", "hinge"], "--loss 'hinge': expected logistic, lorenz, huber_svm or squared"),
            (["--loss", "lorentz"], "nearest: lorenz"),
            (["--iterations", "7"], "--iterations 7: expected an even number"),
            (["--keep", "101"], "--variables 1000: expected at least 1010"),
        ):
            self.refused(words, text)

    def test_bad_usage(self):
        self.refused(["--fast", "1"], "unknown option '--fast'", "usage: espalier fsa")
        self.refused(["--rate"], "'--rate' needs a value")
        self.refused(["recipe.cfg"], "unexpected 'recipe.cfg'")

    def test_rate_that_is_too_large(self):
        for ranks in (1, 2):
            self.refused([*SMALL, "--loss", "squared", "--rate", "1e9"],
                         "run 0, iteration", "is the learning rate 1e+09 too large?", code=1,
                         ranks=ranks)

    def test_help_names_every_option(self):
        out = self.run_ok("fsa", "--help").out
        for option in ("loss", "samples", "variables", "keep", "correlation", "noise", "rate", "growth",
                       "mu",
                       "iterations", "runs", "seed", "threads", "json"):
            self.assertIn(f"--{option} ", out)

"""Schedules end to end: which updates a run's events follow, and what each leaves.

The formulas stand here once more, in fractions, from the papers."""

from fractions import Fraction
from math import floor

from program import ProgramTest, read_events

M, EPOCH, UPDATES = 7840, 20, 60  # connections of `logistic`, updates
RUN = ["data.train_limit=2000", "data.test_limit=100", "train.batch=100", "train.epochs=3",
       "train.steps=0", "prune.layers=[dense1]"]


def rounded(x):
    return floor(x + Fraction(1, 2))


class Schedules(ProgramTest):
    def follows(self, settings, updates, left):
        """`left`: connections after event e, of E."""
        run_dir = self.train("logistic", "run", RUN + [f"prune.{s}" for s in settings])
        self.assertEqual([(e["step"], e["survivors"]) for e in read_events(run_dir, "prune")],
                         [(u, left(e + 1, len(updates))) for e, u in enumerate(updates)])
        self.assertEqual(read_events(run_dir, "step")[-1]["step"], UPDATES)

    def test_fsa_after_a_warm_up(self):
        k, mu = 784, 2
        self.follows(["schedule=fsa", "keep=0.1", "mu=2", "begin=10", "every=5", "end=40"],
                     range(15, 41, 5),
                     lambda e, E: rounded(k + (M - k) * Fraction(2 * E - 2 * e, 2 * e * mu + 2 * E)))

    def test_fsa_by_epochs(self):
        self.follows(["schedule=fsa", "keep=500", "mu=0", "unit=epochs", "begin=1", "every=1",
                      "end=3"], [2 * EPOCH, 3 * EPOCH],
                     lambda e, E: rounded(500 + (M - 500) * (1 - Fraction(e, E))))

    def test_exponential_by_events(self):
        self.follows(["schedule=fsa_exponential", "keep=245", "unit=events", "begin=2", "every=4",
                      "end=7"], range(12, 29, 4), lambda e, E: round(M * (245 / M) ** (e / E)))

    def test_cubic_without_an_end_takes_half_of_what_follows(self):
        k = 392
        self.follows(["schedule=cubic", "keep=0.05", "begin=20", "every=5"], range(25, 41, 5),
                     lambda e, E: rounded(k + (M - k) * (1 - Fraction(e, E)) ** 3))

    def test_geometric_goes_on_to_the_end(self):
        self.follows(["schedule=geometric", "rate=0.25", "every=10"], range(10, 61, 10),
                     lambda e, _: rounded(M * Fraction(3, 4) ** e))

    def test_linear_until_its_end(self):
        self.follows(["schedule=linear", "rate=0.03125", "every=10", "end=40"], range(10, 41, 10),
                     lambda e, _: M - e * M // 32)

    def test_oneshot_after_a_warm_up(self):
        self.follows(["schedule=oneshot", "keep=100", "begin=30", "every=1"], [31],
                     lambda e, E: 100)

    def test_none(self):
        self.follows(["schedule=none"], [], None)

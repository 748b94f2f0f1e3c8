"""espalier report: what it takes, what it refuses, and what stands on the page."""

import json
import os
import stat
import unittest

import browser
import page
from program import ProgramTest, read_events, run, summary

LAYERS = [("conv1", 288), ("dense1", 4096)]


def start(**changes):
    return {"event": "start", "seconds": 0.0, "time": "2026-01-31T12:00:00Z", "recipe": "tiny",
            "epochs": 3, "batch": 128, "ranks": 2, "threads": 1, "connections": 4384,
            "backend": "cpu", "schedule": "linear", **changes}


def epoch(number, **changes):
    return {"event": "epoch", "seconds": 1.0, "epoch": number, "step": 10 * number,
            "train_accuracy": 0.9 + 0.0217 * number, "test_accuracy": 0.91 + 0.0203 * number,
            "test_errors": 900 - 203 * number, "survivors": 4384, "seconds_epoch": 1.5, **changes}


def step(number, **changes):
    return {"event": "step", "seconds": 1.0, "step": number, "images_per_second": 9000.0 + number,
            **changes}


def prune(number, left, **changes):
    layers = [{"name": n, "connections": c, "survivors": int(c * left)} for n, c in LAYERS]
    return {"event": "prune", "seconds": 1.0, "step": number, "layers": layers, **changes}


SUMMARY = {"test_accuracy": 0.9709, "train_accuracy": 0.9651, "test_errors": 291, "epochs": 3,
           "steps": 30, "survivors": 2000, "seconds_train": 4.5, "images_per_second": 12345.6}
EVENTS = [start(), step(5), prune(6, 0.8), step(10), epoch(1), step(15), prune(16, 0.5), step(20),
          epoch(2), step(25), step(30), epoch(3), {"event": "end", "seconds": 5.0}]


class ReportTest(ProgramTest):
    def make_run(self, name, events=EVENTS, summarized=SUMMARY, tail=""):
        lines = [e if isinstance(e, str) else json.dumps(e) for e in events]
        self.write(f"{name}/events.jsonl", "".join(line + "\n" for line in lines) + tail)
        if summarized is not None:
            self.write(f"{name}/summary.json", json.dumps(summarized))
        return self.path(name)

    def report(self, *dirs, **options):
        path = self.path("report.html")
        self.run_ok("report", *dirs, "-o", path, **options)
        with open(path, encoding="utf-8") as file:
            return file.read()

    def check_points(self, found, expected):
        """Points on the page against the values that they stand for."""
        self.assertEqual(len(found), len(expected))
        for (point, tolerance), value in zip(found, expected):
            for at, off, wanted in zip(point, tolerance, value):
                self.assertAlmostEqual(at, wanted, delta=off)

    def check_accuracy(self, root, run_dir, name):
        epochs = read_events(run_dir, "epoch")
        found = page.curves(root, "accuracy")
        for kind, key in (("test", "test_accuracy"), ("training", "train_accuracy")):
            self.check_points(found[f"{name}, {kind}"],
                              [(e["epoch"], 100 * e[key]) for e in epochs])
        self.check_points(page.curves(root, "test-error")[name],
                          [(e["epoch"], 100 - 100 * e["test_accuracy"]) for e in epochs])

    def check_step_time(self, root, run_dir, name):
        batch = read_events(run_dir, "start")[0]["batch"]
        self.check_points(page.curves(root, "step-time")[name],
                          [(e["step"], 1000 * batch / e["images_per_second"])
                           for e in read_events(run_dir, "step")])

    def check_survivors(self, root, run_dir, plot):
        events = read_events(run_dir, "prune")
        last = read_events(run_dir, "epoch")[-1]["step"]
        found = page.curves(root, plot)
        self.assertEqual(list(found), [layer["name"] for layer in events[0]["layers"]])
        for i, points in enumerate(found.values()):
            left = [(e["step"], 100 * e["layers"][i]["survivors"] / e["layers"][i]["connections"])
                    for e in events]
            self.check_points(points, [(0, 100), *left, (last, left[-1][1])])


class Page(ReportTest):
    def test_every_plot_shows_the_events(self):
        one = self.make_run("one")
        two = self.make_run("two", [start(), step(7, images_per_second=100.0), epoch(1),
                                    prune(12, 0.031), step(20), epoch(2)])
        root = page.parse(self.report(one, two))
        for i, (run_dir, name) in enumerate(((one, "one"), (two, "two"))):
            self.check_accuracy(root, run_dir, name)
            self.check_step_time(root, run_dir, name)
            self.check_survivors(root, run_dir, f"survivors-{i + 1}")

    def test_table_of_runs(self):
        rows = page.table(page.parse(self.report(self.make_run("one"))))
        self.assertEqual(rows["one"], ["finished", "97.09 %", "291", "96.51 %", "3", "30", "2,000",
                                       "45.62 %", "4.5 s", "12,346", "2", "1"])

    def test_unfinished_run(self):
        """It has no summary, and its last line may be torn."""
        run_dir = self.make_run("run", EVENTS[:5], None, tail='{"event":"ep')
        text = self.report(run_dir)
        row = page.table(page.parse(text))["run"]
        self.assertEqual(row, ["unfinished", "93.03 %", "697", "92.17 %", "1 of 3", "10", "4,384",
                               "100.00 %", "1.5 s", "–", "2", "1"])
        self.check_accuracy(page.parse(text), run_dir_without_tail(self, run_dir), "run")

    def test_run_that_has_just_begun(self):
        text = self.report(self.make_run("run", [start()], None))
        row = page.table(page.parse(text))["run"]
        self.assertEqual(row[:6], ["unfinished", "–", "–", "–", "0 of 3", "0"])
        self.assertNotRegex(text, r"\b(nan|inf)\b")

    def test_resumed_run_is_shown_once(self):
        """After a resumption at update 10 the events that a killed life had written are void."""
        lost = [step(15, images_per_second=1.0), epoch(2, test_accuracy=0.1), prune(22, 0.1)]
        again = self.make_run("again", EVENTS[:5] + lost + [start()] + EVENTS[5:])
        plain = self.make_run("plain")
        root = page.parse(self.report(again, plain))
        for plot in ("accuracy", "test-error", "step-time"):
            found = page.curves(root, plot)
            for label in found:
                if label.startswith("again"):
                    self.assertEqual(found[label], found[label.replace("again", "plain")])
        self.assertEqual(page.curves(root, "survivors-1"), page.curves(root, "survivors-2"))

    def test_run_that_pruned_nothing_is_named(self):
        text = self.report(self.make_run("dense", [start(), step(5), epoch(1)]))
        self.assertIn("Nothing was pruned in dense.", text)
        self.assertEqual(page.parse(text).find("svg", id="survivors-1"), [])

    def test_names_are_escaped(self):
        name = "<b>&\"it's\""
        text = self.report(self.make_run(name, [start(recipe="<script>alert(1)</script>")] +
                                         EVENTS[1:]))
        self.assertNotIn("<script", text)
        self.assertNotIn("<b>", text)
        root = page.parse(text)
        self.assertIn(name, page.table(root))
        self.assertIn(f"{name}, test", page.curves(root, "accuracy"))

    def test_equal_names_become_paths(self):
        dirs = [self.make_run("a/run"), self.make_run("b/run")]
        self.assertEqual(list(page.table(page.parse(self.report(*dirs)))), dirs)

    def test_slash_behind_a_name(self):
        run_dir = self.make_run("run") + "/"
        self.assertEqual(list(page.table(page.parse(self.report(run_dir)))), ["run"])

    def test_events_and_keys_of_later_versions_are_passed_over(self):
        events = [start(novelty=[1])] + [{"event": "checkpoint", "step": 3}] + EVENTS[1:]
        self.assertEqual(self.report(self.make_run("run", events)),
                         self.report(self.make_run("run")))

    def test_null_interrupts_a_curve(self):
        events = [start(), epoch(1), epoch(2, test_accuracy=None), epoch(3)]
        found = page.curves(page.parse(self.report(self.make_run("run", events))), "accuracy")
        self.assertEqual([len(found[f"run, {kind}"]) for kind in ("test", "training")], [2, 3])

    def test_needs_no_network_and_no_script(self):
        text = self.report(self.make_run("run"))
        for word in ("http:", "https:", "//", "src=", "href=", "url(", "@import", "<script"):
            self.assertNotIn(word, text)

    def test_is_the_same_on_every_rank_count(self):
        one = self.make_run("run")
        self.assertEqual(self.report(one), self.report(one, ranks=3))

    def test_trained_run(self):
        settings = ["data.train_limit=2000", "data.test_limit=1000", "train.epochs=2",
                    "prune.every=4", "prune.rate=0.05", "train.log_every=3"]
        run_dir = self.train("ann_a", "run", settings)
        root = page.parse(self.report(run_dir))
        self.check_accuracy(root, run_dir, "run")
        self.check_step_time(root, run_dir, "run")
        self.check_survivors(root, run_dir, "survivors-1")
        self.assertEqual(page.table(root)["run"][2], str(summary(run_dir)["test_errors"]))


def run_dir_without_tail(test, run_dir):
    """A copy of a run whose torn last line is gone."""
    with open(os.path.join(run_dir, "events.jsonl")) as file:
        lines = file.read().split("\n")
    return os.path.dirname(test.write("whole/events.jsonl", "\n".join(lines[:-1]) + "\n"))


class Refusals(ReportTest):
    def refused(self, words, *texts, code=2):
        self.assert_refused(run("report", *words), *texts, code=code)
        self.assertFalse(os.path.exists(self.path("out.html")))

    def out(self, *dirs):
        return [*dirs, "-o", self.path("out.html")]

    def test_bad_usage(self):
        one = self.make_run("one")
        self.refused(["-o", self.path("out.html")], "no run directory", "usage: espalier report")
        self.refused([one], "no option '-o FILE.html'", "usage:")
        self.refused([one, "-o"], "'-o' needs a file's name")
        self.refused([one, "-o", ""], "'-o' needs a file's name")
        self.refused(self.out(one, "-o", "x"), "a second option '-o'")
        self.refused(self.out(one, "--fast"), "unknown option '--fast'")
        self.refused(self.out(one, one), f"run directory '{one}' is given twice")

    def test_not_a_run_directory(self):
        self.refused(self.out(self.path("none")), f"{self.path('none')}: No such file")
        path = self.write("file", "")
        self.refused(self.out(path), f"{path} is not a directory")
        os.mkdir(self.path("empty"))
        self.refused(self.out(self.path("empty")),
                     f"{self.path('empty')} is not a run directory: it has no events.jsonl")

    def test_broken_lines_are_named_by_number(self):
        for broken in ('{"event":"st', "[1]", "", "nonsense", '{"event":"step"} {}'):
            run_dir = self.make_run("run", EVENTS[:3] + [broken] + EVENTS[3:])
            self.refused(self.out(run_dir), f"{run_dir}/events.jsonl:4: not a JSON object")

    def test_events_that_lack_something(self):
        cases = [
            ([start(), {"seconds": 1}], ':2: expected a text "event"'),
            ([start(batch="many")], ':1: expected a number "batch"'),
            ([start(recipe=1)], ':1: expected a text "recipe"'),
            ([start(), {"event": "epoch", "epoch": 1}], ':2: expected a number "step"'),
            ([start(), prune(1, 1, layers=[])], ':2: expected a list "layers"'),
            ([start(), prune(1, 1, layers=[{"name": "a"}])], ':2: expected a number "connections"'),
            ([start(), prune(1, 1), prune(2, 1, layers=prune(2, 1)["layers"][:1])],
             ":3: 1 layers, the event before had 2"),
            ([step(1)], ': has no event "start"'),
            ([], ': has no event "start"'),
        ]
        for events, text in cases:
            run_dir = self.make_run("run", events)
            self.refused(self.out(run_dir), f"{run_dir}/events.jsonl{text}")

    def test_broken_summary(self):
        run_dir = self.make_run("run")
        self.write("run/summary.json", '{"test_accuracy": 0.9')
        self.refused(self.out(run_dir), f"{run_dir}/summary.json: not a JSON object")
        self.write("run/summary.json", '{"test_accuracy": 0.9}')
        self.refused(self.out(run_dir), '/summary.json: expected a number "train_accuracy"')

    def test_page_that_cannot_be_written(self):
        """The failure leaves what stood there."""
        one = self.make_run("one")
        self.refused([one, "-o", self.path("none", "out.html")], "cannot write", code=1)
        os.mkdir(self.path("folder"))
        self.refused([one, "-o", self.path("folder")], "cannot write", code=1)
        path = self.write("old.html", "as it was")
        self.refused([self.path("none"), "-o", path], "No such file")
        with open(path) as file:
            self.assertEqual(file.read(), "as it was")
        self.assertTrue(stat.S_ISDIR(os.stat(self.path("folder")).st_mode))
        self.assertEqual([n for n in os.listdir(self.directory) if n.endswith(".tmp")], [])


def luminance(color):
    """WCAG 2's relative luminance of "rgb(1, 2, 3)"."""
    channels = [int(c) / 255 for c in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@unittest.skipUnless(browser.CHROMIUM, browser.MISSING)
class InChromium(ReportTest):
    def pages(self):
        """Eight runs: more than there are colours."""
        return self.report(*[self.make_run(f"run-{i}", [start(), epoch(1), prune(12, 0.5 - i / 20),
                                                        step(15), step(20 + i), epoch(2), epoch(3)])
                             for i in range(8)])

    def test_console_is_heard(self):
        """What the tests below rely on."""
        path = self.write("bad.html", "<!DOCTYPE html><html><body><svg><path d=\"M1 nan\"/></svg>")
        console = browser.load(path)[1]
        self.assertEqual(len(console), 1)
        self.assertIn("Expected number", console[0])

    def test_loads_without_a_word_and_keeps_its_data(self):
        run_dir = self.make_run("run")
        self.report(run_dir)
        text, console = browser.load(self.path("report.html"))
        self.assertEqual(console, [])
        root = page.parse(text)
        self.check_accuracy(root, run_dir, "run")
        self.check_step_time(root, run_dir, "run")
        self.check_survivors(root, run_dir, "survivors-1")
        self.assertEqual(page.table(root)["run"][0], "finished")

    def shown(self, scheme, width=1240):
        path = self.write("probed.html", browser.probed(self.pages()))
        text, console = browser.load(path, scheme, width)
        self.assertEqual(console, [])
        (probe,) = page.parse(text).find("script", id="probe")
        return json.loads(probe.text())

    def check_contrasts(self, shown):
        """WCAG 2.1 AA: 4.5 for text, 3 for graphics."""
        self.assertEqual(len(set(shown["lines"])), 7)
        for color in shown["lines"]:
            self.assertGreaterEqual(contrast(color, shown["page"]), 3, color)
        for color in shown["fills"] + shown["texts"]:
            self.assertGreaterEqual(contrast(color, shown["page"]), 4.5, color)

    def test_light(self):
        shown = self.shown(browser.LIGHT)
        self.assertGreater(luminance(shown["page"]), 0.9)
        self.check_contrasts(shown)

    def test_dark(self):
        shown = self.shown(browser.DARK)
        self.assertLess(luminance(shown["page"]), 0.05)
        self.check_contrasts(shown)

    def test_nothing_leaves_its_plot(self):
        for width in (500, 1240):
            shown = self.shown(browser.LIGHT, width)
            self.assertLessEqual(shown["width"], shown["window"])
            self.assertEqual(len(shown["plots"]), 11)
            for plot in shown["plots"]:
                left, top, right, bottom = plot["box"]
                for box in plot["texts"] + plot["curves"]:
                    self.assertGreaterEqual(min(box[0] - left, right - box[2]), -1)
                    self.assertGreaterEqual(min(box[1] - top, bottom - box[3]), -1)

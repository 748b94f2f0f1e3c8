"""The command line end to end on real MNIST: train, evaluate, inspect."""

import hashlib
import json
import os

from program import MNIST, RECIPES, ProgramTest, model, read_events, run, summary

SUBSET = ["data.train_limit=2000", "data.test_limit=1000", "train.epochs=1"]


class Experiment(ProgramTest):
    def check_run(self, run_dir, ranks, survivors):
        s = summary(run_dir)
        self.assertEqual((s["ranks"], s["epochs"], s["steps"]), (ranks, 1, 16))
        # A tenth of the labels would be right by chance; these networks reach far more.
        self.assertGreater(s["test_accuracy"], 0.5)
        self.assertEqual(s["test_errors"], round(1000 * (1 - s["test_accuracy"])))
        self.assertEqual(s["survivors"], survivors)
        kinds = [e["event"] for e in read_events(run_dir)]
        self.assertEqual((kinds[0], kinds[-1]), ("start", "end"))
        self.assertEqual(kinds.count("epoch"), 1)
        self.assertEqual(sorted(os.listdir(run_dir)),
                         ["checkpoints", "events.jsonl", "model.safetensors", "recipe.cfg", "summary.json"])

    def check_evaluate(self, run_dir, ranks):
        """Another process on other ranks comes to the same errors."""
        result = self.run_ok("evaluate", run_dir, "--data", MNIST, ranks=ranks)
        errors = summary(run_dir)["test_errors"]
        self.assertRegex(result.out, rf"(?m)^test errors +{errors} of 1000$")

    def check_inspect(self, run_dir):
        result = self.run_ok("inspect", run_dir)
        zeros = sum(1 for n, (_, v) in model(run_dir).items() if "weight" in n for x in v if x == 0)
        survivors = summary(run_dir)["connections"] - zeros
        self.assertEqual(summary(run_dir)["survivors"], survivors)
        self.assertIn(str(survivors), result.out.replace(",", ""))
        for name in ("conv1", "conv2", "dense1", "dense2"):
            self.assertIn(name, result.out)

    def ann_a(self, ranks):
        """Pruned every 4 of 16 updates by 5 %: four events."""
        run_dir = self.train("ann_a", "run", SUBSET + ["prune.every=4", "prune.rate=0.05"], ranks)
        dense1, dense2 = 4608 * 128, 1280
        left = sum(m - round(4 * 0.05 * m) for m in (dense1, dense2)) + 288 + 9216
        self.check_run(run_dir, ranks, left)
        self.check_evaluate(run_dir, ranks)
        self.check_inspect(run_dir)

    def test_ann_a_on_1_rank(self):
        self.ann_a(1)

    def test_ann_a_on_3_ranks(self):
        self.ann_a(3)

    def test_every_recipe_trains(self):
        """Ten updates of each shipped recipe leave a finite loss and a usable model."""
        recipes = sorted(os.listdir(RECIPES))
        self.assertGreaterEqual(len(recipes), 7)
        for name in recipes:
            name = name[: -len(".cfg")]
            run_dir = self.train(
                name, name, ["data.train_limit=640", "data.test_limit=200", "train.steps=10"]
            )
            self.assertEqual(summary(run_dir)["steps"], 10)
            self.run_ok("evaluate", run_dir, "--data", MNIST)

    def test_resolved_recipe_trains_the_same(self):
        first = self.train("ann_a", "first", SUBSET + ["train.steps=5"])
        second = self.path("second")
        self.run_ok("train", os.path.join(first, "recipe.cfg"), "-o", second)
        self.assertEqual(summary(first)["weights_sha256"], summary(second)["weights_sha256"])

    def test_digest_is_over_the_written_tensors(self):
        run_dir = self.train("logistic", "run", SUBSET)
        digest = hashlib.sha256()
        for name in ("dense1.weight", "dense1.bias"):
            digest.update(model(run_dir)[name][1].tobytes())
        self.assertEqual(summary(run_dir)["weights_sha256"], digest.hexdigest())

    def test_validation_is_held_out(self):
        run_dir = self.train("logistic", "run", SUBSET + ["data.validation=500"])
        self.assertEqual(summary(run_dir)["steps"], -(-1500 // 128))
        self.assertIn("validation_accuracy", summary(run_dir))
        self.assertIn("validation_accuracy", read_events(run_dir, "epoch")[0])

    def test_keys_are_snake_case_and_accuracies_fractions(self):
        run_dir = self.train("ann_a", "run", SUBSET + ["prune.every=4", "train.log_every=3"])
        for event in read_events(run_dir) + [summary(run_dir)]:
            for key, value in event.items():
                self.assertRegex(key, r"^[a-z0-9_]+$")
                if key.endswith("accuracy"):
                    self.assertTrue(0 <= value <= 1, event)
        self.assertEqual([e["step"] for e in read_events(run_dir, "step")], [3, 6, 9, 12, 15, 16])

    def check_checkpoint(self, path, parameters, states):
        """Values and states of as many parameters, a bit a connection; the rest is small."""
        sizes = {"F32": 0, "U8": 0}
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name.endswith(".weight.survivors") or entry.get("dtype") == "F32":
                sizes[entry["dtype"]] += entry["data_offsets"][1] - entry["data_offsets"][0]
        masks = sum(m // 8 for m in (288, 9216, 4608 * 128, 1280))
        self.assertEqual(sizes, {"F32": 4 * (1 + states) * parameters, "U8": masks})
        rest = os.path.getsize(path) - sum(sizes.values())
        self.assertTrue(0 < rest < 16384, rest)

    def check_checkpoints(self, run_dir, steps, states):
        told = read_events(run_dir, "checkpoint")
        self.assertEqual([e["step"] for e in told], [4, 8, 12, 16])
        for event in told:
            path = os.path.join(run_dir, event["file"])
            self.assertEqual(event["bytes"], os.path.getsize(path))
            self.check_checkpoint(path, steps[event["step"]] // 4, states)
        self.assertIn(f"{told[-1]['file']}: {told[-1]['bytes']} bytes",
                      self.run_ok("inspect", run_dir).out)
        self.assert_refused(run("inspect", path), f"{path}: tensor ", "a model has F32 alone")

    def bytes_of(self, optimizer, deletion, states):
        """Parameters of each event, from the bytes that it names: exactly as many as are stored."""
        run_dir = self.train("ann_a", f"{optimizer}-{deletion}",
                             SUBSET + ["prune.every=4", "prune.rate=0.1", "train.log_every=1",
                                       "checkpoint.every=4", "checkpoint.keep=4",
                                       f"prune.deletion={deletion}", *optimizer.split("+")])
        for event in read_events(run_dir, "step") + read_events(run_dir, "prune"):
            self.assertEqual(event["optimizer_bytes"], states * event["allreduce_bytes"])
        for event in read_events(run_dir, "prune"):
            self.assertEqual(event["survivor_bytes"], 4 * event["survivors"])
            self.assertEqual(event["survivors"], sum(n["survivors"] for n in event["layers"]))
        steps = {e["step"]: e["allreduce_bytes"] for e in read_events(run_dir, "step")}
        prunes = {e["step"]: e["allreduce_bytes"] for e in read_events(run_dir, "prune")}
        self.assertEqual(prunes, {s: steps[s] for s in (4, 8, 12, 16)})
        self.check_checkpoints(run_dir, steps, states)
        return run_dir, steps

    def test_bytes_shrink_with_the_survivors(self):
        removed = sum(round(4 * 0.1 * m) for m in (4608 * 128, 1280))
        for optimizer, states in (("train.optimizer=adadelta", 2), ("train.optimizer=adam", 2),
                                  ("train.optimizer=sgd", 0),
                                  ("train.optimizer=sgd+train.momentum=0.5", 1)):
            run_dir, steps = self.bytes_of(optimizer, "delete", states)
            self.assertEqual(steps[3], 4 * 600810)
            self.assertEqual(steps[16], 4 * (600810 - removed))
            told = self.run_ok("inspect", run_dir).out
            self.assertIn(f"survivors: {4 * (600608 - removed)} bytes of values", told)
            self.assertIn(f"trained on: {steps[16]} bytes all-reduced per update, "
                          f"{states * steps[16]} bytes of optimizer state", told)

    def test_bytes_stay_under_a_mask(self):
        run_dir, steps = self.bytes_of("train.optimizer=adam", "mask", 2)
        self.assertEqual(set(steps.values()), {4 * 600810})
        self.assertIn(f"trained on: {4 * 600810} bytes all-reduced per update",
                      self.run_ok("inspect", run_dir).out)

    def test_default_run_directory(self):
        result = self.run_ok("train", os.path.join(RECIPES, "logistic.cfg"), "-s",
                             f"data.dir={MNIST}", "-s", "train.steps=1", "--quiet",
                             cwd=self.directory)
        self.assertRegex(result.out.strip(), r"^results/runs/logistic-\d{8}-\d{6}$")
        self.assertTrue(os.path.exists(self.path(result.out.strip(), "summary.json")))
        self.assertEqual(result.err, "")

    def test_plain_lines_where_there_is_no_terminal(self):
        result = self.run_ok("train", os.path.join(RECIPES, "logistic.cfg"), "-o",
                             self.path("run"), "-s", f"data.dir={MNIST}",
                             *[w for s in SUBSET for w in ("-s", s)])
        self.assertNotRegex(result.err, r"[\r\x1b]")
        self.assertRegex(result.err, r"epoch 1/1 .* test \d+\.\d+ %")


class Help(ProgramTest):
    def test_help_lists_the_commands(self):
        result = self.run_ok("--help")
        for command in ("train", "evaluate", "inspect", "export", "data", "bench", "report", "fsa"):
            self.assertIn(command, result.out)
            self.assertIn(f"usage: espalier {command}", self.run_ok(command, "--help").out)

    def test_training_that_blows_up_names_update_and_layer(self):
        recipe = os.path.join(RECIPES, "ann_plain.cfg")
        settings = ["train.optimizer=sgd", "train.learning_rate=1e6", "train.steps=20",
                    "train.log_every=2", "train.batch=16", "data.train_limit=320",
                    "data.test_limit=16", "train.backend=cpu", f"data.dir={MNIST}"]
        words = [word for setting in settings for word in ("-s", setting)]
        result = run("train", recipe, *words, "-o", self.path("run"))
        self.assert_refused(result, "the training loss is ", code=1)
        self.assertRegex(result.err, r"update \d+: .*(conv|dense)\d\.weight is not finite")

    def test_version(self):
        self.assertRegex(self.run_ok("--version").out, r"^espalier \d+\.\d+\.\d+\n$")

    def test_train_help_lists_the_keys(self):
        out = self.run_ok("train", "--help").out
        for key in ("data.dir", "train.batch", "train.epsilon", "prune.rate", "prune.scope"):
            self.assertIn(key, out)

    def test_what_is_not_built_is_not_listed(self):
        out = self.run_ok("--help").out + self.run_ok("train", "--help").out
        for word in ("onnx",):
            self.assertNotIn(word, out)

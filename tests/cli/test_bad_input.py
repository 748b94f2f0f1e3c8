"""Bad input ends with exit code 2 and one line that says what, where, and what was expected.

The readers have unit tests with a case for every field; these hold the whole program to it.
"""

import gzip
import os
import struct

from program import MNIST, RECIPES, ProgramTest, run

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def images(count, size=28, magic=0x803):
    return struct.pack(">4I", magic, count, size, size) + bytes(count * size * size)


def labels(count, magic=0x801, value=None):
    return struct.pack(">2I", magic, count) + bytes(
        i % 10 if value is None else value for i in range(count)
    )


class Command(ProgramTest):
    def test_no_command(self):
        self.assert_refused(run(), "no command")

    def test_unknown_command(self):
        self.assert_refused(run("tain"), "tain", "--help")

    def test_unknown_option(self):
        self.assert_refused(run("train", "x.cfg", "--fast"), "--fast", "usage")

    def test_no_recipe(self):
        self.assert_refused(run("train"), "no recipe")

    def test_two_recipes(self):
        self.assert_refused(run("train", "a.cfg", "b.cfg"), "b.cfg")

    def test_option_without_value(self):
        self.assert_refused(run("train", "a.cfg", "-s"), "-s", "value")

    def test_evaluate_without_model(self):
        self.assert_refused(run("evaluate"), "evaluate")

    def test_evaluate_what_is_no_model(self):
        self.assert_refused(run("evaluate", self.path("nothing")), "nothing")

    def test_evaluate_an_empty_file(self):
        self.assert_refused(run("evaluate", self.write("m.safetensors", b"")), "m.safetensors")

    def test_inspect_a_truncated_model(self):
        run_dir = self.train("logistic", "run", ["train.steps=1"])
        path = os.path.join(run_dir, "model.safetensors")
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) - 1)
        self.assert_refused(run("inspect", run_dir), "model.safetensors")

    def test_full_disk_on_standard_output(self):
        with open("/dev/full", "w") as full:
            result = run("--help", stdout=full)
        self.assert_refused(result, "standard output", "No space left", code=1)


class Recipe(ProgramTest):
    NETWORK = 'network = ( { type = "dense"; units = 10; } );\n'

    def refused(self, content, *texts):
        path = self.write("r.cfg", content)
        self.assert_refused(run("train", path, "-o", self.path("run")), "r.cfg", *texts)
        self.assertFalse(os.path.exists(self.path("run")))

    def test_missing_recipe(self):
        self.assert_refused(run("train", self.path("none.cfg")), "none.cfg")

    def test_directory_in_place_of_a_recipe(self):
        self.assert_refused(run("train", self.directory), self.directory)

    def test_syntax(self):
        self.refused("network = (\n;", "2")

    def test_no_network(self):
        self.refused("train = { epochs = 1; };\n", "network")

    def test_unknown_key_names_the_nearest(self):
        self.refused(self.NETWORK + "train = { epoch = 3; };\n", "train.epoch", "train.epochs", "2")

    def test_wrong_type(self):
        self.refused(self.NETWORK + 'train = { epochs = "three"; };\n', "train.epochs", "three")

    def test_out_of_bounds(self):
        self.refused(self.NETWORK + "train = { batch = 0; };\n", "train.batch", "0")

    def test_unknown_layer_type(self):
        self.refused('network = ( { type = "dens"; units = 10; } );\n', "dens", "dense")

    def test_kernel_larger_than_its_image(self):
        path = self.write(
            "r.cfg",
            'network = ( { type = "maxpool"; size = 14; }, '
            '{ type = "conv"; filters = 4; kernel = 3; }, { type = "dense"; units = 10; } );\n',
        )
        result = run("train", path, "-s", f"data.dir={MNIST}", "-o", self.path("run"))
        self.assert_refused(result, "layer 2", "conv1", "3x3", "2x2x1")

    def test_last_layer_is_not_dense(self):
        path = self.write("r.cfg", 'network = ( { type = "maxpool"; size = 2; } );\n')
        result = run("train", path, "-s", f"data.dir={MNIST}", "-o", self.path("run"))
        self.assert_refused(result, "maxpool1", "expected dense")

    def test_too_few_units_for_the_classes(self):
        path = self.write("r.cfg", 'network = ( { type = "dense"; units = 9; } );\n')
        result = run("train", path, "-s", f"data.dir={MNIST}", "-o", self.path("run"))
        self.assert_refused(result, "9 units", "labels")

    def test_unknown_override(self):
        path = os.path.join(RECIPES, "ann_a.cfg")
        self.assert_refused(run("train", path, "-s", "prune.rat=1"), "prune.rat", "prune.rate")

    def test_override_of_the_wrong_type(self):
        path = os.path.join(RECIPES, "ann_a.cfg")
        self.assert_refused(run("train", path, "-s", "train.batch=many"), "train.batch", "many")

    def test_learning_rate_that_explodes(self):
        """Not bad input as such, but a run that fails says where."""
        path = os.path.join(RECIPES, "lenet_300_100.cfg")
        result = run("train", path, "-s", f"data.dir={MNIST}", "-o", self.path("run"),
                     "-s", "train.learning_rate=1e6", "-s", "train.log_every=1")
        self.assert_refused(result, "update ", "learning rate", code=1)


class Data(ProgramTest):
    def setUp(self):
        super().setUp()
        self.write(NAMES[0], images(20))
        self.write(NAMES[1], labels(20))
        self.write(NAMES[2], images(10))
        self.write(NAMES[3], labels(10))

    def train_here(self):
        return run("train", os.path.join(RECIPES, "logistic.cfg"), "-s",
                   f"data.dir={self.directory}", "-o", self.path("run"))

    def refused(self, *texts):
        self.assert_refused(self.train_here(), *texts)
        self.assertFalse(os.path.exists(self.path("run")))

    def test_good_data_trains(self):
        self.assertEqual(self.train_here().code, 0)

    def test_missing_data_file(self):
        os.remove(self.path(NAMES[2]))
        self.refused(NAMES[2])

    def test_directory_in_place_of_data(self):
        os.remove(self.path(NAMES[1]))
        os.mkdir(self.path(NAMES[1]))
        self.refused(NAMES[1], "directory")

    def test_empty_file(self):
        self.write(NAMES[0], b"")
        self.refused(NAMES[0], "0 bytes")

    def test_wrong_magic(self):
        self.write(NAMES[1], labels(20, magic=0x999))
        self.refused(NAMES[1], "magic")

    def test_images_where_labels_belong(self):
        self.write(NAMES[1], images(20))
        self.refused(NAMES[1], "label")

    def test_truncated(self):
        self.write(NAMES[0], images(20)[:-1])
        self.refused(NAMES[0], "15695")

    def test_counts_disagree(self):
        self.write(NAMES[3], labels(9))
        self.refused("10", "9", "labels")

    def test_sizes_disagree_between_splits(self):
        self.write(NAMES[2], images(10, size=14))
        self.refused("28x28", "14x14")

    def test_gzip_cut_short(self):
        os.remove(self.path(NAMES[0]))
        self.write(NAMES[0] + ".gz", gzip.compress(images(20))[:-10])
        self.refused(NAMES[0] + ".gz")

    def test_label_beyond_the_classes(self):
        self.write(NAMES[1], labels(20, value=10))
        self.refused("10", "units")

    def test_limit_beyond_the_count(self):
        result = run("train", os.path.join(RECIPES, "logistic.cfg"), "-s",
                     f"data.dir={self.directory}", "-s", "data.train_limit=21")
        self.assert_refused(result, "21", "20")

    def test_validation_takes_everything(self):
        result = run("train", os.path.join(RECIPES, "logistic.cfg"), "-s",
                     f"data.dir={self.directory}", "-s", "data.validation=20")
        self.assert_refused(result, "20")

    def test_evaluate_on_another_image_size(self):
        self.assertEqual(self.train_here().code, 0)
        os.mkdir(self.path("other"))
        self.write(f"other/{NAMES[2]}", images(10, size=14))
        self.write(f"other/{NAMES[3]}", labels(10))
        result = run("evaluate", self.path("run"), "--data", self.path("other"))
        self.assert_refused(result, "14x14", "28x28")


class RunDirectory(ProgramTest):
    def train_to(self, path):
        return run("train", os.path.join(RECIPES, "logistic.cfg"), "-s", f"data.dir={MNIST}",
                   "-s", "train.steps=1", "-o", path)

    def contents(self, directory):
        found = {}
        for folder, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[path] = file.read()
        return found

    def test_earlier_run_is_not_touched(self):
        self.assertEqual(self.train_to(self.path("run")).code, 0)
        before = self.contents(self.path("run"))
        self.assert_refused(self.train_to(self.path("run")), "run", "not empty")
        self.assertEqual(self.contents(self.path("run")), before)

    def test_empty_directory_is_used(self):
        os.mkdir(self.path("run"))
        self.assertEqual(self.train_to(self.path("run")).code, 0)

    def test_file_in_place_of_the_directory(self):
        path = self.write("run", "a file")
        self.assert_refused(self.train_to(path), path)
        with open(path) as file:
            self.assertEqual(file.read(), "a file")

    def test_below_a_file(self):
        path = os.path.join(self.write("file", "x"), "run")
        result = self.train_to(path)
        self.assertIn(result.code, (1, 2))
        self.assertIn(path, result.messages()[0])

"""The command line: what is understood, and what is refused with the word that was meant."""

import os

from program import MNIST, RECIPES, ProgramTest, run

LOGISTIC = os.path.join(RECIPES, "logistic.cfg")


class Commands(ProgramTest):
    def test_unknown_command_names_a_near_one(self):
        self.assert_refused(run("tain"), "unknown command 'tain'; nearest: 'train';", "--help")
        self.assert_refused(run("evalute"), "nearest: 'evaluate'")

    def test_unknown_command_without_a_near_one(self):
        result = run("bogus")
        self.assert_refused(result, "unknown command 'bogus'; 'espalier --help' lists")
        self.assertNotIn("nearest", result.err)

    def test_help_does_not_hide_an_unknown_command(self):
        for words in (["bogus", "--help"], ["--hepl"], ["-x", "--help"], ["", "-h"]):
            result = run(*words)
            self.assert_refused(result, f"unknown command '{words[0]}'")
            self.assertEqual(result.out, "")

    def test_help_and_version_are_words_too(self):
        self.assertEqual(self.run_ok("help").out, self.run_ok("--help").out)
        self.assertEqual(self.run_ok("-h").out, self.run_ok("--help").out)
        self.assertEqual(self.run_ok("version").out, self.run_ok("--version").out)

    def test_train_help_says_how_to_write_keys_once(self):
        out = self.run_ok("train", "--help").out
        for text in ("[a,b]", "network.NAME.KEY=VALUE", "Keys of a recipe", "Keys of a layer"):
            self.assertEqual(out.count(text), 1, text)


class Recipes(ProgramTest):
    def test_name_of_a_shipped_recipe(self):
        self.assert_refused(
            run("train", "ann_a"),
            "cannot open recipe 'ann_a': No such file or directory; shipped recipes are in "
            "jobs/recipes, for example jobs/recipes/ann_a.cfg",
        )

    def test_a_path_gets_no_such_hint(self):
        for name in ("./ann_a", "ann_b.cfg"):
            result = run("train", name)
            self.assert_refused(result, f"'{name}': No such file or directory")
            self.assertNotIn("shipped", result.err)

    def test_run_directory_in_place_of_its_recipe(self):
        recipe = self.write("first/recipe.cfg", "")
        for path in (self.path("first"), self.path("first") + "/"):
            self.assert_refused(run("train", path), f"is a directory; its recipe is {recipe}")

    def test_override_as_a_recipe_writes_it(self):
        run_dir = self.train("ann_a", "run", ['prune.layers = ["dense1"]', "train.steps = 1",
                                              "data.train_limit= 128", "data.test_limit =100"])
        with open(os.path.join(run_dir, "recipe.cfg")) as file:
            text = file.read()
        self.assertIn('layers = ["dense1"];', text)
        self.assertIn(" steps = 1;", text)


class RunDirectory(ProgramTest):
    def refused(self, *words, ranks=1):
        return run("train", LOGISTIC, "-s", f"data.dir={MNIST}", *words, ranks=ranks,
                   cwd=self.directory)

    def test_empty_name(self):
        self.assert_refused(self.refused("-o", ""), "train: option '-o' needs a directory's name")

    def test_second_name(self):
        result = self.refused("-o", self.path("a"), "-o", self.path("b"))
        self.assert_refused(result, "train: a second option '-o'; usage: espalier train")
        self.assertEqual(os.listdir(self.directory), [])

    def test_name_that_is_too_long(self):
        result = self.refused("-o", "x/" * 1024)
        self.assert_refused(result, "option '-o': found a path of 2048 bytes, expected at most 2047")
        self.assertEqual(os.listdir(self.directory), [])


class Models(ProgramTest):
    def test_run_that_did_not_finish(self):
        self.write("run/recipe.cfg", "")
        for command in ("evaluate", "inspect"):
            self.assert_refused(
                run(command, self.path("run")),
                f"{self.path('run')}: the run has no model.safetensors (yet): it did not finish",
            )

    def test_file_of_another_kind(self):
        path = self.write("README.md", "# A program\nand what it is for\n")
        self.assert_refused(run("inspect", path), f"{path}: not a safetensors file: ")

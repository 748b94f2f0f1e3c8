"""What train.backend chooses where there is no device to choose: the environment hides them all."""

import os

from program import MNIST, RECIPES, ProgramTest, run, summary

# Where CUDA is not compiled in, no driver is there, it is too old, and where all devices are hidden.
REASONS = (
    r"not compiled in; configure with -DESPALIER_CUDA=ON",
    r"no NVIDIA driver is installed",
    r"the NVIDIA driver is too old: it is made for CUDA \d+\.\d+, this program needs CUDA \d+\.\d+",
    r"no device is visible: CUDA_VISIBLE_DEVICES=",
)


class Backend(ProgramTest):
    def test_auto_is_the_cpu(self):
        run_dir = self.train("logistic", "run", ["train.steps=1", "data.train_limit=128"])
        self.assertEqual(summary(run_dir)["backend"], "cpu")

    def test_cuda_says_why_it_cannot(self):
        run_dir = self.path("run")
        recipe = os.path.join(RECIPES, "logistic.cfg")
        settings = ("train.backend=cuda", "train.steps=1", f"data.dir={MNIST}")
        words = [word for setting in settings for word in ("-s", setting)]
        result = run("train", recipe, *words, "-o", run_dir)
        self.assert_refused(result, "backend cuda: ", code=1)
        self.assertRegex(result.err, "|".join(f"backend cuda: {reason}" for reason in REASONS))

    def test_unknown_backend_is_refused(self):
        recipe = os.path.join(RECIPES, "logistic.cfg")
        result = run("train", recipe, "-s", "train.backend=cudo", "-o", self.path("run"))
        self.assert_refused(result, "train.backend", "cuda")

"""What train.backend chooses where there is no device to choose: the environment hides them all."""

import os
import subprocess

from program import MNIST, PROGRAM, RECIPES, ProgramTest, environment, run, summary

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

    def refusal(self, **changes):
        recipe = os.path.join(RECIPES, "logistic.cfg")
        settings = ("train.backend=cuda", "train.steps=1", f"data.dir={MNIST}")
        words = [word for setting in settings for word in ("-s", setting)]
        result = run("train", recipe, *words, "-o", self.path("run"), env=environment(**changes))
        self.assert_refused(result, "backend cuda: ", code=1)
        self.assertRegex(result.err, "|".join(f"backend cuda: {reason}" for reason in REASONS))
        return result.err

    def test_cuda_says_why_it_cannot(self):
        self.refusal()

    def test_the_plugin_finds_all_it_calls_in_the_program(self):
        """Opened for the sake of a library that is no driver, it is what refuses."""
        if "not compiled in" in self.refusal():
            self.skipTest("CUDA is not compiled in")
        library = self.path("libcuda.so.1")
        subprocess.run(["cc", "-shared", "-x", "c", os.devnull, "-o", library], check=True)
        path = os.path.dirname(library) + ":" + os.environ.get("LD_LIBRARY_PATH", "")
        self.assertTrue(self.refusal(LD_LIBRARY_PATH=path).endswith("driver is installed\n"))

    def test_the_program_itself_needs_no_library_of_cuda(self):
        needs = subprocess.run(["ldd", PROGRAM], check=True, capture_output=True, text=True).stdout
        self.assertIn("libz.", needs)
        self.assertNotRegex(needs, "libcu|libnccl")

    def test_unknown_backend_is_refused(self):
        recipe = os.path.join(RECIPES, "logistic.cfg")
        result = run("train", recipe, "-s", "train.backend=cudo", "-o", self.path("run"))
        self.assert_refused(result, "train.backend", "cuda")

"""The runner of the Python tests tells CTest what passed, failed and was skipped."""

import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

RUNNER = os.path.join(os.environ["ESPALIER_SOURCE"], "tests", "support", "run_test.py")
SAMPLE = textwrap.dedent("""
    import unittest

    class Sample(unittest.TestCase):
        def test_passes(self):
            pass

        def test_fails(self):
            self.fail("as it should")

        def test_errs(self):
            raise ValueError("as it should")

        @unittest.skip("as it should be")
        def test_skipped(self):
            self.fail("not run")

        @unittest.expectedFailure
        def test_surprises(self):
            pass
""")


class RunTest(unittest.TestCase):
    def code(self, name):
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "test_sample.py"), "w") as file:
                file.write(SAMPLE)
            return subprocess.run(
                [sys.executable, "-B", RUNNER, name], cwd=directory, capture_output=True
            ).returncode

    def test_exit_codes(self):
        self.assertEqual(self.code("test_sample.Sample.test_passes"), 0)
        self.assertEqual(self.code("test_sample.Sample.test_fails"), 1)
        self.assertEqual(self.code("test_sample.Sample.test_errs"), 1)
        self.assertEqual(self.code("test_sample.Sample.test_surprises"), 1)
        self.assertEqual(self.code("test_sample.Sample.test_absent"), 1)
        self.assertEqual(self.code("test_absent"), 1)
        self.assertEqual(self.code("test_sample.Sample.test_skipped"), 77)
        self.assertEqual(self.code("test_sample.Sample"), 1)

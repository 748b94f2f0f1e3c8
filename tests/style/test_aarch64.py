"""The kernels of the baseline instruction set compile for AArch64, on which they cannot run here."""

import glob
import os
import shutil
import subprocess
import tempfile
import unittest

SOURCE = os.environ["ESPALIER_SOURCE"]
COMPILER = "aarch64-linux-gnu-gcc"
OPTIONS = (
    "-std=c11 -O2 -fno-math-errno -fno-trapping-math -fopenmp-simd -ffp-contract=fast "
    "-Wall -Wextra -Wpedantic -Werror -c -DISA=baseline"
).split()


class AArch64(unittest.TestCase):
    @unittest.skipUnless(shutil.which(COMPILER), f"{COMPILER} is not installed")
    def test_kernels_compile(self):
        files = glob.glob(os.path.join(SOURCE, "src/cpu/kernels/*.c"))
        self.assertGreater(len(files), 5)
        with tempfile.TemporaryDirectory() as folder:
            for file in files:
                with self.subTest(os.path.basename(file)):
                    command = [
                        COMPILER,
                        *OPTIONS,
                        '-DVECTOR_HEADER="vector_generic.h"',
                        "-I" + os.path.join(SOURCE, "include"),
                        "-o",
                        os.path.join(folder, "kernel.o"),
                        file,
                    ]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    self.assertEqual(done.returncode, 0, done.stderr)

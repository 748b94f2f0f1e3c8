"""Which devices the code of an architecture list runs on: cuda/code.cmake."""

import os
import subprocess
import tempfile
import unittest

from program import SOURCE

MODULE = os.path.join(SOURCE, "cuda", "code.cmake")


class Code(unittest.TestCase):
    def rows(self, *architectures):
        """As devices.c has them, or CMake's complaint."""
        script = (f"include({MODULE})\ncuda_code(rows {' '.join(architectures)})\n"
                  'message("${rows}")\n')
        with tempfile.NamedTemporaryFile("w", suffix=".cmake") as file:
            file.write(script)
            file.flush()
            done = subprocess.run(["cmake", "-P", file.name], capture_output=True, text=True)
        return " ".join(done.stderr.split())

    def test_devices_of_an_architecture_list(self):
        """CUDA's programming guide: machine code of X.y runs on X.z, z >= y; intermediate code on all
        that are as new; that of an architecture (a) or family (f) not beyond it."""
        for architectures, rows in ((["75-real", "86-real", "120"], "{75,79},{86,89},{120,INT_MAX}"),
                                    (["80-virtual"], "{80,INT_MAX}"),
                                    (["90a", "90a-real", "100f"], "{90,90},{90,90},{100,109}")):
            self.assertEqual(self.rows(*architectures), rows)

    def test_other_lists_are_refused(self):
        for word in ("native", "sm_90", "90-fast"):
            self.assertIn(f"'{word}': expected NN", self.rows("80-real", word))

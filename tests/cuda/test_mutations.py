"""What a device may hide, the emulated one shows: with one thing left out, a test is red.

The programs are not changed: the emulation leaves out a barrier, a block, or a call."""

import os
import subprocess
import tempfile
import unittest

PROGRAMS = os.environ["EMULATED_PROGRAMS"]


def run(program, test, **environment):
    """Exit code and output of one test of a program of this folder."""
    done = subprocess.run(
        [os.path.join(PROGRAMS, program), test],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout


def places(program, test):
    """The barriers and launches that a test comes to."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "places")
        code, output = run(program, test, EMULATED_SITES=path)
        assert code == 0, output
        with open(path) as file:
            return sorted(set(file.read().split()))


class SampleKernels(unittest.TestCase):
    """The tests of the emulation itself, on kernels that are written for them."""

    TESTS = {
        "shared_memory_sums": 3,
        "shuffles_scan": 2,
        "tiles_of_templates_transpose": 2,
        "dynamic_shared_memory_counts": 3,
        "ballots_compact": 2,
    }

    def assert_red(self, test, dropped, program="test_emulation"):
        code, _ = run(program, test, EMULATED_DROP=dropped)
        self.assertNotEqual(code, 0, f"{test} is green without {dropped}")

    def test_each_barrier_and_each_block_matters(self):
        for test, count in self.TESTS.items():
            found = places("test_emulation", test)
            self.assertEqual(len(found), count, found)
            for place in found:
                with self.subTest(test=test, dropped=place):
                    self.assert_red(test, place)

    def test_each_event_matters(self):
        for call in ("cudaStreamWaitEvent:0", "cudaStreamWaitEvent:1", "cudaStreamWaitEvent:2"):
            for program, test in (
                ("test_emulation", "events_order_streams"),
                ("test_emulated_graphs", "graphs_replay_what_was_captured"),
            ):
                with self.subTest(test=test, dropped=call):
                    self.assert_red(test, call, program)

    def test_synchronising_matters(self):
        for test in self.TESTS:
            with self.subTest(test=test):
                self.assert_red(test, "cudaStreamSynchronize:0")

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


class Backend(unittest.TestCase):
    """Every barrier of the backend's kernels, and every launch's last block, against its tests."""

    TESTS = {
        "cuda_backend_slots": (
            "softmax_cross_entropy_adds_up", "gather_and_scatter_are_inverse_on_survivors",
            "gather_batch_divides_all_bytes_exactly", "compact_keeps_order_at_any_bit",
            "compact_takes_many_words",
            "hash_notices_every_word_and_place"),
        "cuda_backend_update": ("update_adadelta", "select_largest_refuses_what_is_no_number"),
        "cuda_select": ("select_breaks_ties_across_segments",),
        "cuda_batchnorm": ("in_training_it_is_the_reference",
                           "in_evaluation_it_goes_by_the_running_statistics"),
        "cuda_dropconnect": ("it_samples_what_the_reference_does",),
        "cuda_backend_blocks": ("conv_pool_exact", "dense_exact", "dropconnect_exact",
                                "dropout_exact", "conv_kernel_exact", "conv_direct_exact",
                                "conv_tiles_exact", "conv_activation"),
        "test_conv_filter": ("gradients_are_the_sums_over_pixels",),
        "test_sparse": ("products_are_the_sums_of_survivors",),
        "test_sparse_conv": ("convolutions_are_the_sums_of_survivors",),
        "cuda_steps": ("a_step_does_what_its_calls_do",),
    }
    # The last chunk's ties come after all that need to be counted.
    NEEDLESS = {"block@survivors.cu:count_ties"}

    def test_each_place_in_the_backend_matters(self):
        users = {}
        for program, tests in self.TESTS.items():
            for test in tests:
                for place in places(program, test):
                    users.setdefault(place, []).append((program, test))
        self.assertGreater(len(users), 40)
        green = {place for place, tests in users.items()
                 if all(run(program, test, EMULATED_DROP=place)[0] == 0 for program, test in tests)}
        self.assertEqual(green, self.NEEDLESS)

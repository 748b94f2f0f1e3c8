"""The model of dense layers that the CUDA backend decides by, and the page's, which is written down a
second time: the same for every device and layer of the page."""

import itertools
import json
import os
import subprocess
import sys
import unittest

SOURCE = os.environ["ESPALIER_SOURCE"]
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(SOURCE, "results", "gpu"))
import model  # noqa: E402
import sparse_conv_model  # noqa: E402
import sparse_model  # noqa: E402

DENSITIES = (0.001, 0.02, 0.1, 0.5)


def numbers(device, layer, density, *shape):
    return (device.capability, device.processors, device.clock_khz, int(device.tf32), layer.samples,
            int(layer.first), density, *shape)


def dense_numbers(device, layer, density):
    return numbers(device, layer, density, "dense", layer.inputs, layer.units)


def conv_numbers(device, layer, density):
    return numbers(device, layer, density, "conv", layer.height, layer.width, layer.channels,
                   layer.filters, layer.kernel, layer.stride, layer.padding)


class SparseModel(unittest.TestCase):
    def check(self, layers, numbers_of, page):
        rows = list(itertools.product(model.SPARSE_DEVICES, layers, DENSITIES))
        text = "\n".join(" ".join(map(str, numbers_of(*row))) for row in rows)
        done = subprocess.run([os.path.join(os.environ["EMULATED_PROGRAMS"], "sparse_table")],
                              input=text, capture_output=True, text=True, check=True, timeout=60)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), len(rows))
        for (device, layer, density), line in zip(rows, lines):
            dense, sparse, below = map(float, line.split())
            with self.subTest(device=device, layer=layer, density=density):
                self.assertAlmostEqual(dense / page.dense_seconds(device, layer), 1, 6)
                self.assertAlmostEqual(sparse / page.sparse_seconds(device, layer, density), 1, 3)
                self.assertAlmostEqual(below, page.break_even(device, layer), 3)

    def test_page_and_backend_agree(self):
        self.check([layer for _, layer in model.sparse_layers()], dense_numbers, sparse_model)

    def test_page_and_backend_agree_on_convolutions(self):
        strided = sparse_conv_model.Conv(15, 11, 70, 19, 3, 2, 1, 100, False)
        self.check([*(layer for _, layer in model.sparse_convolutions()), strided], conv_numbers,
                   sparse_conv_model)

    def test_devices_are_those_that_are_described(self):
        for device, file in ((sparse_model.H100, "h100"), (sparse_model.A100, "a100"),
                             (sparse_model.RTX_4090, "rtx_4090")):
            with open(os.path.join(SOURCE, "tests", "fixtures", "gpus", file + ".json")) as text:
                described = json.load(text)
            self.assertEqual(device.capability * 10, described["deviceVer"])
            self.assertEqual(device.processors, described["multiProcessorCount"])
            self.assertEqual(device.clock_khz, described["smClockRateKHz"])

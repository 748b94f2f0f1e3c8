"""espalier data: a directory of images, verified and described."""

import collections
import gzip
import hashlib
import os
import re
import shutil
import struct

from program import MNIST, ProgramTest, run

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
TINY_LABELS = (bytes([0, 3, 3, 1, 3, 0, 4]), bytes([2, 3]))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def images(count, size=3, magic=0x803):
    return struct.pack(">4I", magic, count, size, size) + bytes(
        i % 256 for i in range(count * size * size)
    )


def labels(values, magic=0x801):
    return struct.pack(">2I", magic, len(values)) + bytes(values)


def histogram(out):
    """{class: (training, test)} of the table."""
    rows = re.findall(r"^ *(\d+)  +(\d+)  [# ]{20}  +(\d+)  #*$", out, re.M)
    return {int(c): (int(train), int(test)) for c, train, test in rows}


class Describe(ProgramTest):
    def describe(self, directory):
        result = self.run_ok("data", directory)
        self.assertEqual(result.err, "")
        return result.out

    def check_files(self, out, paths, contents):
        """Path, then counts, then the SHA-256 of the raw bytes, file by file."""
        blocks = re.findall(r"^(/\S+)\n  (\d+) (\w+).*\n  sha256 (\w+)  (.*)$", out, re.M)
        self.assertEqual([b[0] for b in blocks], paths)
        for block, content in zip(blocks, contents, strict=True):
            self.assertEqual(int(block[1]), struct.unpack_from(">I", content, 4)[0])
            self.assertEqual(block[2], "images" if content[3] == 3 else "labels")
            self.assertEqual(block[3], hashlib.sha256(content).hexdigest())
        return {b[4] for b in blocks}

    def check_histogram(self, out, train, test):
        counts = [collections.Counter(content[8:]) for content in (train, test)]
        classes = range(max(counts[0] | counts[1]) + 1)
        self.assertEqual(histogram(out), {c: (counts[0][c], counts[1][c]) for c in classes})

    def check_mnist(self, directory, suffixes):
        contents = [read(os.path.join(MNIST, name)) for name in NAMES]
        out = self.describe(directory)
        paths = [os.path.join(directory, n + s) for n, s in zip(NAMES, suffixes, strict=True)]
        self.assertEqual(self.check_files(out, paths, contents), {"MNIST, original"})
        self.check_histogram(out, contents[1], contents[3])
        self.assertIn("60000 images of 28x28\n", out)
        self.assertIn("10000 labels, 10 classes\n", out)
        self.assertTrue(out.endswith("\nchecksums: MNIST, original\n"))

    def test_mnist(self):
        self.check_mnist(MNIST, ("", "", "", ""))

    def test_compressed_copies(self):
        """The digests are of the uncompressed files; a plain file wins over a compressed one."""
        for name in NAMES[1:]:
            compressed = gzip.compress(read(os.path.join(MNIST, name)), compresslevel=0)
            self.write(name + ".gz", compressed)
        self.write(NAMES[0] + ".gz", b"not looked at")
        shutil.copy(os.path.join(MNIST, NAMES[0]), self.directory)
        self.check_mnist(self.directory, ("", ".gz", ".gz", ".gz"))

    def test_foreign_data(self):
        contents = (images(7), labels(TINY_LABELS[0]), images(2), labels(TINY_LABELS[1]))
        for name, content in zip(NAMES, contents, strict=True):
            self.write(name, content)
        out = self.describe(self.directory)
        paths = [self.path(name) for name in NAMES]
        self.assertEqual(self.check_files(out, paths, contents), {"not MNIST's"})
        self.check_histogram(out, contents[1], contents[3])
        self.assertIn("7 images of 3x3\n", out)
        self.assertIn("7 labels, 5 classes\n", out)
        self.assertTrue(out.endswith("\nchecksums: not MNIST's\n"))

    def test_one_changed_byte(self):
        """The other three are MNIST's still."""
        for name in NAMES:
            shutil.copy(os.path.join(MNIST, name), self.directory)
        content = bytearray(read(self.path(NAMES[3])))
        content[8] ^= 1
        self.write(NAMES[3], bytes(content))
        out = self.describe(self.directory)
        self.assertEqual(out.count("  MNIST, original\n"), 3)
        self.assertTrue(out.endswith("\nchecksums: not MNIST's\n"))

    def test_bars_are_in_proportion(self):
        for name, content in zip(
            NAMES, (images(30), labels([0] * 20 + [1] * 10), images(1), labels([1])), strict=True
        ):
            self.write(name, content)
        bars = re.findall(r"^ *\d+  +\d+  (#*) +\d+  (#*)$", self.describe(self.directory), re.M)
        self.assertEqual([tuple(map(len, b)) for b in bars], [(20, 0), (10, 20)])


class Refuse(ProgramTest):
    def setUp(self):
        super().setUp()
        for name, content in zip(
            NAMES, (images(4), labels([0, 1, 2, 1]), images(2), labels([0, 1])), strict=True
        ):
            self.write(name, content)

    def refused(self, *texts, code=2):
        result = run("data", self.directory)
        self.assert_refused(result, *texts, code=code)
        self.assertEqual(result.out, "")

    def test_good_data_is_not(self):
        self.run_ok("data", self.directory)

    def test_no_directory(self):
        for path, text in ((self.path("absent"), "no such directory"),
                           (self.path(NAMES[0]), "not a directory")):
            self.assert_refused(run("data", path), f"espalier: {path}: {text}; ", "fetch_mnist.sh")

    def test_arguments(self):
        self.assert_refused(run("data"), "0 arguments, expected 1", "usage: espalier data DIR")
        self.assert_refused(run("data", "a", "b"), "2 arguments, expected 1")
        self.assert_refused(run("data", "--fast"), "unknown option '--fast'")

    def test_missing_file(self):
        for name in NAMES:
            content = read(self.path(name))
            os.remove(self.path(name))
            self.refused(f"{self.path(name)}: not found (nor .gz): an IDX file of ")
            self.write(name, content)

    def test_empty_file(self):
        self.write(NAMES[0], b"")
        self.refused(NAMES[0] + ": empty (0 bytes)")

    def test_magic(self):
        self.write(NAMES[1], labels([0, 1, 2, 1], magic=0xD01))
        self.refused(NAMES[1] + ": magic 0x00000d01 found, 0x00000801 (labels) expected")

    def test_truncated(self):
        self.write(NAMES[0], images(4)[:-1])
        self.refused(NAMES[0] + ": truncated: 52 bytes expected from the header, 51 found")

    def test_too_long(self):
        self.write(NAMES[2], images(2) + b"x")
        self.refused(NAMES[2] + ": bytes after the end: 34 bytes expected from the header, 35")

    def test_counts_disagree(self):
        self.write(NAMES[1], labels([0, 1, 2]))
        self.refused(NAMES[1] + ": 3 labels for 4 images")

    def test_sizes_disagree(self):
        self.write(NAMES[2], images(2, size=2))
        self.refused("test images of 2x2, the training images' 3x3 expected")

    def test_one_class(self):
        self.write(NAMES[1], labels([0, 0, 0, 0]))
        self.refused(NAMES[1] + ": all labels are 0, 2 to 256 classes expected")

    def test_damaged_gzip(self):
        os.remove(self.path(NAMES[0]))
        content = bytearray(gzip.compress(images(4)))
        self.write(NAMES[0] + ".gz", bytes(content[:-3]))
        self.refused(NAMES[0] + ".gz: gzip data cut short")
        content[-5] ^= 1  # of the CRC
        self.write(NAMES[0] + ".gz", bytes(content))
        self.refused(NAMES[0] + ".gz: damaged gzip data: incorrect data check")

    def test_directory_in_place_of_a_file(self):
        os.remove(self.path(NAMES[3]))
        os.mkdir(self.path(NAMES[3]))
        self.refused(NAMES[3] + ": a directory, an IDX file of labels expected")

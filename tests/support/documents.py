"""The commands of the documents, run as a reader would: in a copy of the tree, one after the other.

Two things differ: build/ holds a program that makes training and measuring short, and nothing is
compiled."""

import os
import re
import subprocess

from program import MNIST, SOURCE, environment

SHORT = """#!/bin/sh
case "$1" in
train) exec "{program}" "$@" -s train.steps=3 -s data.train_limit=640 -s data.test_limit=200 ;;
bench) exec "{program}" "$@" -s data.train_limit=640 -s train.batch=32 --steps 2 ;;
*) exec "{program}" "$@" ;;
esac
"""


def commands(document):
    """The lines of a document's sh blocks, without comments, continued ones joined."""
    with open(os.path.join(SOURCE, document), encoding="utf-8") as file:
        blocks = re.findall(r"^```sh\n(.*?)^```$", file.read(), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def make_tree(path, **programs):
    """A tree that a reader would have after building, and `programs` in front of the PATH."""
    for name in ("CMakeLists.txt", "jobs", "src", "include", "mpi"):
        os.makedirs(path, exist_ok=True)
        os.symlink(os.path.join(SOURCE, name), os.path.join(path, name))
    os.makedirs(os.path.join(path, "data"))
    os.symlink(MNIST, os.path.join(path, "data", "mnist"))
    programs = {f"bin/{name}": text for name, text in programs.items()}
    programs["build/espalier"] = SHORT.format(program=os.environ["ESPALIER"])
    for name, text in programs.items():
        target = os.path.join(path, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w") as file:
            file.write(text)
        os.chmod(target, 0o755)


def run_command(line, tree, **settings):
    """Whatever number of ranks the line starts: the reader has the cores."""
    path = f"{tree}/bin:{os.environ['PATH']}"
    env = environment(PATH=path, ESPALIER=None,
                      OMPI_MCA_rmaps_base_oversubscribe="1", **settings)
    return subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=tree, env=env,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)

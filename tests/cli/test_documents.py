"""What README says of the program's vocabulary is what the program says."""

import os
import re

from program import SOURCE, ProgramTest


def readme():
    with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
        return file.read()


class Readme(ProgramTest):
    def test_schedules_are_those_of_help(self):
        help_text = self.run_ok("train", "--help").out
        table = help_text[help_text.index("Schedules of prune.schedule"):]
        told = re.findall(r"^  (\w+) {2,}(\S.*)$", table, re.M)
        section = readme().split("\n## Schedules\n")[1].split("\n## ")[0]
        written = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.M)
        self.assertEqual(written, told)
        self.assertEqual(len(told), 7)

    def test_recipes_are_those_that_are_shipped(self):
        shipped = sorted(name[:-4] for name in os.listdir(os.path.join(SOURCE, "jobs", "recipes")))
        section = readme().split("| recipe | what it is |")[1].split("\n\n")[0]
        rows = re.findall(r"^\| (`[^|]+) \|", section, re.M)
        self.assertEqual(sorted(re.findall(r"`(\w+)`", " ".join(rows))), shipped)

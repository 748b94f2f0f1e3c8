"""The documents' commands that need a cluster, on one."""

from cluster import ClusterTest, command
from documents import commands, make_tree, run_command


def lines(document):
    return [line for line in commands(document) if "sbatch " in line]


class Reader(ClusterTest):
    def test_readme_of_jobs(self):
        tree = self.path("tree")
        make_tree(tree)
        self.assertEqual(len(lines("jobs/README.md")), 4)
        for line in lines("jobs/README.md"):
            done = run_command(line, tree)
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stderr}")
            job = done.stdout.split()[-1]
            for each in command("squeue", "-h", "-r", "-j", job, "-o", "%i").split():
                self.wait_for(each, "COMPLETED")

    def test_readme(self):
        self.assertEqual(len(lines("README.md")), 3)
        self.assertLessEqual(set(lines("README.md")), set(lines("jobs/README.md")))

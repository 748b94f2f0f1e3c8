"""jobs/gpu_check.sh on a machine that has stand-ins for the driver, the toolkit and the build: what it
asks for, what it does without, and the page that it writes."""

import os
import shutil
import signal
import stat
import subprocess
import time

from program import SOURCE, ProgramTest, environment

SCRIPT = os.path.join(SOURCE, "jobs", "gpu_check.sh")

# What a machine has anyway.
COMMANDS = ("awk bash basename cat cp cut date dirname env git grep head id ls mkdir mktemp mv nproc "
            "realpath rm sed sha256sum sleep tail timeout tr uname wc").split()

STANDINS = {
    "nvidia-smi": 'case "$*" in *driver*) echo 999.1 ;; *) printf "%b" "${FAKE_GPUS-Test GPU 9\\n}" ;; esac',
    "nvcc": "echo 'Cuda compilation tools, release 13.0, V13.0.1'",
    "make": "true", "cc": "true", "mpicc": "true",
    "mpirun": 'while [ "$1" != -n ]; do shift; done; RANKS=$2; shift 2; export RANKS; exec "$@"',
    "pkg-config": 'exit "${FAKE_NO_CMOCKA:-0}"',
    "cmake": """
echo "cmake $*" >>"$CALLS"
if [ "$1" = -S ]; then
    build=$4; mkdir -p "$build/tests/gpu"; cp "$FAKE_PROGRAM" "$build/espalier"
    for test in backend_blocks backend_slots backend_update batchnorm dropconnect dropout select sparse_form steps; do
        cp "$FAKE_PROGRAM" "$build/tests/gpu/gpu_$test"
    done
fi
exit "${FAKE_CMAKE:-0}" """,
    "ctest": """
echo "ctest $*" >>"$CALLS"
echo '90% tests passed, 1 tests failed out of 10'
[ -z "${FAKE_SKIPPED:-}" ] || echo '	5 - gpu_select_x (Skipped)'
exit "${FAKE_CTEST:-0}" """,
    "compute-sanitizer": """
echo "compute-sanitizer $*" >>"$CALLS"
while [ "${1#-}" != "$1" ]; do case "$1" in --tool) tool=$2; shift 2 ;; *) shift 2 ;; esac; done
[ "$tool" != "${FAKE_SLOW:-}" ] || exit 124
[ "$tool" != "${FAKE_HANGING:-}" ] || { echo $$ >"$CALLS.pid"; exec sleep 60; }
[ "$tool" != "${FAKE_UNCLEAN:-}" ] || { echo '========= ERROR SUMMARY: 3 errors'; exit 9; }
"$@" """,
    "python3": """
case "$*" in
*torch.cuda*) exit "${FAKE_NO_TORCH:-0}" ;;
*torch_mnist*) echo "python3 $*" >>"$CALLS"; echo '{"step_seconds": 0.001}' ;;
*) exec REAL_PYTHON "$@" ;;
esac""",
}

# A step of 250 us, of 500 where it is not captured.
PROGRAM = """#!/bin/bash
echo "espalier $* ranks=${RANKS:-1} graph=${ESPALIER_CUDA_GRAPH:-}" >>"$CALLS"
[ "$1" = bench ] || exit 0
case "$*" in *"${FAKE_SLOW_BENCH:-none}"*) sleep 60 & echo $! >"$CALLS.pid"; wait ;; esac
[ "${FAKE_BENCH:-0}" = 0 ] || { echo 'espalier: no GPU that can be used' >&2; exit 1; }
[ "${ESPALIER_CUDA_GRAPH:-1}" = 0 ] && s=0.0005 || s=0.00025
printf '{\\n  "images_per_second": 1,\\n  "step_seconds":\\t%s,\\n  "ranks": 1\\n}\\n' $s
"""


def ends(pid):
    """Whether the process is no more, or waits for its parent to notice, within 10 seconds."""
    for _ in range(200):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


class GpuModel(ProgramTest):
    def test_gpu_model_page_is_what_the_script_prints(self):
        folder = os.path.join(SOURCE, "results", "gpu")
        done = subprocess.run(["python3", "-B", os.path.join(folder, "model.py")],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(os.path.join(folder, "model.md")) as file:
            self.assertEqual(done.stdout, file.read())


class GpuCheck(ProgramTest):
    def setUp(self):
        super().setUp()
        self.bin = self.path("bin")
        os.makedirs(self.bin)
        for name in COMMANDS:
            os.symlink(shutil.which(name), os.path.join(self.bin, name))
        for name, body in STANDINS.items():
            self.standin(os.path.join("bin", name), "#!/bin/bash\n" + body.replace(
                "REAL_PYTHON", shutil.which("python3")) + "\n")
        self.standin("program", PROGRAM)

    def standin(self, name, text):
        os.chmod(self.write(name, text), stat.S_IRWXU)

    def started(self, *words, without=(), **changes):
        for name in without:
            os.remove(os.path.join(self.bin, name))
        env = environment(PATH=self.bin, CUDA_HOME=self.path("nothing"), CALLS=self.path("calls"),
                          FAKE_PROGRAM=self.path("program"),
                          ESPALIER_MNIST=os.path.join(SOURCE, "data", "mnist"), **changes)
        self.write("calls", "")
        return subprocess.Popen(
            [SCRIPT, "--out", self.path("out"), "--build", self.path("build"), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    def check(self, *words, **options):
        with self.started(*words, **options) as process:
            output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def page(self):
        with open(self.path("out", "test_gpu_9.md")) as file:
            return file.read()

    def calls(self, command):
        with open(self.path("calls")) as file:
            return [line.rstrip() for line in file if line.startswith(command)]

    def checked(self, *words, **options):
        done = self.check(*words, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.page()

    def refused(self, text, code, *words, **options):
        done = self.check(*words, **options)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(text, done.stderr)
        self.assertEqual(self.calls(""), [])

    def test_gpu_check_help(self):
        done = self.check("--help")
        self.assertEqual(done.returncode, 0)
        for option in ("--quick", "--out DIR", "--build DIR"):
            self.assertIn(option, done.stdout)

    def test_gpu_check_refuses_before_it_builds(self):
        self.refused("unknown argument '--fast'", 2, "--fast")
        self.refused("'--out' needs a directory", 2, "--out")
        self.refused("nvidia-smi lists no GPU", 1, FAKE_GPUS="")
        self.refused("no nvcc", 1, without=["nvcc"])
        self.refused("no nvidia-smi", 1, without=["nvidia-smi"])

    def test_gpu_check_writes_a_page(self):
        page = self.checked("--quick")
        self.assertIn("# Test GPU 9\n", page)
        self.assertIn("driver 999.1, CUDA\n13.0, MPI ON", page)
        self.assertIn("90% tests passed", page)
        for tool in ("memcheck", "racecheck"):
            self.assertIn(f"| {tool} | 4 updates of ann_a | clean |", page)
            self.assertIn(f"| {tool} | select select_breaks* | clean |", page)
            self.assertTrue(all(("--report-api-errors no" in call) == ("memcheck" in call)
                                for call in self.calls("compute-sanitizer")))
            self.assertEqual(len([call for call in self.calls("compute-sanitizer")
                                  if tool in call and "/tests/gpu/gpu_" in call]), 14)
        self.assertIn("| espalier ann_d | 128 | 512000 | 250.0 | 0.117 |", page)
        self.assertIn("| espalier ann_d, train.cudnn_autotune | 128 | 512000 |", page)
        self.assertIn("| espalier ann_d, not captured | 1024 | 2048000 | 500.0 | 0.029 |", page)
        for form in ("masked", "deleted", "sparse form"):
            for left in ("lenet_300_100, 2 %", "ann_a, 10 %"):
                self.assertIn(f"| espalier {left} left, {form} | 1024 | 4096000 | 250.0 | 0.015 |", page)
        self.assertIn("| PyTorch ann_d, compiled | 128 | 128000 | 1000.0 | 0.469 |", page)
        configure, build = self.calls("cmake")
        for word in ("-DESPALIER_CUDA=ON", "-DESPALIER_MPI=ON", "-DESPALIER_TESTS=ON"):
            self.assertIn(word, configure)
        self.assertIn("--target espalier --target gpu_tests", build)
        self.assertIn("-L gpu", self.calls("ctest")[0])
        self.assertEqual(len(self.calls("python3")), 6)
        self.assertIn("| PyTorch ann_d, eager, no TF32 | 128 | 128000 | 1000.0 | 0.469 |", page)
        self.assertNotIn("Stopped", page)
        self.assertEqual(os.listdir(self.path("out")), ["test_gpu_9.md"])
        self.assertEqual(self.calls("espalier train jobs/recipes/ann_d"), [])
        self.assertTrue(all("--steps 20" in call for call in self.calls("espalier bench")))

    def stopped(self, **changes):
        """The page of a check that got a signal when something of it hung, which ends with it."""
        with self.started("--quick", **changes) as process:
            deadline = time.monotonic() + 60
            while not os.path.exists(self.path("calls.pid")) and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            errors = process.communicate(timeout=10)[1]
        self.assertEqual(process.returncode, 143, errors)
        self.assertIn("test_gpu_9.partial.md has what was done", errors)
        with open(self.path("calls.pid")) as file:
            self.assertTrue(ends(int(file.read())))
        with open(self.path("out", "test_gpu_9.partial.md")) as file:
            return file.read()

    def test_gpu_check_stopped_keeps_what_was_done(self):
        self.checked("--quick")
        whole = self.page()
        page = self.stopped(FAKE_SLOW_BENCH="train.tf32=true")
        self.assertEqual(self.page(), whole)
        self.assertIn("90% tests passed", page)
        self.assertIn("| espalier ann_a | 128 | 512000 | 250.0 | 0.117 |", page)
        self.assertNotIn("tf32", page)
        self.assertIn("**Stopped before its end.** Not, or not all, done: measurements, training, "
                      "compute-sanitizer.", page)

    def test_gpu_check_stopped_among_the_sanitizers(self):
        page = self.stopped(FAKE_HANGING="racecheck")
        self.assertIn("**Stopped before its end.** Not, or not all, done: compute-sanitizer.", page)

    def test_gpu_check_that_wrote_no_page_names_none(self):
        """A build that fails after another check was stopped."""
        self.stopped(FAKE_SLOW_BENCH="train.tf32=true")
        self.assertNotIn("has what was done", self.check(FAKE_CMAKE="1").stderr)

    def test_gpu_check_without_mpi_and_sanitizer(self):
        page = self.checked(without=["mpicc", "compute-sanitizer"], FAKE_NO_TORCH="1",
                            FAKE_GPUS="Test GPU 9\\nTest GPU 9\\n")
        self.assertIn("MPI OFF", page)
        self.assertIn("| memcheck, racecheck | | not run: compute-sanitizer is missing |", page)
        self.assertNotIn("PyTorch", page)
        self.assertIn("-DESPALIER_MPI=OFF", self.calls("cmake")[0])
        self.assertFalse([c for c in self.calls("espalier") if "ranks=1" not in c])

    def test_gpu_check_without_cmocka_builds_no_tests(self):
        page = self.checked(FAKE_NO_CMOCKA="1")
        self.assertIn("not run: cmocka", page)
        self.assertEqual(self.calls("ctest"), [])
        self.assertNotIn("gpu_tests", self.calls("cmake")[1])
        self.assertEqual(len(self.calls("compute-sanitizer")), 2)

    def test_gpu_check_measures_several_gpus(self):
        page = self.checked(FAKE_GPUS="Test GPU 9\\n" * 4)
        for gpus in (2, 4):
            self.assertIn(f"| espalier ann_d, {gpus} GPUs | {128 * gpus} |", page)
        self.assertTrue([c for c in self.calls("espalier") if "ranks=4" in c])

    def test_gpu_check_tells_failed_tests(self):
        done = self.check(FAKE_CTEST="8")
        self.assertEqual(done.returncode, 1)
        self.assertIn("1 tests failed", self.page())
        self.assertIn("a test failed", done.stderr)

    def test_gpu_check_lets_no_test_be_skipped(self):
        done = self.check(FAKE_SKIPPED="1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("1 of them were **skipped**.", self.page())

    def test_gpu_check_tells_what_a_sanitizer_found(self):
        done = self.check(FAKE_UNCLEAN="racecheck")
        self.assertEqual(done.returncode, 1)
        self.assertIn("| memcheck | 4 updates of ann_a | clean |", self.page())
        self.assertIn("| racecheck | select select_breaks* | **failed**: ========= ERROR SUMMARY: 3 errors |",
                      self.page())

    def test_gpu_check_tells_what_a_sanitizer_does_not_finish(self):
        page = self.checked(FAKE_SLOW="racecheck")
        self.assertIn("| memcheck | steps a_step_does* | clean |", page)
        self.assertIn("| racecheck | steps a_step_does* | not finished in 60 s |", page)

    def test_gpu_check_tells_a_build_that_fails(self):
        done = self.check(FAKE_CMAKE="1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("failed: cmake", done.stderr)

    def test_gpu_check_tells_what_could_not_be_measured(self):
        page = self.checked(FAKE_BENCH="1")
        self.assertIn("| espalier ann_d | 128 | failed: espalier: no GPU that can be used |", page)

"""Training on emulated GPUs: the poster's annealed network on 1, 2 and 3 ranks over emulated NCCL.

The program is espalier with CUDA and NCCL compiled in, over the emulated device."""

import importlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from program import (MNIST, RECIPES, SOURCE, ProgramTest, environment, largest_difference,
                     launcher, model, read_events, run, summary)

EMULATED = os.path.join(os.environ["EMULATED_PROGRAMS"], "espalier_emulated")
# ann_a with fewer filters and units, and what is smooth: relu at 0, where a black image puts it, and
# Adadelta, which makes a full step of a gradient that is all rounding, end at other masks even on two
# instruction sets of the CPU.
ANN_A = """network = (
  { type = "conv"; filters = 6; kernel = 3; activation = "tanh"; },
  { type = "conv"; filters = 6; kernel = 3; activation = "tanh"; },
  { type = "maxpool"; size = 2; },
  { type = "dense"; units = 12; activation = "tanh"; name = "dense1"; },
  { type = "dense"; units = 10; name = "dense2"; }
);
train = { optimizer = "sgd"; momentum = 0.9; learning_rate = 0.05; };
prune = { layers = ["dense1", "dense2"]; scope = "layer"; schedule = "linear"; };
"""
SMALL = ["data.train_limit=120", "data.test_limit=20", "data.validation=20", "train.batch=24",
         "train.epochs=2", "prune.every=3", "prune.rate=0.2"]
DENSE = ["data.train_limit=300", "data.test_limit=20", "data.validation=20", "train.batch=30",
         "train.steps=8", "prune.every=3", "prune.rate=0.2", "prune.layers=[dense1]", "prune.schedule=linear",
         "train.backend=cuda"]

CODE = "this program has code for 7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 12.0 and newer"


def zeros(run_dir):
    """Which weights are gone, by tensor."""
    return {name: [i for i, x in enumerate(values) if x == 0]
            for name, (_, values) in model(run_dir).items() if name.endswith("weight")}


class Annealed(ProgramTest):
    """ann_a for a few steps, with pruning events between."""

    def setUp(self):
        super().setUp()
        self.recipe = self.write("ann_a.cfg", ANN_A)

    def emulated(self, name, ranks=1, settings=(), **env):
        wanted = ["train.backend=cuda", *SMALL, *settings]
        return self.train(self.recipe, name, wanted, ranks=ranks, program=EMULATED,
                          env=environment(**env))

    def check(self, ranks):
        """As near to the CPU's training as the CPU's instruction sets are to each other, the same
        masks, the same bits with and without graphs and in any order that a device may choose."""
        cpu = self.train(self.recipe, "cpu", SMALL, ranks=ranks)
        other = self.train(self.recipe, "other", SMALL, ranks=ranks,
                           env=environment(ESPALIER_ISA="baseline"))
        graph = self.emulated("graph", ranks)
        self.assertEqual(summary(graph)["backend"], "cuda")
        self.assertGreater(len(read_events(graph, "prune")), 1)
        self.assertEqual(zeros(cpu), zeros(graph))
        apart = largest_difference(model(cpu), model(other))
        self.assertLessEqual(largest_difference(model(cpu), model(graph)), 8 * apart)
        for name, env in (
            ("plain", {"ESPALIER_CUDA_GRAPH": "0"}),
            ("reverse", {"EMULATED_ORDER": "reverse"}),
            ("others", {"EMULATED_STREAMS": "others"}),
        ):
            run_dir = self.emulated(name, ranks, **env)
            self.assertEqual(summary(run_dir)["weights_sha256"], summary(graph)["weights_sha256"],
                             name)

    def test_resumed_on_the_other_backend(self):
        """From device to CPU and back, on as many ranks and on another number: as near to a run that
        the CPU did alone as its instruction sets are to each other."""
        whole = self.train(self.recipe, "whole", SMALL)
        other = self.train(self.recipe, "other", SMALL, env=environment(ESPALIER_ISA="baseline"))
        bound = 8 * largest_difference(model(whole), model(other))
        for before, after, ranks in (("cuda", "cpu", 1), ("cpu", "cuda", 1), ("cuda", "cpu", 2)):
            with self.subTest(before=before, after=after, ranks=ranks):
                words = ["train", self.recipe, "-o", self.path(f"{before}{ranks}")]
                for setting in [f"data.dir={MNIST}", *SMALL]:
                    words += ["-s", setting]
                self.run_ok(*words, "-s", "train.epochs=1", "-s", f"train.backend={before}",
                            program=EMULATED)
                self.run_ok(*words, "-s", f"train.backend={after}", "--resume", program=EMULATED,
                            ranks=ranks)
                run_dir = self.path(f"{before}{ranks}")
                self.assertEqual(summary(run_dir)["backend"], after)
                self.assertEqual(read_events(run_dir, "resume")[0]["step"], 5)
                self.assertEqual(zeros(run_dir), zeros(whole))
                self.assertLessEqual(largest_difference(model(run_dir), model(whole)), bound)

    def test_autotuned_engines(self):
        """The fastest ones sum in another order. All ranks take rank 0's, and a run that goes on
        takes those that it had."""
        settings, env = ["train.cudnn_autotune=true"], {"ESPALIER_CUDA_CONV": "cudnn"}
        for ranks in (1, 2):
            plain = self.emulated(f"plain{ranks}", ranks, **env)
            tuned = self.emulated(f"tuned{ranks}", ranks, settings, **env)
            again = self.emulated(f"again{ranks}", ranks, settings, ESPALIER_CUDA_GRAPH="0",
                                  **env)
            engines = read_events(tuned, "engines")
            self.assertEqual(engines[0]["step"], 0)
            self.assertEqual(engines[0]["conv2.forward"], "cudnn 6.1")
            self.assertEqual(engines[0]["conv2.backward"], "cudnn 6.1 6.1")
            self.assertEqual(engines[0]["conv1.backward"], "cudnn 6.1")
            self.assertEqual(read_events(plain, "engines"), [])
            self.assertEqual(summary(tuned)["weights_sha256"], summary(again)["weights_sha256"])
            self.assertNotEqual(summary(tuned)["weights_sha256"], summary(plain)["weights_sha256"])
            self.assertEqual(zeros(tuned), zeros(plain))
            self.assertLess(largest_difference(model(tuned), model(plain)), 1e-5)
        first = self.emulated("stopped", 2, [*settings, "train.epochs=1"], **env)
        words = ["train", self.recipe, "-o", first, "--resume"]
        for setting in [f"data.dir={MNIST}", "train.backend=cuda", *SMALL, *settings]:
            words += ["-s", setting]
        self.run_ok(*words, program=EMULATED, ranks=2, env=environment(**env))
        self.assertEqual(summary(first)["weights_sha256"], summary(tuned)["weights_sha256"])
        self.assertEqual(len(read_events(first, "engines")), len(engines))

    def choices(self, run_dir):
        """Of the newest checkpoint, by block and pass."""
        newest = max(os.listdir(os.path.join(run_dir, "checkpoints")))
        with open(os.path.join(run_dir, "checkpoints", newest), "rb") as file:
            content = file.read()
        (length,) = struct.unpack_from("<Q", content)
        begin, end = json.loads(content[8 : 8 + length])["backend.choices"]["data_offsets"]
        return struct.unpack(f"<{(end - begin) // 8}q", content[8 + length + begin : 8 + length + end])

    def test_autotuned_engines_survive_the_cpu(self):
        """A run that a CPU goes on with for a while has them when it comes back, and measures none."""
        words = ["train", self.recipe, "-o", self.path("run"), "--resume"]
        for setting in [f"data.dir={MNIST}", *SMALL, "train.cudnn_autotune=true"]:
            words += ["-s", setting]
        found, direct = [], 2**32 - 2
        for epochs, backend in enumerate(("cuda", "cpu", "cuda"), 1):
            self.run_ok(*words, "-s", f"train.epochs={epochs}", "-s", f"train.backend={backend}",
                        program=EMULATED)
            found.append(self.choices(self.path("run")))
        self.assertEqual(found[0][4:8], (direct, 0, direct, direct))  # forward, with relu, backward
        self.assertEqual(found[1:], found[:1] * 2)
        steps = [event["step"] for event in read_events(self.path("run"), "engines")]
        self.assertEqual([step for step in steps if step <= 10], [0]) # then layers shrink

    def test_on_1_rank(self):
        self.check(1)

    def test_on_2_ranks(self):
        self.check(2)

    def test_on_3_ranks(self):
        self.check(3)


class Poster(ProgramTest):
    """The poster's network as it is shipped, at a small batch. Adadelta makes whole steps of
    gradients that are all rounding, so that only the first loss is the CPU's."""

    SETTINGS = ["data.train_limit=28", "data.test_limit=3", "train.batch=8", "train.log_every=1",
                "train.epochs=2", "train.steps=5", "prune.every=3"]

    def check(self, ranks):
        def trained(name, backend, **env):
            run_dir = self.train(os.path.join(RECIPES, "ann_a.cfg"), name,
                                 [*self.SETTINGS, f"train.backend={backend}"],
                                 ranks=ranks, program=EMULATED, env=environment(**env))
            self.assertEqual(summary(run_dir)["backend"], backend)
            return run_dir

        cpu, graph = trained("cpu", "cpu"), trained("graph", "cuda")
        plain = trained("plain", "cuda", ESPALIER_CUDA_GRAPH="0", EMULATED_ORDER="reverse")
        self.assertEqual(summary(plain)["weights_sha256"], summary(graph)["weights_sha256"])
        self.assertEqual(summary(cpu)["survivors"], summary(graph)["survivors"])
        ours, theirs = (read_events(run_dir, "step") for run_dir in (graph, cpu))
        self.assertEqual(len(ours), 5)
        self.assertAlmostEqual(ours[0]["loss"], theirs[0]["loss"], 5)

    def test_ann_a_on_1_rank(self):
        self.check(1)

    def test_ann_a_on_3_ranks(self):
        self.check(3)


class Sparse(ProgramTest):
    """lenet_300_100 with its dense layers in sparse form from the first pruning event on, with inputs
    and units gone from their shapes."""

    RECIPE = os.path.join(RECIPES, "lenet_300_100.cfg")
    SETTINGS = ["data.train_limit=170", "data.test_limit=10", "data.validation=10", "train.batch=20",
                "train.epochs=1", "prune.every=2", "prune.rate=0.9", "prune.schedule=geometric",
                "prune.keep=0.02", "prune.sparse_below=0.9"]

    def trained(self, name, ranks, settings=(), program=None, **env):
        words = [*self.SETTINGS, *settings] + (["train.backend=cuda"] if program else [])
        return self.train(self.RECIPE, name, words, ranks=ranks, env=environment(**env),
                          **({"program": program} if program else {}))

    def check(self, ranks):
        """The CPU's masks, and its weights as nearly as the dense form has them; captured, and
        queued in the other order, the same bits."""
        cpu = self.trained("cpu", ranks)
        dense = self.trained("dense", ranks, ["prune.deletion=mask"])
        graph = self.trained("graph", ranks, program=EMULATED)
        self.assertLess(summary(graph)["survivors"], 10000)
        self.assertEqual(zeros(cpu), zeros(graph))
        self.assertEqual(zeros(cpu), zeros(dense))
        apart = largest_difference(model(cpu), model(dense))
        self.assertLessEqual(largest_difference(model(cpu), model(graph)), 8 * apart)
        other = self.trained("other", ranks, program=EMULATED, ESPALIER_CUDA_GRAPH="0",
                             EMULATED_ORDER="reverse")
        self.assertEqual(summary(other)["weights_sha256"], summary(graph)["weights_sha256"])

    def test_sparse_form_on_1_rank(self):
        self.check(1)

    def test_sparse_form_on_2_ranks(self):
        self.check(2)

    def test_sparse_convolutions_on_2_ranks(self):
        """Both convolutions of ann_a in sparse form too."""
        self.recipe = self.write("ann_a.cfg", ANN_A)
        settings = [*SMALL, "prune.layers=[conv1,conv2,dense1]", "prune.rate=0.45",
                    "prune.sparse_below=0.9"]

        def trained(name, program, extra=(), **env):
            return self.train(self.recipe, name, [*settings, *extra], ranks=2,
                              env=environment(**env), **program)

        emulated = {"program": EMULATED}
        cpu, dense = trained("cpu", {}), trained("dense", {}, ["prune.deletion=mask"])
        graph = trained("graph", emulated, ["train.backend=cuda"])
        other = trained("other", emulated, ["train.backend=cuda"], ESPALIER_CUDA_GRAPH="0",
                        EMULATED_ORDER="reverse")
        self.assertEqual(zeros(cpu), zeros(graph))
        apart = largest_difference(model(cpu), model(dense))
        self.assertLessEqual(largest_difference(model(cpu), model(graph)), 8 * apart)
        self.assertEqual(summary(other)["weights_sha256"], summary(graph)["weights_sha256"])

    def test_layers_are_in_sparse_form_below_the_threshold(self):
        recipe = self.write("small.cfg", """network = (
            { type = "conv"; filters = 2; kernel = 3; }, { type = "dense"; units = 10; } );
            prune = { layers = ["conv1", "dense1"]; };""")
        for below, names, others in (("0.9", ["sparse weights"], ["direct  "]),
                                     ("0", ["direct  "], ["sparse weights"])):
            words = ["bench", recipe, "--density", "0.05", "--steps", "1", "--plans"]
            for setting in (f"data.dir={MNIST}", "train.backend=cuda", "train.batch=8",
                            "data.train_limit=40", f"prune.sparse_below={below}"):
                words += ["-s", setting]
            printed = self.run_ok(*words, program=EMULATED).out
            for name in names:
                self.assertIn(name, printed)
            for other in others:
                self.assertNotIn(other, printed)


class Together(ProgramTest):
    """Ranks and devices, failures, and what must not be left out: a network without convolutions."""

    RECIPE = os.path.join(RECIPES, "logistic.cfg")

    def words(self, settings=(), recipe=RECIPE):
        self.runs = getattr(self, "runs", 0) + 1
        words = ["train", recipe, "-o", self.path(f"run{self.runs}"), "-s", f"data.dir={MNIST}"]
        for setting in [*DENSE, *settings]:
            words += ["-s", setting]
        return words

    def trained(self, ranks, *flags, **env):
        self.run_ok(*self.words(), *flags, ranks=ranks, program=EMULATED, env=environment(**env))
        return summary(self.path(f"run{self.runs}"))["weights_sha256"]

    def test_a_shared_device_gives_the_same_bits(self):
        apart = self.trained(2)
        self.assertEqual(apart, self.trained(2, "--share-gpus", EMULATED_DEVICES="1"))

    def test_two_ranks_on_one_device_are_refused(self):
        """Ranks take what they see in turn."""
        for ranks, devices, names in ((2, "1", "ranks 0 and 1"), (3, "2", "ranks 0 and 2")):
            result = run(*self.words(), ranks=ranks, program=EMULATED,
                         env=environment(EMULATED_DEVICES=devices))
            self.assert_refused(result, names, "--share-gpus", code=result.code)
            self.assertNotEqual(result.code, 0)

    def shell_program(self, settings):
        """The program with a shell's settings, which may go by $OMPI_COMM_WORLD_LOCAL_RANK."""
        program = self.write("program", f"#!/bin/sh\n{settings} exec {EMULATED} \"$@\"\n")
        os.chmod(program, 0o700)
        return program

    def trained_with(self, settings):
        """The summary of two ranks, each with such settings."""
        self.run_ok(*self.words(), ranks=2, program=self.shell_program(settings))
        return summary(self.path(f"run{self.runs}"))

    def test_a_rank_that_is_shown_one_device_takes_it(self):
        """As a launcher shows each rank another one: the same run as on those that all see."""
        shown = self.trained_with("EMULATED_DEVICES=1 EMULATED_FIRST=$OMPI_COMM_WORLD_LOCAL_RANK")
        self.assertEqual(shown["communicator"], "nccl")
        self.assertEqual(shown["weights_sha256"], self.trained(2))

    def test_ranks_record_together_or_not_at_all(self):
        """One of them cannot: what goes into a graph is a matter of all ranks to NCCL."""
        one = self.trained_with("ESPALIER_CUDA_GRAPH=$OMPI_COMM_WORLD_LOCAL_RANK")
        self.assertEqual(one["weights_sha256"], self.trained(2))

    def test_no_device(self):
        too_old = {"EMULATED_FAIL": "cudaGetDeviceCount:0:35"} # cudaErrorInsufficientDriver
        hidden = {"EMULATED_FAIL": "cudaGetDeviceCount:0:100"} # cudaErrorNoDevice
        for env, reason in (({"EMULATED_DEVICES": "0"}, "no NVIDIA driver is installed"),
                            (too_old, "the NVIDIA driver is too old: it is made for CUDA"),
                            (hidden, "no device is visible: CUDA_VISIBLE_DEVICES="),
                            ({**hidden, "CUDA_VISIBLE_DEVICES": None}, "no device: no CUDA-capable")):
            result = run(*self.words(), program=EMULATED, env=environment(**env))
            self.assert_refused(result, f"backend cuda: {reason}", code=1)
            self.run_ok(*self.words(["train.backend=auto"]), program=EMULATED,
                        env=environment(**env))
            self.assertEqual(summary(self.path(f"run{self.runs}"))["backend"], "cpu")

    def calls(self, steps):
        """Of each function, in a run of so many updates, all in one epoch without events."""
        path = self.path(f"calls{steps}")
        words = self.words(["data.train_limit=3000", f"train.steps={steps}", "prune.schedule=none",
                            "train.log_every=1000"])
        self.run_ok(*words, program=EMULATED, env=environment(EMULATED_CALLS=path))
        with open(path) as file:
            return {name: int(count) for name, count in (line.split() for line in file)}

    def test_the_host_waits_for_nothing_within_an_epoch(self):
        """70 updates more are 70 graphs launched and what sets their values; neither a wait, nor an
        allocation, nor a library's call."""
        few, many = self.calls(20), self.calls(90)
        more = {name: many[name] - few.get(name, 0) for name in many
                if many[name] != few.get(name, 0) and name not in ("*", "ncclAsync")}
        self.assertEqual(more, {"cudaGraphLaunch": 70, "launch": 70, "cudaMemcpyAsync": 70})

    def test_an_update_is_the_launches_of_the_model(self):
        """results/gpu/model.py's list, for the poster's network with fewer filters and images, not captured:
        each of its launches is a kernel, a copy or a product by cuBLAS."""
        sys.path.insert(0, os.path.join(SOURCE, "results", "gpu"))
        listed = importlib.import_module("model")
        counts = []
        for steps in (2, 5):
            path = self.path(f"launched{steps}")
            self.train(os.path.join(RECIPES, "ann_d.cfg"), f"launches{steps}", [
                "train.backend=cuda", "data.train_limit=100", "data.test_limit=1", "train.batch=8",
                f"train.steps={steps}", "network.conv1.filters=8", "network.conv2.filters=8",
                "train.log_every=1000"], program=EMULATED,
                env=environment(EMULATED_CALLS=path, ESPALIER_CUDA_GRAPH="0"))
            with open(path) as file:
                calls = {name: int(count) for name, count in (line.split() for line in file)}
            counts.append(calls["launch"] + calls["cudaMemcpyAsync"] + calls["cublasSgemm_v2"])
        self.assertEqual(counts[1] - counts[0], 3 * len(listed.launches(listed.network("ann_d"), 128)))

    def test_a_nan_ends_the_run_with_update_and_layer(self):
        """A relu of the first convolution's that loses NaNs would train on for ever."""
        network = ("network = ({ type = 'conv'; filters = 2; kernel = 3; activation = 'relu'; },"
                   " { type = 'dense'; units = 10; });").replace("'", '"')
        recipe = self.write("relu.cfg", network)
        for conv, loose in (("direct", "strict"), ("cudnn", "strict"), ("cudnn", "loose")):
            self.runs = getattr(self, "runs", 0) + 1
            words = ["train", recipe, "-o", self.path(f"run{self.runs}"), "-s", f"data.dir={MNIST}"]
            for setting in ("data.train_limit=320", "data.test_limit=20", "train.batch=16",
                            "train.steps=20", "train.log_every=2", "train.optimizer=sgd",
                            "train.learning_rate=1e6", "train.l2=1e6", "train.backend=cuda"):
                words += ["-s", setting]
            result = run(*words, program=EMULATED, env=environment(EMULATED_RELU=loose,
                                                                     ESPALIER_CUDA_CONV=conv))
            self.assert_refused(result, "the training loss is ", "conv1.weight is not finite", code=1)

    def test_auto_takes_the_device_and_says_which(self):
        """One that there is no code for is none, and is named: another is taken, or the CPU."""
        auto = ["train.backend=auto", "train.steps=1"]
        for capabilities, taken, refused in (("90", "9.0", None), ("35,80,90", "8.0", "3.5"),
                                             ("110,35,60,70", None, "11.0")):
            with self.subTest(capabilities=capabilities):
                env = environment(EMULATED_CAPABILITIES=capabilities)
                result = self.run_ok(*self.words(auto), program=EMULATED, env=env)
                start = read_events(self.path(f"run{self.runs}"), "start")[0]
                self.assertEqual(start["backend"], "cpu" if taken is None else "cuda")
                self.assertEqual(start.get("compute_capability"), taken)
                note = f"note: a GPU is left alone: Emulated GPU has compute capability {refused}; {CODE}"
                self.assertEqual(note in result.err, refused is not None, result.err)
                if taken is not None:
                    self.assertEqual(start["device"], "Emulated GPU")
                    self.assertEqual(start["device_memory_bytes"], 4 << 30)
                    self.assertIn(f"Emulated GPU (compute capability {taken}, 4.0 GiB)", result.err)

    def test_a_device_that_there_is_no_code_for_is_refused(self):
        """By its capability, or by the runtime: at the start, and on one of two ranks too. Under auto
        that rank has no GPU, and is told why."""
        env = environment(EMULATED_CAPABILITIES="110", EMULATED_DEVICES="1")
        self.assert_refused(run(*self.words(), program=EMULATED, env=env),
                            f"backend cuda: Emulated GPU has compute capability 11.0; {CODE}", code=1)
        env = environment(EMULATED_FAIL="cudaFuncGetAttributes:1:209")
        for backend in ("cuda", "auto"):
            words = self.words([f"train.backend={backend}"])
            self.assert_refused(run(*words, program=EMULATED, env=env),
                                f"backend cuda: Emulated GPU has compute capability 9.0; {CODE}", code=1)
        rank = "$OMPI_COMM_WORLD_LOCAL_RANK"
        program = self.shell_program(f"EMULATED_DEVICES=1 EMULATED_FIRST={rank} "
                                     f"EMULATED_CAPABILITIES=$((90 + 20 * {rank}))")
        why = f"Emulated GPU has compute capability 11.0; {CODE}"
        for backend, message in (("cuda", f"espalier: backend cuda: {why}"),
                                 ("auto", f"rank 0 has a GPU, rank 1 has none ({why})")):
            result = run(*self.words([f"train.backend={backend}"]), ranks=2, program=program)
            self.assertNotEqual(result.code, 0)
            self.assertEqual(len(result.messages()), 1, result.err)
            self.assertIn(message, result.err)

    def test_each_failure_is_one_message(self):
        """A call fails on one of two ranks; both end, and one line says why. Three runs at a time:
        most of it is the launcher's waiting."""
        calls = ("cudaMalloc:3", "launch:3", "cudaMemcpyAsync:3", "cublasSgemm_v2:3",
                 "cublasCreate_v2:1", "cudnnCreate:1", "cudaGraphInstantiate:1",
                 "cudaGraphLaunch:1", "cudaStreamEndCapture:1",
                 "cudaStreamSynchronize:3", "ncclCommInitRank:1",
                 "ncclAllReduce:3", "ncclAsync:1", "ncclAsync:3")
        many_units = os.path.join(RECIPES, "lenet_300_100.cfg")
        runs = [(f"{call}:0:{i % 2}", self.words(["train.hang_seconds=20"],
                                                 many_units if "Sgemm" in call else self.RECIPE))
                for i, call in enumerate(calls)]
        with ThreadPoolExecutor(3) as pool:
            results = pool.map(lambda each: run(*each[1], ranks=2, program=EMULATED,
                                                env=environment(EMULATED_FAIL=each[0])), runs)
        for (failure, _), result in zip(runs, results):
            with self.subTest(failure=failure):
                self.assertNotEqual(result.code, 0)
                self.assertEqual(len(result.messages()), 1, result.err)

    def message_after(self, sent):
        """Of two ranks that train for ever, when one of them is sent a signal."""
        words = self.words(["train.hang_seconds=3", "train.steps=100000", "train.epochs=1000"])
        process = subprocess.Popen(launcher(2) + [EMULATED, *words], env=environment(),
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                   start_new_session=True)
        try:
            os.kill(self.child_of(process.pid), sent)
            _, err = process.communicate(timeout=90)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        self.assertNotEqual(process.returncode, 0)
        return err

    def test_a_stopped_rank_is_named(self):
        """A rank that stops answers nobody; the others end the run within the time given."""
        self.assertIn("train.hang_seconds", self.message_after(signal.SIGSTOP))

    def test_a_killed_rank_ends_the_run(self):
        """By the launcher, which says so."""
        self.assertIn("signal 9", self.message_after(signal.SIGKILL))

    def child_of(self, launcher_pid):
        """The last of the launcher's ranks, once its run has begun."""
        events = self.path(f"run{self.runs}", "events.jsonl")
        while not os.path.exists(events) or os.path.getsize(events) < 400:
            time.sleep(0.05)
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher_pid)],
                               capture_output=True, text=True, check=True).stdout.split()
        return int(found[-1])

    def test_what_is_left_out_is_noticed(self):
        """Without one kind of event or wait, two ranks do not come to the same weights as before,
        or do not come to an end."""
        whole = self.trained(2, ESPALIER_CUDA_GRAPH="0")

        def notices(call, order):
            result = run(*self.words(), ranks=2, program=EMULATED,
                         env=environment(EMULATED_DROP=call, EMULATED_ORDER=order,
                                         ESPALIER_CUDA_GRAPH="0"))
            return (result.code != 0 or
                    summary(self.path(f"run{self.runs}"))["weights_sha256"] != whole)

        for call in ("cudaStreamWaitEvent:0", "cudaStreamSynchronize:0", "ncclAllReduce:0"):
            self.assertTrue(notices(call, "forward") or notices(call, "reverse"), call)

#!/usr/bin/env python3
"""The training step (or the evaluation) of espalier's networks in PyTorch, as fast as it will go.

Prints one line of JSON: images per second and the median step, for tests/bench to compare. Needs
torch and nothing else; reads MNIST's IDX files by itself.

What is chosen in PyTorch's favour:
- all images are converted to float once, in memory, before the clock starts; a batch is one
  index_select by a permutation drawn beforehand (no DataLoader, no copy from bytes each step);
- channels_last for the convolutions, which oneDNN takes without reordering;
- gradients are set to None rather than cleared; the optimizer updates all tensors at once
  (foreach); neither loss nor accuracy is read back;
- between processes: DistributedDataParallel over gloo, gradients as views of its buckets, a static
  graph, no broadcast of buffers;
- evaluation in inference_mode on a traced and frozen graph, whose convolutions, biases and
  activations are fused; batches of 128 as well (64 to 250 are equally fast, 500 and more slower);
- OpenBLAS that does not know the processor falls back to SSE3: like espalier, this program then
  starts itself anew with the best kernels that the machine can run.

On a GPU (--device cuda) the images lie in its memory, the host waits for it once, after all measured
updates, and --compile lets torch.compile put forward, loss and backward, and the optimizer's update,
into CUDA graphs. cuDNN's engines are chosen by their times, and convolutions are rounded to TF32, as
PyTorch comes (--no-tf32: they are not); of channels_last and contiguous images the faster is taken, by
a few updates each, not compiled.

With --as-it-comes none of that is chosen, but for batches from memory: PyTorch's defaults, as a first
program has them.

The number of OpenBLAS's threads (OPENBLAS_NUM_THREADS) is the caller's to choose: Debian's build
calls it with threads of its own inside PyTorch's.
"""

import argparse
import ctypes
import gzip
import json
import os
import statistics
import struct
import sys
import tempfile
import time


def restart_for_kernels():
    """Let OpenBLAS use the vectors that the machine has, when it did not recognise it."""
    try:
        library = ctypes.CDLL("libopenblas.so.0")
        library.openblas_get_corename.restype = ctypes.c_char_p
        core = library.openblas_get_corename().decode()
        with open("/proc/cpuinfo") as file:
            flags = next(line for line in file if line.startswith("flags")).split()
    except (OSError, AttributeError, StopIteration):
        return
    if core != "Prescott" or "OPENBLAS_CORETYPE" in os.environ:
        return
    for name, needs in (("SkylakeX", {"avx512f", "avx512vl", "avx512bw", "avx512dq"}),
                        ("Haswell", {"avx2", "fma"})):
        if needs <= set(flags):
            os.environ["OPENBLAS_CORETYPE"] = name
            os.execv(sys.executable, [sys.executable, *sys.argv])


def read_idx(directory, name):
    """The bytes after an IDX header, from the plain file or the one with .gz."""
    path = os.path.join(directory, name)
    opened = open(path, "rb") if os.path.exists(path) else gzip.open(path + ".gz", "rb")
    with opened as file:
        magic = file.read(4)
        sizes = struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
        return sizes, bytearray(file.read())


def load(torch, directory, split):
    """Images [n, 1, height, width] as float in [0, 1], labels [n]."""
    (count, height, width), pixels = read_idx(directory, f"{split}-images-idx3-ubyte")
    _, labels = read_idx(directory, f"{split}-labels-idx1-ubyte")
    images = torch.frombuffer(pixels, dtype=torch.uint8).view(count, 1, height, width)
    return images.float() / 255, torch.frombuffer(labels, dtype=torch.uint8).long()


def ann_d(torch, filters):
    """The poster's network: jobs/recipes/ann_d.cfg."""
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, filters, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(12 * 12 * filters, 128), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(128, 10))
    return model, lambda p, **how: torch.optim.Adadelta(p, 1.0, 0.95, 1e-8, **how)


def lenet_300_100(torch, filters):
    """jobs/recipes/lenet_300_100.cfg."""
    nn = torch.nn
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100),
                          nn.ReLU(), nn.Linear(100, 10))
    return model, lambda p, **how: torch.optim.SGD(p, 0.05, 0.9, **how)


NETWORKS = {"ann_d": ann_d, "lenet_300_100": lenet_300_100}


def train(torch, options, rank):
    """Seconds of each measured update, a rank's part of the global batch; on a GPU each has the mean."""
    layout = torch.contiguous_format if options.as_it_comes else torch.channels_last
    if options.device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = not options.no_tf32
        layout = min((torch.channels_last, torch.contiguous_format), key=lambda layout: updates(
            torch, options, rank, layout, 20, 50, False)[0])
    return updates(torch, options, rank, layout, options.warm_up, options.steps, options.compile)


def updates(torch, options, rank, layout, warm_up, steps, compiled):
    images, labels = (tensor.to(options.device) for tensor in load(torch, options.data, "train"))
    torch.manual_seed(1)
    model, optimizer_of = NETWORKS[options.network](torch, options.filters)
    model = model.to(options.device, memory_format=layout)
    images = images.contiguous(memory_format=layout)
    if options.ranks > 1:
        how = {} if options.as_it_comes else {
            "gradient_as_bucket_view": True, "static_graph": True, "broadcast_buffers": False}
        model = torch.nn.parallel.DistributedDataParallel(model, **how)
    how = {} if options.as_it_comes else {"foreach": True}
    optimizer = optimizer_of(model.parameters(), **how)
    clearing = {} if options.as_it_comes else {"set_to_none": True}
    update = optimizer.step
    if compiled:
        model = torch.compile(model, mode="reduce-overhead")
        update = torch.compile(update)
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    part = options.batch // options.ranks
    order = torch.randperm(len(images)).to(options.device)
    begin_of_part, seconds = rank * part, []
    for step in range(warm_up + steps):
        if step == warm_up:
            wait()
            measured = time.perf_counter()
        begin = time.perf_counter()
        first = step * options.batch % (len(images) - options.batch + 1)
        ids = order[first + begin_of_part : first + begin_of_part + part]
        loss = torch.nn.functional.cross_entropy(
            model(images.index_select(0, ids)), labels.index_select(0, ids))
        optimizer.zero_grad(**clearing)
        loss.backward()
        update()
        seconds.append(time.perf_counter() - begin)
    wait()
    if options.device == "cuda":
        return [(time.perf_counter() - measured) / steps] * steps
    return seconds[warm_up:]


def inference_graph(torch, model, images):
    with torch.no_grad():
        traced = torch.jit.trace(model, images)
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def evaluate(torch, options, rank):
    """Seconds of each measured pass over this rank's part of the test set."""
    images, labels = load(torch, options.data, "t10k")
    model, _ = NETWORKS[options.network](torch, options.filters)
    part = len(images) // options.ranks
    images, labels = images[rank * part :][:part], labels[rank * part :][:part]
    graph = model.eval()
    if not options.as_it_comes:
        images = images.contiguous(memory_format=torch.channels_last)
        graph = inference_graph(torch, model.to(memory_format=torch.channels_last),
                                images[: options.batch])
    return [pass_over(torch, graph, images, labels, options.batch)
            for _ in range(options.warm_up + options.steps)][options.warm_up :]


def pass_over(torch, model, images, labels, batch):
    begin, correct = time.perf_counter(), 0
    with torch.inference_mode():
        for x, y in zip(images.split(batch), labels.split(batch)):
            correct += (model(x).argmax(1) == y).sum()
    int(correct)
    return time.perf_counter() - begin


def measure(rank, options, rendezvous, results):
    """One process; rank 0's seconds go to the file `results`."""
    import torch

    torch.set_num_threads(options.threads)
    if options.ranks > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=options.ranks)
        torch.distributed.barrier()
    seconds = (evaluate if options.evaluate else train)(torch, options, rank)
    if options.ranks > 1:
        torch.distributed.barrier()
    if rank == 0:
        with open(results, "w") as file:
            json.dump(seconds, file)


def report(torch, options, seconds):
    images = 10000 if options.evaluate else options.batch
    step = statistics.median(seconds)
    print(json.dumps({
        "images_per_second": images / step, "step_seconds": step, "steps": len(seconds),
        "ranks": options.ranks, "threads": options.threads, "network": options.network,
        "filters": options.filters, "evaluate": options.evaluate, "torch": torch.__version__,
        "as_it_comes": options.as_it_comes, "device": options.device, "compile": options.compile, "tf32": not options.no_tf32,
        "openblas_num_threads": os.environ.get("OPENBLAS_NUM_THREADS"),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE")}))


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data/mnist", help="directory of the IDX files")
    parser.add_argument("--network", choices=sorted(NETWORKS), default="ann_d")
    parser.add_argument("--filters", type=int, default=32, help="of ann_d's second convolution")
    parser.add_argument("--evaluate", action="store_true", help="passes over the test set")
    parser.add_argument("--batch", type=int, default=128, help="images of an update, in all")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--ranks", type=int, default=1, help="processes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-tf32", action="store_true", help="convolutions in FP32 on a GPU")
    parser.add_argument("--as-it-comes", action="store_true", help="nothing chosen in its favour")
    parser.add_argument("--compile", action="store_true", help="torch.compile, with CUDA graphs")
    options = parser.parse_args()
    if options.device == "cuda" and (options.ranks > 1 or options.evaluate):
        parser.error("--device cuda: trains in one process alone")
    return options


def main():
    options = read_options()
    if not options.as_it_comes:
        restart_for_kernels()
    import torch

    with tempfile.TemporaryDirectory() as directory:
        results = os.path.join(directory, "results")
        arguments = (options, os.path.join(directory, "rendezvous"), results)
        if options.ranks > 1:
            torch.multiprocessing.spawn(measure, arguments, nprocs=options.ranks)
        else:
            measure(0, *arguments)
        with open(results) as file:
            report(torch, options, json.load(file))


if __name__ == "__main__":
    main()

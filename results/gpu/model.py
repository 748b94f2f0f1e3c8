#!/usr/bin/env python3
"""What a step of training must cost on a GPU: a model on paper, not a measurement.

Reads a shipped recipe, lists the launches of one update with their FLOPs and bytes, and holds them
against rooflines. Prints results/gpu/model.md. Standard library only.

usage: results/gpu/model.py > results/gpu/model.md
"""

import math
import os
import re
from dataclasses import dataclass

import sparse_conv_model
from sparse_conv_model import Conv
from sparse_model import A100, H100 as H100_NUMBERS, RTX_4090
from sparse_model import Device as NumberedDevice, Layer as DenseLayer
from sparse_model import break_even, dense_seconds, sparse_seconds

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGES = 60000  # of an epoch
POSTER_EPOCHS, POSTER_SECONDS = 12, 420
FLOAT = 4  # bytes


# ---- the network ----

@dataclass
class Layer:
    name: str  # conv1, dense1, ...
    kind: str  # conv, dense
    inputs: int  # floats of one image
    linear: int  # floats of its linear map's output
    outputs: int  # after pooling
    weights: int
    biases: int
    pool: bool = False

    @property
    def flops(self):
        """Of the linear map of one image: a multiplication and an addition a connection and place."""
        return 2 * self.weights * (self.linear // self.biases if self.kind == "conv" else 1)


def network(recipe):
    """The layers with weights of a shipped recipe, on 28 x 28 images."""
    with open(os.path.join(SOURCE, "jobs", "recipes", recipe + ".cfg")) as file:
        text = re.search(r"network = \((.*?)\);", file.read(), re.S).group(1)
    side, channels, layers = 28, 1, []

    def name(kind):
        return f"{kind}{1 + sum(layer.kind == kind for layer in layers)}"

    for entry in re.findall(r"\{(.*?)\}", text):
        keys = dict(re.findall(r'(\w+) = "?(\w+)"?;', entry))
        inputs = side * side * channels
        if keys["type"] == "conv":
            kernel, filters = int(keys["kernel"]), int(keys["filters"])
            side = side - kernel + 1
            out = side * side * filters
            weights = filters * channels * kernel**2
            layers.append(Layer(name("conv"), "conv", inputs, out, out, weights, filters))
            channels = filters
        elif keys["type"] == "maxpool":
            side //= int(keys["size"])
            layers[-1].outputs, layers[-1].pool = side * side * channels, True
        elif keys["type"] == "dense":
            units = int(keys["units"])
            layers.append(Layer(name("dense"), "dense", inputs, units, units, units * inputs, units))
            side, channels = 1, units
    return layers


def parameters(layers):
    return sum(layer.weights + layer.biases for layer in layers)


# ---- one update ----

UPDATE = "Adadelta"  # what waits for the last all-reduce begins here
FEW_UNITS, FEW_INPUTS = 32, 1024  # up to which a dense layer's products are own kernels
PARTS = 256  # in which a convolution's weight gradient is summed, to fill an H100


@dataclass
class Launch:
    name: str
    flops: float
    bytes: float
    matrix: bool = False  # a product or a convolution: cuBLAS's, in FP32 our own, or cuDNN's


def launches(layers, batch, own=True):
    """An update's kernels in their order. Each reads its operands and writes its result once; what
    the caches save is not taken off. own: convolutions are by own kernels, that go on with what
    follows, not by cuDNN, which is left those of several channels."""
    steps = [Launch("ids of the batch", 0, 8 * batch), Launch("update's number, rate", 0, 32),
             Launch("images to floats", 0, batch * layers[0].inputs * (1 + FLOAT))]

    def add(name, flops, floats, matrix=False):
        steps.append(Launch(name, flops, FLOAT * floats, matrix))

    def by_cudnn(layer):
        return layer.kind == "conv" and not own and layer is not layers[0]

    for layer in layers:
        name = layer.name
        if layer.kind == "conv" and not by_cudnn(layer):
            add(f"{name} forward, bias, activation, pool, dropout", batch * layer.flops,
                batch * (layer.inputs + layer.outputs) + layer.weights, True)
            continue
        if layer is layers[-1] and layer.biases <= FEW_UNITS and layer.inputs <= FEW_INPUTS:
            add(f"{name} forward, bias", batch * layer.flops,
                batch * (layer.inputs + layer.outputs) + layer.weights, True)
            continue
        add(f"{name} forward", batch * layer.flops,
            batch * (layer.inputs + layer.linear) + layer.weights, True)
        add(f"{name} bias, activation, pool, dropout", batch * layer.linear,
            batch * (layer.linear + layer.outputs))
    add("softmax, loss, gradient", 0, 2 * batch * layers[-1].outputs)
    for layer in reversed(layers):
        name = layer.name
        if layer is layers[-1]:
            add(f"{name} bias gradient", batch * layer.linear, batch * layer.linear)
        else:
            add(f"{name} dropout, pool, activation backward, bias gradient", 2 * batch * layer.linear,
                batch * (2 * layer.linear + layer.outputs))
        if layer.kind == "conv":
            add(f"{name} bias gradient, sum of parts", 0, 2 * layer.biases * PARTS)
        parts = PARTS if layer.kind == "conv" and not by_cudnn(layer) else 1
        add(f"{name} weight gradient", batch * layer.flops,
            batch * (layer.inputs + layer.linear) + parts * layer.weights, True)
        if parts > 1:
            add(f"{name} weight gradient, sum of parts", parts * layer.weights,
                parts * layer.weights)
        if by_cudnn(layer):
            add(f"{name} weight gradient's layout", 0, 2 * layer.weights)
        if layer is not layers[0]:
            add(f"{name} input gradient", batch * layer.flops,
                batch * (layer.inputs + layer.linear) + layer.weights, True)
    count = parameters(layers)
    add(UPDATE, 12 * count, 7 * count)  # reads w, g, a, d; writes w, a, d
    for layer in layers:
        if layer.kind == "conv":
            add(f"{layer.name} weights' layout", 0, 2 * layer.weights)
    return steps


# ---- devices ----

@dataclass
class Device:
    name: str
    flops: float  # peak a second, of products
    bandwidth: float  # bytes a second
    products: float  # part of the peak that products of this size are taken to reach
    memory: float  # part of the bandwidth that streaming kernels are taken to reach
    launch: float  # seconds from one kernel of a stream to the next, at least
    own: bool = True  # kernels for convolutions

    def seconds(self, launch):
        compute = launch.flops / (self.flops * (self.products if launch.matrix else 1))
        return self.launch + max(compute, launch.bytes / (self.bandwidth * self.memory))

    def bound(self, launch):
        """The roofline itself: at full peak and bandwidth, launches free."""
        return max(launch.flops / self.flops, launch.bytes / self.bandwidth)


GRAPH, EAGER = 2e-6, 8e-6  # replayed nodes; kernels launched one by one by a library in Python
H100 = Device("H100 SXM, FP32", 67e12, 3.35e12, 0.45, 0.7, GRAPH)
H100_TF32 = Device("H100 SXM, TF32", 494.7e12, 3.35e12, 0.15, 0.7, GRAPH, own=False)
K1100M = Device("K1100M, FP32", 550e9, 44.8e9, 0.2, 0.7, 6e-6)
DEVICES = (H100, H100_TF32, K1100M)


def step_seconds(layers, batch, device):
    return sum(device.seconds(launch) for launch in launches(layers, batch, device.own))


# ---- ranks ----

GPUS_OF_NODE = 8
NVLINK, NETWORK = 360e9, 45e9  # bytes a second and GPU that an all-reduce sees
NVLINK_HOP, NETWORK_HOP, COLLECTIVE = 1.5e-6, 6e-6, 8e-6  # seconds


def allreduce_seconds(bytes_, gpus):
    """In a tree within nodes and among them: two ways through each level, and twice the bytes."""
    if gpus == 1:
        return 0
    nodes = math.ceil(gpus / GPUS_OF_NODE)
    local = min(gpus, GPUS_OF_NODE)
    hops = 2 * (math.log2(local) * NVLINK_HOP + math.log2(nodes) * NETWORK_HOP)
    slowest = NETWORK if nodes > 1 else NVLINK
    return COLLECTIVE + hops + 2 * bytes_ * (gpus - 1) / gpus / slowest


def backward_after(layers, batch, device, layer):
    """Seconds of the backward pass that are left when the layer's gradient is complete."""
    steps = launches(layers, batch)
    names = [launch.name for launch in steps]
    last = [i for i, name in enumerate(names) if name.startswith(f"{layer.name} weight gradient")][-1]
    return sum(device.seconds(launch) for launch in steps[last + 1 : names.index(UPDATE)])


def rank_step_seconds(layers, batch, device, gpus, survivors):
    """A step on one of `gpus` GPUs with `batch` images each: all-reduces queue up on a stream of
    their own as the gradients become ready, and the update waits for the last."""
    now = done = 0.0
    compute = step_seconds(layers, batch, device)
    steps = launches(layers, batch)
    first = [launch.name for launch in steps].index(UPDATE)
    update = sum(device.seconds(launch) for launch in steps[first:])
    for layer in reversed(layers):
        now = compute - update - backward_after(layers, batch, device, layer)
        bytes_ = FLOAT * (layer.weights * survivors + layer.biases)
        done = max(done, now) + allreduce_seconds(bytes_, gpus)
    return max(done if gpus > 1 else 0, compute - update) + update


# ---- dense layers in sparse form ----

SPARSE_DEVICES = [NumberedDevice(**{**vars(device), "tf32": tf32})
                  for device in (H100_NUMBERS, A100, RTX_4090) for tf32 in (False, True)]
SPARSE_RECIPES = {"lenet_300_100": ("dense1", "dense2", "dense3"), "lenet5": ("dense1", "dense2"),
                  "ann_a": ("dense1", "dense2")}


def sparse_layers():
    """(name, layer) of the recipes' dense layers at batches of 128 and 1024."""
    found = []
    for recipe, names in SPARSE_RECIPES.items():
        layers = network(recipe)
        for batch in (128, 1024):
            found += [(f"{recipe} {layer.name}, {batch}",
                       DenseLayer(layer.inputs, layer.biases, batch, layer is layers[0]))
                      for layer in layers if layer.name in names]
    return found


def break_even_table():
    head = ["layer, batch"] + [d.name + (", TF32" if d.tf32 else "") for d in SPARSE_DEVICES]
    rows = []
    for name, layer in sparse_layers():
        below = [break_even(device, layer) for device in SPARSE_DEVICES]
        rows.append([name] + [f"{100 * b:.1f} %" if b >= 0.001 else "never" for b in below])
    return head, rows


def sparse_bytes(layer, density):
    """Of the lists, and of the values."""
    count = density * layer.inputs * layer.units
    index = 2 + 4 + 4 + (0 if layer.first else 2 + 4)
    return count * index, 4 * count


def sparse_table():
    """Forward and backward of the layers with most work, on the H100."""
    rows = []
    for name, layer in sparse_layers():
        if "dense1" not in name:
            continue
        flops = 2 * layer.samples * layer.inputs * layer.units * (2 if layer.first else 3)
        for density in (0.08, 0.02):
            lists, values = sparse_bytes(layer, density)
            rows.append((name, f"{100 * density:g} %", f"{flops / 1e6:.0f}",
                         f"{density * flops / 1e6:.1f}",
                         f"{4 * layer.inputs * layer.units / 1e3:.0f}",
                         f"{(lists + values) / 1e3:.0f}",
                         *(f"{1e6 * dense_seconds(d, layer):.0f} / "
                           f"{1e6 * sparse_seconds(d, layer, density):.0f}"
                           for d in (H100_NUMBERS, A100, RTX_4090))))
    return (("layer, batch", "left", "MFLOP dense", "sparse", "kB of weights dense",
             "sparse, with lists", "H100: us dense / sparse", "A100", "RTX 4090"), rows)


# ---- convolutions in sparse form ----

def sparse_convolutions():
    """(name, layer): the recipes' at batches of 128 and 1024, and wider ones."""
    def poster(channels, filters, batch):
        return Conv(26, 26, channels, filters, 3, 1, 0, batch, False)

    return [("ann_a conv1, 128", Conv(28, 28, 1, 32, 3, 1, 0, 128, True)),
            ("ann_a conv2, 128", poster(32, 32, 128)), ("ann_a conv2, 1024", poster(32, 32, 1024)),
            ("lenet5 conv2, 128", Conv(12, 12, 20, 50, 5, 1, 0, 128, False)),
            ("lenet5 conv2, 1024", Conv(12, 12, 20, 50, 5, 1, 0, 1024, False)),
            ("32 to 64 channels, 128", poster(32, 64, 128)),
            ("64 to 64, 128", poster(64, 64, 128)),
            ("128 to 128 of 12 x 12, 128", Conv(12, 12, 128, 128, 3, 1, 1, 128, False))]


def conv_break_even_table():
    head = ["layer, batch"] + [d.name + (", TF32" if d.tf32 else "") for d in SPARSE_DEVICES]
    rows = []
    for name, layer in sparse_convolutions():
        below = [sparse_conv_model.break_even(device, layer) for device in SPARSE_DEVICES]
        rows.append([name] + ["never" if b < 0.001 else "50 %" if b > 0.499 else f"{100 * b:.1f} %"
                              for b in below])
    return head, rows


def conv_table():
    """Forward and backward on the H100, in FP32."""
    rows = []
    for name, layer in sparse_convolutions():
        flops = layer.flops * (2 if layer.first else 3)
        seconds = [sparse_conv_model.sparse_seconds(H100_NUMBERS, layer, density)
                   for density in (0.2, 0.1, 0.05, 0.01)]
        rows.append((name, f"{flops / 1e6:.0f}",
                     f"{1e6 * sparse_conv_model.dense_seconds(H100_NUMBERS, layer):.0f}",
                     *(f"{1e6 * s:.0f}" for s in seconds)))
    return (("layer, batch", "MFLOP dense", "us dense", "20 % left", "10 %", "5 %", "1 %"), rows)


# ---- the page ----

def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print()


def print_update(layers):
    for batch in (128, 1024):
        steps = launches(layers, batch)
        products = [s for s in steps if s.matrix]
        print(f"Batch {batch}: {len(steps)} launches, {len(products)} of them products or "
              f"convolutions; {sum(s.flops for s in steps) / 1e9:.2f} GFLOP, "
              f"{sum(s.flops for s in products) / 1e9:.2f} of them in products; "
              f"{sum(s.bytes for s in steps) / 1e6:.0f} MB moved; "
              f"{FLOAT * parameters(layers) / 1e6:.2f} MB all-reduced.\n")
    table(("launch (batch 128)", "MFLOP", "MB", "FLOP a byte", "H100 at its roofline, us",
           "expected, us", "bound by"),
          [(s.name, f"{s.flops / 1e6:.1f}", f"{s.bytes / 1e6:.2f}", f"{s.flops / s.bytes:.1f}",
            f"{1e6 * H100.bound(s):.1f}", f"{1e6 * H100.seconds(s):.1f}", bound_by(s, H100))
           for s in launches(layers, 128)])


def bound_by(launch, device):
    compute = launch.flops / (device.flops * (device.products if launch.matrix else 1))
    memory = launch.bytes / (device.bandwidth * device.memory)
    if max(compute, memory) < device.launch:
        return "launch"
    return "arithmetic" if compute > memory else "memory"


def print_devices(layers):
    rows = []
    for device in DEVICES:
        for batch in (128, 1024):
            steps = launches(layers, batch, device.own)
            seconds = step_seconds(layers, batch, device)
            least = sum(device.bound(s) for s in steps)
            parts = {kind: sum(device.seconds(s) for s in steps if bound_by(s, device) == kind)
                     for kind in ("arithmetic", "memory", "launch")}
            rows.append((device.name, batch, f"{1e6 * least:.0f}", f"{1e6 * seconds:.0f}",
                         f"{batch / seconds:,.0f}", f"{IMAGES / batch * seconds:.3g}",
                         max(parts, key=parts.get)))
    table(("device", "batch", "roofline, us", "expected step, us", "images/s", "epoch, s",
           "most of it bound by"), rows)


def scaling_table(layers):
    rows = []
    for gpus in (1, 8, 64, 256, 1024):
        row = [gpus]
        for batch, survivors in ((128, 1), (128, 0.449), (1024, 1), (1024, 0.08)):
            one = rank_step_seconds(layers, batch, H100, 1, 1)
            many = rank_step_seconds(layers, batch, H100, gpus, survivors)
            row.append(f"{gpus * batch / many / 1e6:.2f} M ({100 * one / many:.0f} %)")
        rows.append(row)
    return (("GPUs", "128 images a GPU, all survive", "128, 44.9 % survive",
             "1024 a GPU, all survive", "1024, 8 % survive"), rows)


def allreduce_table(layers):
    rows = [[gpus] + [f"{1e6 * allreduce_seconds(FLOAT * parameters(layers) * part, gpus):.0f}"
                      for part in (1, 0.449, 0.08)] for gpus in (8, 64, 256, 1024)]
    return (("GPUs", "whole gradient", "44.9 % of it", "8 % of it"), rows)


def read_texts():
    """The page's prose, in parts; {names} are filled in."""
    with open(os.path.join(SOURCE, "results", "gpu", "model.txt")) as file:
        return file.read().split("\n----\n")


def main():
    layers = network("ann_d")
    steps = launches(layers, 128)
    poster = POSTER_EPOCHS * IMAGES / POSTER_SECONDS
    flops = sum(s.flops for s in steps if s.matrix) / 128
    eager = Device("", H100.flops, H100.bandwidth, H100.products, H100.memory, EAGER)
    head, update, devices, scaling, alone, sparse, pays, convolutions, cost = read_texts()
    print(head.format(poster=f"{poster:,.0f}", mflop=f"{flops / 1e6:.1f}",
                      gflops=f"{poster * flops / 1e9:.0f}", peak=f"{K1100M.flops / 1e9:.0f}",
                      bandwidth=f"{K1100M.bandwidth / 1e9:.1f}", minutes=POSTER_SECONDS // 60,
                      part=f"{100 * poster * flops / K1100M.flops:.0f}"))
    print(update.format(products=f"{100 * H100.products:.0f}", memory=f"{100 * H100.memory:.0f}",
                        launch=f"{1e6 * GRAPH:.0f}"))
    print_update(layers)
    print(devices.format(fp32=f"{H100.flops / 1e12:.0f}", tf32=f"{H100_TF32.flops / 1e12:.1f}",
                         bandwidth=f"{H100.bandwidth / 1e12:.2f}", launches=len(steps),
                         products=f"{100 * H100_TF32.products:.0f}",
                         kepler=f"{100 * K1100M.products:.0f}",
                         kepler_launch=f"{1e6 * K1100M.launch:.0f}", each=f"{1e6 * EAGER:.0f}",
                         eager=f"{1e6 * step_seconds(layers, 128, eager):.0f}",
                         graph=f"{1e6 * step_seconds(layers, 128, H100):.0f}",
                         goal=f"{5e6 * step_seconds(layers, 128, H100):.0f}"))
    print_devices(layers)
    dense = next(layer for layer in layers if layer.kind == "dense")
    print(scaling.format(share=f"{100 * dense.weights / parameters(layers):.0f}", node=GPUS_OF_NODE,
                         nvlink=f"{NVLINK / 1e9:.0f}", network=f"{NETWORK / 1e9:.0f}",
                         collective=f"{1e6 * COLLECTIVE:.0f}", hop=f"{1e6 * NVLINK_HOP:g}",
                         far_hop=f"{1e6 * NETWORK_HOP:g}"))
    table(*scaling_table(layers))
    print(alone)
    table(*allreduce_table(layers))
    print(sparse)
    table(*break_even_table())
    print(pays)
    table(*sparse_table())
    print(convolutions)
    table(*conv_break_even_table())
    print(cost)
    table(*conv_table())


if __name__ == "__main__":
    main()

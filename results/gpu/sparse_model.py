"""What a dense layer must cost on a GPU in dense and in sparse form: cuda/rates.c and
cuda/sparse_model.c again, for the page. A test holds the two together."""

import math
from dataclasses import dataclass

LAUNCH = 2e-6
PRODUCTS, TF32 = 0.45, 0.15  # parts of the peaks
START, TILE, ROW, REDUCE = 1500, 800, 20, 6  # cycles
CACHE = 32  # bytes a cycle and multiprocessor
RESIDENT, MOST_PARTS = 2, 64
FLOATS, PIECE, TILE_COLUMNS, TILE_ROWS = 8192, 256, 256, 64  # cuda/kernels.h
GENERATIONS = {75: (64, 64), 80: (64, 512), 86: (128, 128), 89: (128, 128), 90: (128, 1024),
               100: (128, 1024), 120: (128, 128)}  # products a cycle: FP32, TF32


def divide_up(a, b):
    return -(-a // b)


@dataclass
class Device:
    """What a device says of itself, and what it is taken to reach."""
    name: str
    capability: int
    processors: int
    clock_khz: int
    tf32: bool = False

    @property
    def clock(self):
        return max(1e3 * self.clock_khz, 1e9)

    @property
    def products(self):
        fp32, tf32 = GENERATIONS[max(g for g in GENERATIONS if g <= self.capability)]
        cycle = 2 * self.processors * self.clock
        return max(fp32 * cycle * PRODUCTS, tf32 * cycle * TF32 if self.tf32 else 0)

    @property
    def cache(self):
        return CACHE * self.processors * self.clock

    def blocks(self, count, waits, own):
        each = math.ceil(count / self.processors)
        return LAUNCH + (math.ceil(each / RESIDENT) * waits + each * own) / self.clock

    def blocks_and_tiles(self, count, tiles, own):
        """Each waits for so many tiles after its first."""
        return self.blocks(count, START + tiles * TILE, own)

    def add_parts(self, parts, count):
        return LAUNCH + 4 * (parts + 1) * count / self.cache if parts > 1 else 0


H100 = Device("H100", 90, 132, 1980000)
A100 = Device("A100", 80, 108, 1410000)
RTX_4090 = Device("RTX 4090", 89, 128, 2520000)


@dataclass
class Layer:
    inputs: int
    units: int
    samples: int
    first: bool


def dense_seconds(device, layer):
    n, i, u = layer.samples, layer.inputs, layer.units
    one = max(2 * n * i * u / device.products, 4 * (n * i + n * u + i * u) / device.cache)
    return (LAUNCH + one) * (2 if layer.first else 3)


def doubled(most):
    parts = 1
    while parts == 1 or (most(parts) and parts <= MOST_PARTS):
        yield parts
        parts *= 2


def combine_seconds(device, rows, columns, samples, entries, lookups):
    """Forward, or for the inputs, where a value is looked up by one more index."""
    best = math.inf
    for block in (8, 16, 32):
        chunks = divide_up(columns, FLOATS // block)
        width, tiles, at_once = divide_up(columns, chunks), divide_up(samples, block), 256 // block
        row = ROW + block + entries / rows / chunks * lookups * (2 + 32 / block) / 3
        for parts in doubled(lambda p, at_once=at_once: p * at_once < 2 * rows):
            turns = divide_up(divide_up(rows, parts), at_once)
            own = 4 * width * block / CACHE + 8 * turns * row
            best = min(best, device.blocks(tiles * chunks * parts, START, own) +
                       device.add_parts(chunks, samples * rows))
    return best


def gradient_seconds(device, layer, density):
    tiles = divide_up(layer.inputs, TILE_COLUMNS) * divide_up(layer.units, TILE_ROWS)
    count = density * layer.inputs * layer.units
    pieces = tiles * math.ceil(count / tiles / PIECE)
    entries = count / pieces if pieces else 0

    def seconds(parts, count):
        steps = divide_up(divide_up(layer.samples, 32), parts)
        own = steps * (4 * 32 * (TILE_COLUMNS + TILE_ROWS) / CACHE + 3 * entries) + REDUCE * entries
        return (device.blocks(pieces * parts, START + steps * TILE, own) +
                device.add_parts(parts, count))

    return min(seconds(parts, count) for parts in doubled(lambda p: p * 32 < 2 * layer.samples))


def sparse_seconds(device, layer, density):
    entries = density * layer.inputs * layer.units
    seconds = gradient_seconds(device, layer, density) + combine_seconds(
        device, layer.units, layer.inputs, layer.samples, entries, 3)
    if not layer.first:
        seconds += combine_seconds(device, layer.inputs, layer.units, layer.samples, entries, 4)
    return seconds


def meets(sparse, dense):
    """The density at which sparse(density) is as much as dense, at most 0.5; 0: at none."""
    pays, fails = 0, 0.5
    for _ in range(12):
        tried = (pays + fails) / 2
        if sparse(tried) < dense:
            pays = tried
        else:
            fails = tried
    return pays


def break_even(device, layer):
    """The density below which sparse form should be faster; 0: at none."""
    return meets(lambda density: sparse_seconds(device, layer, density), dense_seconds(device, layer))

"""What a convolution must cost on a GPU in dense and in sparse form: cuda/sparse_conv_model.c and the
cut of cuda/sparse_conv_lists.c again, for the page. A test holds the two together."""

import math
from dataclasses import dataclass

from sparse_model import CACHE, LAUNCH, divide_up, meets

MAPS, STAGE, ENTRY, SUM, ORDER = 500, 200, 2, 2.4, 1  # cycles
LAYOUTS, MOST_ROW_PARTS, MOST_BAND_PARTS = 3, 16, 512
FLOATS, CELLS, PLACES = 8448, 1024, 256  # cuda/kernels.h


@dataclass
class Conv:
    height: int
    width: int
    channels: int
    filters: int
    kernel: int
    stride: int
    padding: int
    samples: int
    first: bool

    def output(self, size):
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def weights(self):
        return self.filters * self.channels * self.kernel**2

    @property
    def outputs(self):
        """Pixels of one image."""
        return self.output(self.height) * self.output(self.width)

    @property
    def flops(self):
        """Of one pass over the batch."""
        return 2 * self.samples * self.weights * self.outputs


@dataclass
class Window:
    written: int  # floats of one image
    rows: int
    bands: int
    places: int
    pitch: int
    chunk: int
    chunks: int


def windows(conv, forward):
    """All that a pass can be cut into."""
    if forward:
        pixels, channels, rows = conv.outputs, conv.channels, conv.filters
        high, wide = ((conv.output(size) - 1) * conv.stride + 1
                      for size in (conv.height, conv.width))
    else:
        pixels, channels, rows = conv.height * conv.width, conv.filters, conv.channels
        high, wide = conv.height, conv.width
    across = wide + conv.kernel - 1
    for wanted in range(1, high + 1):
        band = divide_up(high, wanted)
        cells = (band + conv.kernel - 1) * across
        places = (band - 1) * across + wide
        if cells >= CELLS or places > PLACES:
            continue
        pitch = cells | 1
        chunk = divide_up(channels, divide_up(channels, FLOATS // pitch))
        yield Window(pixels * rows, rows, divide_up(high, band), places, pitch, chunk,
                     divide_up(channels, chunk))


def load_cycles(w):
    return MAPS + 4 * w.pitch * w.chunk / CACHE + 3 * w.pitch * divide_up(w.chunk, 32)


def load_rounds(w):
    return divide_up(w.pitch, 64) * divide_up(w.chunk, 32)


def compute_cycles(w, entries, beside, groups):
    return (entries * (divide_up(w.places, 32) + beside) +
            groups * (STAGE + 32 * w.places / CACHE))


def doubled(most, below):
    """1, 2, 4, ... up to `most`, but 1 alone where the next is not below `below`."""
    parts = 1
    while parts == 1 or (parts <= most and parts < below):
        yield parts
        parts *= 2


def combine_seconds(device, w, forward, samples, entries):
    def seconds(parts):
        groups = divide_up(divide_up(w.rows, 8), parts)
        own = load_cycles(w) + compute_cycles(w, entries / w.chunks / parts,
                                              ENTRY + (0 if forward else ORDER), groups)
        return (device.blocks_and_tiles(samples * w.bands * w.chunks * parts, load_rounds(w), own) +
                device.add_parts(w.chunks, samples * w.written))

    return min(map(seconds, doubled(MOST_ROW_PARTS, 2 * w.rows / 8)))


def correlate_seconds(device, w, samples, entries):
    def seconds(bands, rows):
        each = divide_up(samples * w.bands, bands)
        bands, groups = divide_up(samples * w.bands, each), divide_up(divide_up(w.rows, 8), rows)
        own = each * (load_cycles(w) + compute_cycles(w, entries / w.chunks / rows, SUM, groups))
        return (device.blocks_and_tiles(bands * w.chunks * rows, each * (load_rounds(w) + groups),
                                        own) + device.add_parts(bands, entries))

    return min(seconds(bands, rows) for rows in doubled(MOST_ROW_PARTS, 2 * w.rows / 8)
               for bands in doubled(MOST_BAND_PARTS, 2 * samples * w.bands))


def dense_seconds(device, conv):
    floats = conv.height * conv.width * conv.channels + conv.outputs * conv.filters
    one = LAUNCH + max(conv.flops / device.products,
                       4 * (conv.samples * floats + conv.weights) / device.cache)
    return one * (2 if conv.first else 3) + LAYOUTS * LAUNCH


def sparse_parts(device, conv, density):
    """Forward with the weights' gradient, and the input's gradient."""
    entries = density * conv.weights
    forward = min(combine_seconds(device, w, True, conv.samples, entries) +
                  correlate_seconds(device, w, conv.samples, entries)
                  for w in windows(conv, True))
    backward = min(combine_seconds(device, w, False, conv.samples, entries)
                   for w in windows(conv, False))
    return forward, 0 if conv.first else backward


def sparse_seconds(device, conv, density):
    return sum(sparse_parts(device, conv, density))


def break_even(device, conv):
    """The density below which sparse form should be faster; 0: at none."""
    return meets(lambda density: sparse_seconds(device, conv, density), dense_seconds(device, conv))

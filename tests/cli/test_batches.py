"""Which images are in which batch, and that training drops out: against the written contract.

The losses of a network that hardly learns are computed here from the documented generator
(Philox4x32-10, Salmon et al. 2011), the documented shuffle and softmax regression in plain Python.
"""

import math
import os
import struct

from program import MNIST, SOURCE, ProgramTest, model, read_events

MASK = 0xFFFFFFFF
SEED, IMAGES, BATCH = 3, 50, 20  # batches of 20, 20 and 10
SHUFFLE = 2 << 24  # the stream: purpose 2, layer 0


def philox(key, counter):
    k0, k1 = key & MASK, key >> 32
    c = list(counter)
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(high >> 32) ^ c[1] ^ k0, high & MASK, (low >> 32) ^ c[3] ^ k1, low & MASK]
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c


def words(epoch):
    group = 0
    while True:
        yield from philox(SEED, [group, 0, epoch, SHUFFLE])
        group += 1


def permutation(epoch, count):
    """Fisher-Yates from the top; an integer below n is the high half of word * n."""
    order, stream = list(range(count)), words(epoch)
    for n in range(count, 1, -1):
        while True:
            product = next(stream) * n
            if product & MASK >= (1 << 32) % n:
                break
        j = product >> 32
        order[n - 1], order[j] = order[j], order[n - 1]
    return order


def training_set():
    with open(os.path.join(MNIST, "train-images-idx3-ubyte"), "rb") as file:
        file.seek(16)
        pixels = file.read(IMAGES * 784)
    with open(os.path.join(MNIST, "train-labels-idx1-ubyte"), "rb") as file:
        file.seek(8)
        labels = file.read(IMAGES)
    return [pixels[784 * i : 784 * (i + 1)] for i in range(IMAGES)], labels


def loss_of(image, label, weights):
    logits = [
        sum(w * (p / 255) for w, p in zip(weights[784 * k : 784 * (k + 1)], image) if p)
        for k in range(10)
    ]
    top = max(logits)
    return math.log(sum(math.exp(z - top) for z in logits)) + top - logits[label]


class Batches(ProgramTest):
    SETTINGS = [f"data.train_limit={IMAGES}", "data.test_limit=10", f"train.batch={BATCH}",
                f"train.seed={SEED}", "train.epochs=2", "train.learning_rate=1e-6",
                "train.log_every=1"]

    def check(self, ranks):
        run_dir = self.train("logistic", "run", self.SETTINGS, ranks=ranks)
        # A learning rate of 1e-6 moves the losses by about 1e-5 in six updates; two batches' losses
        # differ by 1e-2 and more.
        weights = model(run_dir)["dense1.weight"][1]
        images, labels = training_set()
        losses = [loss_of(image, label, weights) for image, label in zip(images, labels)]
        expected = []
        for epoch in (1, 2):
            order = permutation(epoch, IMAGES)
            for begin in range(0, IMAGES, BATCH):
                batch = order[begin : begin + BATCH]
                expected.append(sum(losses[i] for i in batch) / len(batch))
        seen = [event["loss"] for event in read_events(run_dir, "step")]
        self.assertEqual(len(seen), 6)
        for a, b in zip(seen, expected):
            self.assertAlmostEqual(a, b, delta=1e-3)
        self.assertGreater(min(abs(a - b) for a, b in zip(expected[:3], expected[3:])), 3e-3)

    def test_batches_are_those_of_the_contract(self):
        self.check(1)

    def test_batches_are_the_same_on_3_ranks(self):
        self.check(3)


class Dropout(ProgramTest):
    SMOOTH = os.path.join(SOURCE, "tests", "fixtures", "smooth.cfg")
    SETTINGS = ["data.train_limit=84", "data.test_limit=10", "train.learning_rate=1e-6",
                "train.steps=4"]

    def losses(self, name, *settings):
        run_dir = self.train(self.SMOOTH, name, self.SETTINGS + list(settings))
        return [e["loss"] for e in read_events(run_dir, "step")]

    def test_training_drops_out_anew_in_each_update(self):
        """A frozen network sees all 84 images in two batches, twice: the epochs' mean losses are
        equal without dropout, and are not with it."""
        without = self.losses("without", "network.dropout1.rate=0", "network.dropout2.rate=0")
        with_it = self.losses("with", "network.dropout1.rate=0", "network.dropout2.rate=0.5")
        self.assertAlmostEqual(sum(without[:2]), sum(without[2:]), delta=1e-4)
        self.assertGreater(abs(sum(with_it[:2]) - sum(with_it[2:])), 1e-3)
        self.assertGreater(abs(sum(with_it) - sum(without)), 1e-3)

"""A model file from anywhere: it cannot make the program take memory that it does not hold, nor
read files that are none of its business."""

import json
import os
import resource
import struct

from program import MNIST, ProgramTest, environment, run

MEMORY_MAX = 4 << 30  # address space; what the models below claim is more than ten times as much


class HostileModel(ProgramTest):
    def model(self, recipe, input_shape, tensors):
        """A safetensors file: tensors are (name, shape), zeros."""
        metadata = {"espalier.name": "x", "espalier.input": input_shape, "espalier.recipe": recipe}
        header, data_bytes = {"__metadata__": metadata}, 0
        for name, shape in tensors:
            count = 4
            for size in shape:
                count *= size
            offsets = [data_bytes, data_bytes + count]
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
            data_bytes += count
        text = json.dumps(header).encode()
        return self.write("x.safetensors", struct.pack("<Q", len(text)) + text + bytes(data_bytes))

    def evaluate(self, model):
        """With little memory: what is killed for its appetite here fails with a message."""
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, before[1]))
        try:
            return run("evaluate", model, "--data", MNIST, env=environment())
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    def test_wide_activations_of_few_weights_take_little_memory(self):
        """768 KiB of weights, 105 GB of activations and their gradients for 256 images."""
        recipe = """network = ({ type = "conv"; filters = 65536; kernel = 1; },
                               { type = "conv"; filters = 1; kernel = 1; stride = 28; },
                               { type = "dense"; units = 10; });
                    data = { test_limit = 2; };"""
        tensors = [("conv1.weight", [65536, 1, 1, 1]), ("conv1.bias", [65536]),
                   ("conv2.weight", [1, 65536, 1, 1]), ("conv2.bias", [1]),
                   ("dense1.weight", [10, 1]), ("dense1.bias", [10])]
        result = self.evaluate(self.model(recipe, "28x28x1", tensors))
        self.assertEqual(result.code, 0, result.err)
        self.assertIn("of 2\n", result.out)

    def test_images_of_another_size_are_never_allocated(self):
        """2^28 pixels that a stride of 64 brings down to 65,536."""
        recipe = """network = ({ type = "conv"; filters = 1; kernel = 1; },
                               { type = "conv"; filters = 1; kernel = 1; stride = 64; },
                               { type = "dense"; units = 10; });"""
        tensors = [("conv1.weight", [1, 1, 1, 1]), ("conv1.bias", [1]),
                   ("conv2.weight", [1, 1, 1, 1]), ("conv2.bias", [1]),
                   ("dense1.weight", [10, 65536]), ("dense1.bias", [10])]
        result = self.evaluate(self.model(recipe, "16384x16384x1", tensors))
        self.assert_refused(result, "28x28x1", "16384x16384x1")

    def test_no_other_file_is_included(self):
        self.write("secret.cfg", 'train = { epochs = 0; secret = "s3cret"; };')
        included = os.path.join(self.directory, "secret.cfg")
        recipe = f'network = ({{ type = "dense"; units = 10; }});\n@include "{included}"\n'
        tensors = [("dense1.weight", [10, 784]), ("dense1.bias", [10])]
        result = self.evaluate(self.model(recipe, "28x28x1", tensors))
        self.assert_refused(result, "@include is not supported")
        self.assertNotIn("s3cret", result.err)

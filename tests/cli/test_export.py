"""The sparse form: what an independent reader makes of it is the dense model again."""

import json
import os
import struct

from program import RECIPES, ProgramTest, run

SETTINGS = ["data.train_limit=2000", "data.test_limit=100", "train.epochs=1", "prune.every=4",
            "prune.rate=0.1"]
FORMATS = {"F32": "f", "I32": "i", "I64": "q"}


def read(path):
    """Tensors (type, shape, values) and metadata of a safetensors file, by its specification."""
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    header, data = json.loads(data[8:8 + length]), data[8 + length:]
    metadata = header.pop("__metadata__", {})
    tensors, covered = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        assert begin == covered
        covered = end
        form = FORMATS[entry["dtype"]]
        values = struct.unpack(f"<{(end - begin) // struct.calcsize(form)}{form}", data[begin:end])
        tensors[name] = (entry["dtype"], entry["shape"], values)
    assert covered == len(data)
    return tensors, metadata


def densify(tensors):
    """The dense tensors (shape, values) of a sparse file."""
    dense = {}
    for name, (_, shape, values) in tensors.items():
        stem, _, part = name.rpartition(".")
        if part == "values":
            size = tensors[stem + ".shape"][2]
            flat = [0.0] * 1
            for n in size:
                flat = flat * n
            for place, value in zip(tensors[stem + ".indices"][2], values, strict=True):
                flat[place] = value
            dense[stem] = (list(size), tuple(flat))
        elif part not in ("indices", "shape"):
            dense[name] = (shape, values)
    return dense


class Export(ProgramTest):
    def export(self, model, file):
        return self.run_ok("export", model, "--to", "safetensors", file)

    def test_sparse_form_is_the_model(self):
        run_dir = self.train("ann_a", "run", SETTINGS)
        self.export(run_dir, self.path("sparse.safetensors"))
        sparse, metadata = read(self.path("sparse.safetensors"))
        model, original = read(os.path.join(run_dir, "model.safetensors"))
        self.assertEqual(densify(sparse), {n: (s, v) for n, (_, s, v) in model.items()})
        self.assertIn("espalier.sparse", metadata)
        self.assertEqual({k: v for k, v in metadata.items() if k != "espalier.sparse"}, original)
        for command in ("inspect", "evaluate"): # which read dense models
            result = run(command, self.path("sparse.safetensors"))
            self.assert_refused(result, "tensor dense1.weight.", "a model has F32 alone")

    def test_types_and_order(self):
        run_dir = self.train("lenet_300_100", "run", SETTINGS + ["prune.keep=0.05", "prune.rate=0.5"])
        self.export(os.path.join(run_dir, "model.safetensors"), self.path("sparse.safetensors"))
        sparse, _ = read(self.path("sparse.safetensors"))
        self.assertEqual(set(sparse), {f"dense{i}.{part}" for i in (1, 2, 3) for part in (
            "weight.indices", "weight.values", "weight.shape", "bias")})
        left = 0
        for i, shape in ((1, (300, 784)), (2, (100, 300)), (3, (10, 100))):
            name = f"dense{i}.weight"
            kind, size, indices = sparse[name + ".indices"]
            self.assertEqual((kind, size), ("I32", [len(indices)]))
            self.assertEqual(sorted(set(indices)), list(indices))
            self.assertEqual(sparse[name + ".shape"], ("I64", [2], shape))
            self.assertEqual(sparse[name + ".values"][:2], ("F32", [len(indices)]))
            self.assertNotIn(0.0, sparse[name + ".values"][2])
            left += len(indices)
        self.assertEqual(left, round(0.05 * 266200))
        dense = os.path.getsize(os.path.join(run_dir, "model.safetensors"))
        self.assertLess(os.path.getsize(self.path("sparse.safetensors")), 0.15 * dense)

    def test_whole_layers_stay_dense(self):
        run_dir = self.train("logistic", "run", SETTINGS[:3])
        self.export(run_dir, self.path("same.safetensors"))
        sparse, _ = read(self.path("same.safetensors"))
        # pixels that are blank in all images leave their weights as they were drawn: none is 0
        self.assertEqual(set(sparse), {"dense1.weight", "dense1.bias"})

    def test_file_is_whole_or_not_there(self):
        run_dir = self.train("logistic", "run", SETTINGS[:3])
        nowhere = self.path("no", "such", "directory.safetensors")
        result = run("export", run_dir, "--to", "safetensors", nowhere)
        self.assertEqual(result.code, 1)
        self.assertIn(f"cannot write {nowhere}: No such file or directory", result.err)
        self.write("old.safetensors", "old")
        self.export(run_dir, self.path("old.safetensors"))
        self.assertEqual(set(read(self.path("old.safetensors"))[0]), {"dense1.weight", "dense1.bias"})
        self.assertEqual([n for n in os.listdir(self.directory) if n.endswith(".tmp")], [])

    def test_usage(self):
        recipe = os.path.join(RECIPES, "ann_a.cfg")
        for words, told in (
            ([], "expected a model, --to and a file"),
            (["m", "--to", "safetensors"], "expected a model, --to and a file"),
            (["m", "f"], "expected a model, --to and a file"),
            (["m", "--to"], "option '--to' needs one format"),
            (["m", "--to", "safetensors", "f", "g"], "a third argument 'g'"),
            (["m", "--form", "safetensors", "f"], "unknown option '--form'"),
            (["m", "--to", "onnx", "f"], "--to 'onnx': expected safetensors"),
            (["/nonexistent", "--to", "safetensors", "f"], "/nonexistent"),
            ([recipe, "--to", "safetensors", "f"], "not a safetensors file"),
        ):
            self.assert_refused(run("export", *words), told)

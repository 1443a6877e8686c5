"""Backbones: tokens over families of models, and what is refused before any weight or code is read."""

import json

import pytest
import safetensors.torch
import torch
import transformers

from aunce.backbones import BACKBONES, build_backbone, load_backbone, tokens
from aunce.errors import UsageError
from aunce.model import Encoder, build_encoder

TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
FAMILIES = {
    # configuration, tokens of a 32 px image, channels, tokens in front of the patches
    "vit": (transformers.ViTConfig(image_size=32, patch_size=8, **TINY_VIT), 16, 16, 1),
    "deit": (transformers.DeiTConfig(image_size=32, patch_size=8, **TINY_VIT), 16, 16, 2),
    "dinov2-registers": (
        transformers.Dinov2WithRegistersConfig(image_size=32, patch_size=8, num_register_tokens=4, **TINY_VIT),
        16, 16, 5,
    ),
    "swin": (
        transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
        ),
        16, 16, 0,
    ),
    "convnext": (transformers.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1]), 1, 20, 0),
    "resnet": (transformers.AutoConfig.for_model(**BACKBONES["small"]), 4, 96, 0),
}  # fmt: skip


def of_transformers(name):
    """A bundled residual network as transformers builds it; the stem of `patch` was put in afterwards."""
    settings = dict(BACKBONES[name])
    stem = settings.pop("stem", 0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**settings))
    if stem:
        first = torch.nn.Conv2d(3, settings["embedding_size"], stem, stride=stem, bias=False)
        torch.nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        model.embedder.embedder.convolution, model.embedder.pooler = first, torch.nn.Identity()
    return model.train()


@pytest.mark.parametrize("name", ["small", "patch", "resnet-18"])
def test_our_residual_network_is_that_of_transformers_to_the_bit(name):
    torch.manual_seed(7)
    theirs, after = of_transformers(name), torch.rand(3)
    torch.manual_seed(7)
    ours = build_backbone(name)
    assert torch.equal(after, torch.rand(3)), "the same random numbers are drawn, so that those of the head are, too"
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    images = torch.rand(4, 3, 48, 48).to(memory_format=torch.channels_last)
    maps = [model.to(memory_format=torch.channels_last)(images).last_hidden_state for model in (ours, theirs)]
    assert torch.equal(*maps)
    for one in maps:
        one.square().sum().backward()
    gradients = zip(ours.parameters(), theirs.parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) for one, other in gradients)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items()), "statistics"


@pytest.mark.parametrize("form", ["ours", "theirs"])
def test_a_configuration_that_a_run_kept_gives_its_network_again(form, tmp_path):
    """Runs from before keep what transformers writes."""
    name = "patch" if form == "ours" else "small"
    model = build_backbone(name) if form == "ours" else of_transformers(name)
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    again = build_backbone(str(tmp_path))
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_patches_alone_for_every_family_of_backbones(family, tmp_path):
    config, count, channels, front = FAMILIES[family]
    config.save_pretrained(tmp_path)
    backbone = build_backbone(str(tmp_path)).eval()
    images = torch.randn(2, 3, 32, 32)
    result = tokens(backbone, images)
    assert result.shape == (2, count, channels)
    full = backbone(images).last_hidden_state
    if full.ndim == 4:
        assert torch.equal(result[1, -1], full[1, :, -1, -1])
    else:
        assert torch.equal(result, full[:, front:])
    encoder = Encoder(backbone, aus=3, channels=8)
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, 3, 8)


@pytest.mark.parametrize(
    ("name", "revision"), [("microsoft/a-model", None), ("microsoft/a-model", "main"), ("smal", None)]
)
def test_a_hub_name_without_a_pinned_revision_is_refused_before_any_network_is_touched(name, revision, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was touched"))
    with pytest.raises(UsageError, match="needs a pinned revision"):
        build_backbone(name, revision=revision)


def test_a_revision_of_a_bundled_or_local_model_is_refused_because_it_would_mean_nothing(tmp_path):
    for name in ("small", str(tmp_path)):
        with pytest.raises(UsageError, match="belongs to a hub name only"):
            build_backbone(name, revision="0" * 40)


def test_a_folder_without_a_model_is_one_clear_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read as a vision model"):
        build_backbone(str(tmp_path))


def test_a_local_folder_with_weights_gives_these_weights(tmp_path):
    saved = of_transformers("small")
    saved.save_pretrained(tmp_path)
    loaded = build_backbone(str(tmp_path))
    assert loaded.training
    for name, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_a_backbone_is_taken_over_with_its_statistics_and_the_head_is_not(tmp_path):
    giver, taker = (build_encoder("small", aus=aus, channels=8, seed=aus) for aus in (3, 5))
    giver(torch.rand(4, 3, 32, 32))  # moves the statistics of the norms
    path = tmp_path / "encoder.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in giver.state_dict().items()}, path)
    head = {name: value.clone() for name, value in taker.state_dict().items() if not name.startswith("backbone.")}
    load_backbone(taker.backbone, path)
    for name, value in giver.backbone.state_dict().items():
        assert torch.equal(value, taker.backbone.state_dict()[name]), name
    for name, value in head.items():
        assert torch.equal(value, taker.state_dict()[name]), name


def test_weights_of_another_network_or_none_are_refused(tmp_path):
    encoder = build_encoder("small", aus=3, channels=8, seed=0)
    with pytest.raises(UsageError, match="does not hold weights"):
        load_backbone(encoder.backbone, tmp_path / "none.safetensors")
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(UsageError, match="does not hold weights"):
        load_backbone(encoder.backbone, tmp_path / "pickle.pt")
    safetensors.torch.save_file({"backbone.other": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="does not hold weights"):
        load_backbone(encoder.backbone, tmp_path / "other.safetensors")


def test_code_in_the_folder_of_a_backbone_is_never_run_nor_offered(tmp_path, monkeypatch):
    """Where there is a terminal, transformers asks whether to run it."""
    trap = tmp_path / "executed"
    (tmp_path / "code.py").write_text(f"open({str(trap)!r}, 'w')\nclass Own: pass\n")
    auto = {"AutoConfig": "code.Own", "AutoModel": "code.Own"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    monkeypatch.setattr("builtins.input", lambda question: "y")
    with pytest.raises(UsageError, match="cannot be read as a vision model"):
        build_backbone(str(tmp_path))
    assert not trap.exists()


def test_a_folder_with_pickled_weights_alone_is_refused_and_never_random(tmp_path):
    of_transformers("small").config.save_pretrained(tmp_path)
    build_backbone(str(tmp_path))  # without weights they are random, as asked
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UsageError, match=r"holds pytorch_model.bin and no safetensors.*download model.safetensors"):
        build_backbone(str(tmp_path))


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("file", ["pytorch_model.bin", "../other/model.safetensors", "/tmp/model.safetensors", 7])
def test_an_index_may_name_safetensors_in_its_folder_only_and_no_pickle_is_loaded(file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("a pickle was loaded"))
    backbone = of_transformers("small")
    backbone.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / INDEX).is_file()
    build_backbone(str(tmp_path))
    index = json.loads((tmp_path / INDEX).read_text())
    last = next(reversed(index["weight_map"]))
    index["weight_map"][last] = file
    (tmp_path / INDEX).write_text(json.dumps(index))
    torch.save({last: torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="only safetensors beside it are read"):
        build_backbone(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "null", '{"model_type": 3}', '{"model_type": "resnet", "depths": "many"}'],
)
@pytest.mark.parametrize("name", ["config.json", INDEX])
def test_every_bad_folder_of_a_backbone_is_one_message(name, content, tmp_path):
    of_transformers("small").save_pretrained(tmp_path, max_shard_size="100KB")
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match="cannot be read as a vision model"):
        build_backbone(str(tmp_path))


def test_the_cheap_stem_gives_as_many_tokens_and_is_saved_and_loaded_as_any_other(tmp_path):
    torch.manual_seed(0)
    backbone, images = build_backbone("patch").eval(), torch.rand(2, 3, 48, 48)
    assert tokens(backbone, images).shape == tokens(build_backbone("small").eval(), images).shape == (2, 9, 96)
    strides = [module.stride for module in backbone.modules() if isinstance(module, torch.nn.Conv2d)]
    assert strides[0] == (4, 4)
    assert not any(isinstance(module, torch.nn.MaxPool2d) for module in backbone.modules())
    encoder = build_encoder("patch", aus=2, channels=4, seed=0)
    safetensors.torch.save_model(encoder, tmp_path / "weights.safetensors")
    other = build_backbone("patch")
    load_backbone(other, tmp_path / "weights.safetensors")
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])

"""The encoder against one layer per AU, the seed of its weights, and what importing it needs."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aunce.model import Encoder, LinearProbe, adjacency, build_encoder


def test_encoder_and_probe_are_imported_without_what_only_the_study_needs():
    code = "import sys, aunce.model; print([n for n in ('transformers', 'safetensors', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_weights_depend_on_the_seed_alone_and_no_global_generator_moves():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = build_encoder("small", aus=5, channels=8, seed=7).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    second = build_encoder("small", aus=5, channels=8, seed=7).state_dict()
    other = build_encoder("small", aus=5, channels=8, seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["per_au.weight"], other["per_au.weight"])
    assert not torch.equal(
        first["backbone.embedder.embedder.convolution.weight"], other["backbone.embedder.embedder.convolution.weight"]
    )


def loop_per_au(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """The head as it is drawn: one linear layer and one norm for each AU, one message at a time."""

    def norm(x: torch.Tensor, module: nn.BatchNorm1d, channels: slice) -> torch.Tensor:
        if module.training:
            mean, variance = x.mean(0), x.var(0, unbiased=False)
        else:
            mean, variance = module.running_mean[channels], module.running_var[channels]
        return (x - mean) / (variance + module.eps).sqrt() * module.weight[channels] + module.bias[channels]

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (images - mean[:, None, None]) / std[:, None, None]
    maps = encoder.backbone(images.contiguous()).last_hidden_state
    features = torch.stack([maps[:, :, i, j] for i in range(maps.shape[2]) for j in range(maps.shape[3])], dim=1)
    batch, count, width = features.shape
    size = encoder.channels
    shared = F.relu(norm(features.reshape(-1, width) @ encoder.shared.weight.T, encoder.shared_norm, slice(None)))
    x = []
    for k in range(encoder.aus):
        mine = slice(k * size, (k + 1) * size)
        hidden = F.relu(norm(shared @ encoder.per_au.weight[mine].T, encoder.per_au_norm, mine))
        x.append(torch.stack([hidden[b * count : (b + 1) * count].mean(0) for b in range(batch)]))
    x = torch.stack(x, dim=1)
    update = torch.zeros_like(x)
    for b in range(batch):
        for k in range(encoder.aus):
            order = sorted(range(encoder.aus), key=lambda j: -float((x[b, k] * x[b, j]).sum().detach()))
            near = order[: min(4, encoder.aus)]
            message = sum(encoder.graph_v(x[b, j]) for j in near) / len(near)
            update[b, k] = message + encoder.graph_u(x[b, k])
    result = torch.empty_like(x)
    for k in range(encoder.aus):
        flat = norm(update[:, k].reshape(-1, 1), encoder.graph_norm, slice(k, k + 1)).view(batch, size)
        result[:, k] = x[:, k] + flat
    return F.relu(result) if encoder.final_relu else result


@pytest.mark.parametrize(
    ("aus", "training", "relu"), [(6, True, True), (6, False, True), (3, True, False), (1, True, True)]
)
def test_the_encoder_equals_a_loop_over_aus_tokens_and_neighbours(aus, training, relu):
    encoder = build_encoder("small", aus=aus, channels=8, seed=0, final_relu=relu).double()
    images = torch.rand(5, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    encoder(images * 0.5)  # running statistics that are not 0 and 1
    encoder.train(training)
    expected = loop_per_au(encoder, images)
    result = encoder(images)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-6)  # mean and std are kept in float32
    assert (result < 0).any() != relu


def test_every_parameter_of_the_head_learns():
    encoder = build_encoder("small", aus=6, channels=8, seed=0)
    encoder(torch.rand(4, 3, 48, 48)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("neighbours", [1, 4, 6])
def test_adjacency_is_the_symmetric_normalised_graph_of_the_nearest_and_carries_no_gradient(neighbours):
    x = torch.randn(3, 6, 5, requires_grad=True)
    result = adjacency(x, neighbours)
    assert not result.requires_grad
    for image, graph in zip(x.detach().numpy(), result.numpy(), strict=True):
        product = image @ image.T
        marks = np.zeros((6, 6))
        for k in range(6):
            marks[k, np.argsort(-product[k])[:neighbours]] = 1
        degree = np.diag(marks.sum(1) ** -0.5)
        np.testing.assert_allclose(graph, degree @ marks @ degree, atol=1e-6)
        assert ((graph > 0).sum(1) == neighbours).all()


def test_aus_whose_features_are_all_zero_still_have_as_many_neighbours():
    assert ((adjacency(torch.zeros(2, 7, 3), 4) > 0).sum(2) == 4).all()


def test_fewer_aus_than_neighbours_use_all_of_them():
    assert build_encoder("small", aus=2, channels=8, seed=0).neighbours == 2


def test_the_probe_is_one_linear_layer_per_au():
    probe = LinearProbe(3, 5)
    x = torch.randn(4, 3, 5)
    expected = [[float((x[b, k] @ probe.weight[k] + probe.bias[k]).detach()) for k in range(3)] for b in range(4)]
    torch.testing.assert_close(probe(x), torch.tensor(expected))


@pytest.mark.long
def test_swin_base_at_224_px_builds_and_takes_one_training_step_on_a_cpu():
    encoder = build_encoder("swin-base", aus=12, channels=1024, seed=0)
    assert 85e6 < sum(parameter.numel() for parameter in encoder.backbone.parameters()) < 90e6
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5)
    before = encoder.graph_u.weight.detach().clone()
    x = encoder(torch.rand(2, 3, 224, 224))
    assert x.shape == (2, 12, 1024)
    x.square().mean().backward()
    optimizer.step()
    assert all(torch.isfinite(parameter).all() for parameter in encoder.parameters())
    assert not torch.equal(before, encoder.graph_u.weight)

"""Two augmented views: geometry, colour and blur against plain formulas, and randomness from the seed alone."""

import numpy as np
import pytest
import torch

from aunce import views
from aunce.views import two_views


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (8, 20, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_views_have_the_shape_range_and_layout_that_encoders_expect(images):
    result = two_views(images, seed=0)
    assert result.shape == (2, 8, 3, 20, 24)
    assert result.dtype == torch.float32
    assert 0 <= result.min() < result.max() <= 1


def test_the_seed_alone_decides_and_no_global_generator_moves(images):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = two_views(images, seed=3)
    torch.manual_seed(1)
    moved = torch.random.get_rng_state()
    assert torch.equal(first, two_views(images, seed=3))
    assert torch.equal(moved, torch.random.get_rng_state())
    assert not torch.equal(first, two_views(images, seed=4))
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_the_two_views_and_the_images_of_a_batch_are_drawn_independently():
    images = torch.randint(0, 256, (1, 24, 24, 3), dtype=torch.uint8).repeat(64, 1, 1, 1)
    flat = two_views(images, seed=0).flatten(0, 1).flatten(1)  # (128, pixels)
    assert torch.cdist(flat, flat).fill_diagonal_(1).min() > 1e-3


def test_crops_keep_most_of_the_face_and_bring_in_no_border():
    height, width = 40, 60
    across = torch.linspace(0, 200, width).expand(height, width)
    down = torch.linspace(0, 200, height)[:, None].expand(height, width)
    image = torch.stack((across, down, torch.full_like(down, 255)), dim=-1).to(torch.uint8)  # (40, 60, 3)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        geometry = views._augmentations(height, width, 0)[:2]
        result = geometry(image.permute(2, 0, 1)[None].repeat(400, 1, 1, 1).float() / 255)  # (400, 3, 40, 60)
    torch.testing.assert_close(result[:, 2], torch.ones(400, height, width))  # no black border
    # On a picture of its own coordinates, slopes are the window.
    half_x = (result[:, 0, 20, 50] - result[:, 0, 20, 10]) / (across[0, 50] - across[0, 10]) * 255
    half_y = (result[:, 1, 34, 30] - result[:, 1, 6, 30]) / (down[34, 0] - down[6, 0]) * 255
    assert 0.4 < (half_x < 0).float().mean() < 0.6  # mirrored
    area = half_x.abs() * half_y
    assert area.min() > 0.7
    assert area.max() < 1.05


def test_released_crops_are_windows_of_the_image_at_random_places():
    image = torch.arange(12 * 16, dtype=torch.uint8).view(12, 16, 1).repeat(1, 1, 3)  # no two pixels alike
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        crop = views._augmentations(12, 16, 8)[0]
        result = crop(image.permute(2, 0, 1)[None].repeat(200, 1, 1, 1).float() / 255)  # (200, 3, 8, 8)
    corners = (result[:, 0, 0, 0] * 255).round().long()
    top, left = corners // 16, corners % 16
    for window, row, column in zip(result, top, left, strict=True):
        expected = image[row : row + 8, column : column + 8].permute(2, 0, 1) / 255
        torch.testing.assert_close(window, expected)
    assert set(top.tolist()) == set(range(5))
    assert set(left.tolist()) == set(range(9))
    assert two_views(image[None], seed=0, crop=8).shape == (2, 1, 3, 8, 8)
    with pytest.raises(ValueError, match="crops of 13 px from images of 12 x 16 px"):
        two_views(image[None], seed=0, crop=13)


def test_about_a_fifth_of_the_views_is_grey_and_grey_has_three_equal_channels():
    images = torch.randint(0, 256, (500, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flat = two_views(images, seed=0).flatten(0, 1)  # (1000, 3, 8, 8)
    spread = (flat.amax(1) - flat.amin(1)).amax((1, 2))
    assert 0.16 < (spread < 1e-5).float().mean() < 0.24


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
def test_images_of_another_layout_are_refused_with_the_expected_one(wrong):
    with pytest.raises(ValueError, match=r"uint8 images \(B, H, W, 3\)"):
        two_views(wrong, seed=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_seed_means_the_same_views_on_every_device(images):
    torch.testing.assert_close(two_views(images.cuda(), seed=0).cpu(), two_views(images, seed=0), atol=1e-4, rtol=0)

"""Two augmented views: geometry, colour and blur against plain formulas, and randomness from the seed alone."""

import math

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F

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
    drawn = torch.from_numpy(views.draw(400, height, width, seed=0, crop=0)).float()
    result = views.windows(image.expand(400, -1, -1, -1), drawn[..., :5], (height, width))[0]  # (400, 3, 40, 60)
    torch.testing.assert_close(result[:, 2], torch.ones(400, height, width))  # no black border
    # On a picture of its own coordinates, slopes are the window.
    half_x = (result[:, 0, 20, 50] - result[:, 0, 20, 10]) / (across[0, 50] - across[0, 10]) * 255
    half_y = (result[:, 1, 34, 30] - result[:, 1, 6, 30]) / (down[34, 0] - down[6, 0]) * 255
    assert 0.4 < (half_x < 0).float().mean() < 0.6  # mirrored
    area = half_x.abs() * half_y
    assert area.min() > 0.7
    assert area.max() < 1.05


def test_drawn_windows_lie_in_the_image_with_areas_and_ratios_in_their_ranges():
    height, width = 40, 60
    top, left, high, wide = views.draw(2000, height, width, seed=0, crop=0)[..., :4].reshape(-1, 4).T
    assert min(top.min(), left.min()) >= 0
    assert (top + high).max() <= height + 1e-9
    assert (left + wide).max() <= width + 1e-9
    area, ratio = high * wide / (height * width), (wide / width) / (high / height)
    assert 0.75 <= area.min() < 0.76
    assert 0.99 < area.max() <= 1
    assert 0.9 <= ratio.min() < 0.91
    assert 1.09 < ratio.max() <= 1.1


def test_released_crops_are_windows_of_the_image_at_random_places():
    image = torch.arange(12 * 16, dtype=torch.uint8).view(12, 16, 1).repeat(1, 1, 3)  # no two pixels alike
    drawn = torch.from_numpy(views.draw(200, 12, 16, seed=0, crop=8)).float()
    drawn[..., 4] = 0  # not mirrored
    result = views.windows(image.expand(200, -1, -1, -1), drawn[..., :5], (8, 8))[0]  # (200, 3, 8, 8)
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


def test_a_window_is_what_torch_samples_from_the_same_place(images):
    # Independent of the matrices: grid_sample looks up each pixel's source by itself.
    window = torch.tensor([1.3, 2.6, 17.1, 18.7, 1.0]).expand(1, 8, 5)
    size = (20, 24)
    y = (1.3 + (torch.arange(20) + 0.5) * 17.1 / 20) / 20 * 2 - 1
    x = (2.6 + (23.5 - torch.arange(24)) * 18.7 / 24) / 24 * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).expand(8, -1, -1, -1)  # (8, 20, 24, 2)
    pixels = images.permute(0, 3, 1, 2).float() / 255
    expected = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(views.windows(images, window, size)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("weights", "oracle"),
    [
        ((1.3, 0, 0), lambda x: kornia.enhance.adjust_brightness_accumulative(x, 1.3)),
        ((0.6, 1, 0), lambda x: kornia.enhance.adjust_contrast_with_mean_subtraction(x, 0.6)),
        ((1.4, 1, 0), lambda x: kornia.enhance.adjust_contrast_with_mean_subtraction(x, 1.4)),
        ((1.4, 0, 1), lambda x: kornia.enhance.adjust_saturation_with_gray_subtraction(x, 1.4)),
        ((0, 0, 1), lambda x: kornia.color.rgb_to_grayscale(x).expand_as(x)),
        ((1, 1, 0), lambda x: x),
    ],
    ids=["brightness", "less contrast", "more contrast", "saturation", "grey", "nothing"],
)
def test_mixing_with_a_base_is_kornias_brightness_contrast_saturation_and_greyscale(weights, oracle):
    x = torch.rand(6, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    mixed = views.mix(x[None].clone(), torch.tensor(weights, dtype=torch.float32).expand(1, 6, 3))[0]
    torch.testing.assert_close(mixed, oracle(x), atol=1e-5, rtol=0)


def test_every_order_of_the_three_jitters_is_drawn_and_a_fifth_has_none():
    colour = views.draw(2000, 8, 8, seed=0, crop=0)[..., 5:-1].reshape(-1, 4, 3)
    factors, which = colour[:, :3, 0], colour[:, :3, 1] + 2 * colour[:, :3, 2]  # 0 brightness, 1 contrast, 2 saturation
    orders, counts = np.unique(which, axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 4000 / 6 * 0.85
    none = (factors == 1).all(1)
    assert 0.18 < none.mean() < 0.22
    assert 0.6 <= factors[~none].min() < 0.61
    assert 1.39 < factors.max() <= 1.4


def test_the_blur_is_kornias_gaussian_mirrored_at_the_rim_for_half_of_the_views():
    x = torch.rand(1, 4, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    sigma = 0.8
    neighbour = math.exp(-0.5 / sigma**2)
    blurred = views.blur(x, torch.full((1, 4), neighbour / (1 + 2 * neighbour)))
    expected = kornia.filters.gaussian_blur2d(x[0], (3, 3), (sigma, sigma), border_type="reflect")
    torch.testing.assert_close(blurred[0], expected, atol=1e-6, rtol=0)
    side = views.draw(2000, 8, 8, seed=0, crop=0)[..., -1]
    assert 0.47 < (side > 0).mean() < 0.53
    assert side.max() <= 1 / 3


def test_a_share_of_a_batch_has_the_views_that_it_has_in_the_whole(images):
    whole = two_views(images, seed=5)
    torch.testing.assert_close(two_views(images[3:6], seed=5, first=3, of=8), whole[:, 3:6])


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

"""Several processes that share a training: the same numbers as one process."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from aunce.devices import Processes, gather
from aunce.errors import UsageError

TRAINING = """
    import sys
    import numpy as np
    import torch
    from aunce import training
    from aunce.losses import AUNCELoss, infonce, supcon
    from aunce.model import LinearProbe, build_encoder
    from aunce.training import Optimisation, Training, fit_supervised, pretrain

    def views(pixels, *, seed, crop, first, of):
        # As in `two_views`, but in float64: the rounding of float32 depends on the number of images.
        assert 0 <= first <= of - len(pixels)
        plain = (pixels.double() / 255).permute(0, 3, 1, 2)
        return torch.stack([plain, plain.flip(3)])

    def bce(logits, y):  # in float64, too
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, (y == 1).double())

    training.two_views = views
    def quiet(line):
        pass

    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (17, 32, 32, 3), dtype=np.uint8)
    labels = random.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=(17, 3)).astype(np.int8)
    plan = Optimisation(epochs=2, batch_size=7, learning_rate=1e-3)  # batches of 7, 7 and 3 for two processes
    criterion = AUNCELoss.hcl(draw="anchor")
    losses = {
        "aunce": lambda z, y, generator, anchors: criterion(z, y, generator=generator, anchors=anchors),
        "supcon": lambda z, y, generator, anchors: supcon(z, y, 0.5, anchors=anchors),
        "infonce": lambda z, y, generator, anchors: infonce(z, 0.5, anchors=anchors),
    }
    found = {}
    for name in (*losses, "bce"):
        encoder = build_encoder("small", aus=3, channels=8, seed=0).double()
        task = Training(
            images=images, labels=labels, optimisation=plan, seed=3, two_forwards=name == "supcon", log=quiet
        )
        if name in losses:
            history = pretrain(encoder, losses[name], task)
        else:
            head = LinearProbe(3, 8).double()
            torch.nn.init.constant_(head.weight, 0.1)
            history = fit_supervised(encoder, head, bce, task)
            found["head"] = head.weight.detach().numpy()
        found |= {f"{name} {key}": value.numpy() for key, value in encoder.state_dict().items()}
        found[f"{name} loss"] = history["loss"].to_numpy()
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        np.savez(sys.argv[1], **found)
"""


@pytest.mark.long
def test_two_processes_train_to_the_numbers_of_one(tmp_path):
    script = tmp_path / "training.py"
    script.write_text(textwrap.dedent(TRAINING))
    launchers = {
        "one": [sys.executable],
        "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    }
    for name, launcher in launchers.items():
        command = [*launcher, str(script), str(tmp_path / f"{name}.npz")]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    one, two = (dict(np.load(tmp_path / f"{name}.npz")) for name in launchers)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=0, atol=1e-10, err_msg=name)


RECIPE = """
    import sys
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from aunce.devices import gather
    from aunce.losses import AUNCELoss, InfoNCELoss, SupConLoss

    rank = int(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 5, generator=draws, dtype=torch.float64)  # two views of six images
    labels = torch.randint(-1, 2, (6, 3), generator=draws)
    mine = slice(3 * rank, 3 * rank + 3)
    supcon, infonce = SupConLoss(0.5), InfoNCELoss(0.5, chunk_size=2)
    losses = {"supcon": supcon, "infonce": lambda z, y, anchors=None: infonce(z, anchors=anchors)}
    for how in ("auto", "reference"):
        for draw in ("au", "anchor"):
            criterion = AUNCELoss.released(draw=draw, implementation=how)
            losses[f"aunce {how} {draw}"] = lambda z, y, anchors=None, criterion=criterion: criterion(
                z, y, anchors=anchors, generator=torch.Generator().manual_seed(1)
            )

    def torch_gather(z):
        return torch.cat(torch.distributed.nn.functional.all_gather(z), dim=1)

    for name, loss in losses.items():
        torch.manual_seed(2)
        network = torch.nn.Linear(5, 12).double()
        whole = loss(network(x).unflatten(-1, (3, 4)), labels)
        [expected] = torch.autograd.grad(whole, network.weight)
        parallel = DistributedDataParallel(network)
        for collect in (gather, torch_gather):
            parallel.zero_grad()
            z = collect(parallel(x[:, mine]).unflatten(-1, (3, 4)))
            y = gather(labels[mine], axis=0)
            assert torch.equal(y, labels)
            share = 2 * loss(z, y, anchors=mine)
            share.backward()
            total = share.detach() / 2
            dist.all_reduce(total)
            torch.testing.assert_close(total, whole.detach(), rtol=1e-12, atol=0, msg=lambda text: name + text)
            torch.testing.assert_close(network.weight.grad, expected, rtol=0, atol=1e-12, msg=lambda text: name + text)
    unequal = gather(x[:, : 4 - rank], counts=[4, 3])  # shares of different size
    torch.testing.assert_close(unequal, torch.cat([x[:, :4], x[:, :3]], dim=1), rtol=0, atol=0)
    dist.destroy_process_group()
"""


def test_the_recipe_for_distributed_data_parallel_has_the_loss_and_gradient_of_one_process(tmp_path):
    script = tmp_path / "recipe.py"
    script.write_text(textwrap.dedent(RECIPE))
    command = [sys.executable, str(script)]
    started = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors


def test_shares_are_neighbours_that_differ_by_one_image_at_most():
    for images in (3, 7, 8):
        shares = [Processes(rank, 3).share(images) for rank in range(3)]
        assert [index for share in shares for index in range(images)[share]] == list(range(images))
        sizes = {share.stop - share.start for share in shares}
        assert max(sizes) - min(sizes) <= 1
    with pytest.raises(UsageError, match="a batch of 2 images cannot be shared by 3 processes"):
        Processes(0, 3).share(2)


def test_a_single_process_gathers_nothing():
    z = torch.rand(2, 4, 3, 8)
    assert Processes().gather(z, 4) is z
    assert gather(z) is z
    assert Processes().share(4) == slice(0, 4)

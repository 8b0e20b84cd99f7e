from __future__ import annotations

import pytest
import torch

from training.mixed_precision import keep_small_grids_exact


def slopes(network: torch.nn.Module, shown: torch.Tensor, slope: torch.Tensor, half: bool) -> torch.Tensor:
    network.zero_grad()
    torch.full((200_000,), 1e30)  # what lies in memory that is used again
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = network(shown)
    out.float().backward(slope)
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("kernel", "grid"), [(3, (2, 2, 2)), (3, (2, 4, 4)), (5, (4, 5, 5)), (5, (3, 8, 8)), (3, (4, 4, 4))]
)
def test_slopes_in_half_floats_are_those_of_whole_ones_however_small_the_grid(
    kernel: int, grid: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(16, 16, kernel, padding=kernel // 2).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    keep_small_grids_exact(network)
    shown = torch.randn(16, 16, *grid).contiguous(memory_format=torch.channels_last_3d)
    slope = torch.randn(16, 16, *grid)
    exact = slopes(network, shown, slope, half=False)
    for _ in range(3):
        wrong_by = (slopes(network, shown, slope, half=True) - exact).abs().max() / exact.abs().max()
        assert wrong_by < 0.02


def test_a_grid_that_the_kernel_fits_into_stays_in_half_floats() -> None:
    network = torch.nn.Conv3d(2, 2, 3, padding=1)
    keep_small_grids_exact(network)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.zeros(1, 2, 3, 3, 3)).dtype == torch.bfloat16
        assert network(torch.zeros(1, 2, 2, 3, 3)).dtype == torch.float32

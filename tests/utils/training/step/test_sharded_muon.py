"""Muon over shares is Muon: compared with torch's own on whole matrices."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.optim import Muon

from utils.training.step.muon import BatchedMuon
from utils.training.step.sharded_muon import ShardedMuon


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_matrices_of_several_shapes_move_as_under_torch(dtype, group_of_one):
    atol = 3 * 0.02 * 2**-5  # 3 steps of rate 0.02; torch's are in bfloat16, 8 bits over 5 rounds
    shapes = [(8, 4), (4, 8), (8, 4), (5, 5)]
    mesh = init_device_mesh("cpu", (1,))
    start = [torch.randn(shape) for shape in shapes]
    settings = dict(lr=0.02, momentum=0.9, weight_decay=0.1)
    plain = [torch.nn.Parameter(value.clone()) for value in start]
    spread = [torch.nn.Parameter(distribute_tensor(v.clone(), mesh, [Shard(0)])) for v in start]
    theirs = Muon(plain, **settings)
    ours = ShardedMuon(spread, dtype=dtype, **settings)
    for step in range(3):
        for left, right in zip(plain, spread, strict=True):
            draw = torch.Generator().manual_seed(step)
            left.grad = torch.randn(left.shape, generator=draw)
            right.grad = distribute_tensor(left.grad.clone(), mesh, [Shard(0)])
        theirs.step()
        ours.step()
    for left, right in zip(plain, spread, strict=True):
        torch.testing.assert_close(right.full_tensor().detach(), left.detach(), atol=atol, rtol=0)


@pytest.mark.parametrize("shape", [(8, 4), (4, 8), (5, 5)], ids=str)
def test_normuon_over_shares_is_that_over_stacks(shape, group_of_one):
    mesh = init_device_mesh("cpu", (1,))
    settings = dict(lr=0.02, momentum=0.9, weight_decay=0.1, moment_decay=0.8, dtype=torch.float32)
    start = [torch.randn(shape) for _ in range(3)]
    whole = [torch.nn.Parameter(value.clone()) for value in start]
    spread = [torch.nn.Parameter(distribute_tensor(v.clone(), mesh, [Shard(0)])) for v in start]
    stacked, shared = BatchedMuon(whole, **settings), ShardedMuon(spread, **settings)
    for _ in range(3):
        for left, right in zip(whole, spread, strict=True):
            left.grad = torch.randn(shape)
            right.grad = distribute_tensor(left.grad.clone(), mesh, [Shard(0)])
        stacked.step()
        shared.step()
    for left, right in zip(whole, spread, strict=True):
        torch.testing.assert_close(right.full_tensor().detach(), left.detach())
        moments = shared.state[right]["second_moment"], stacked.state[left]["second_moment"]
        torch.testing.assert_close(*moments)
        assert moments[0].max() > 0


def test_a_matrix_without_gradient_stays(group_of_one):
    mesh = init_device_mesh("cpu", (1,))
    spread = torch.nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)]))
    ShardedMuon([spread], dtype=torch.float32, lr=0.1).step()
    assert torch.equal(spread.full_tensor().detach(), torch.ones(4, 4))

"""Sums of micro-batches: which bits come out, and that the processes do not matter."""

import math

import pytest
import torch

from utils.config.pretrain import PretrainConfig
from utils.errors import ConfigError
from utils.training.step.gradient_sum import (
    CanonicalSum,
    FastSum,
    Node,
    Tree,
    complete_nodes,
    fitting_micro_batch,
    new_sum,
)


@pytest.fixture(scope="module")
def one_process():
    from utils.training.devices.processes import Processes

    return Processes(cpu=True)


def tree_sum(values):
    tree = Tree()
    for index, value in enumerate(values):
        tree.push(Node(0, index, [torch.tensor([value])]))
    return tree.total()[0].item()


@pytest.mark.parametrize(
    ("values", "as_tree", "one_after_the_other"),
    [  # neighbours in fp32 are 8 apart at 1e8, so a single 1 vanishes beside it
        ([1e8, 1.0, -1e8, 1.0], 0.0, 1.0),  # (1e8 + 1) + (-1e8 + 1)
        ([4.0, 4.0, 1e8], 1e8 + 8, 1e8 + 8),  # (4 + 4) + 1e8
        ([1e8, 4.0, 4.0, 0.0], 1e8, 1e8),  # (1e8 + 4) + (4 + 0): halves go to the even 1e8
        ([1e8, 0.0, 4.0, 4.0], 1e8 + 8, 1e8),  # 1e8 + (4 + 4)
        ([1e8, 0.0, 0.0, 0.0, 4.0, 4.0], 1e8 + 8, 1e8),  # four, then the pair
    ],
)
def test_a_tree_adds_neighbours_first(values, as_tree, one_after_the_other):
    assert tree_sum(values) == as_tree
    running = torch.zeros(1)
    for value in values:
        running += value
    assert running.item() == one_after_the_other


def test_a_span_is_made_of_the_largest_nodes():
    assert list(complete_nodes(0, 8)) == [(3, 0)]
    assert list(complete_nodes(3, 6)) == [(0, 3), (1, 2)]
    assert list(complete_nodes(6, 12)) == [(1, 3), (2, 2)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24])
def test_the_number_of_processes_does_not_change_a_bit(count):
    draw = torch.Generator().manual_seed(count)
    leaves = torch.randn(count, 50, generator=draw) * 10 ** torch.randn(count, 1, generator=draw)

    def by_recursion(start, size):
        """The sum of a padded tree, written down from its definition."""
        if size == 1:
            return leaves[start]
        left = by_recursion(start, size // 2)
        right = start + size // 2
        return left if right >= count else left + by_recursion(right, size // 2)

    expected = by_recursion(0, 2 ** math.ceil(math.log2(count)))
    for processes in (n for n in range(1, count + 1) if count % n == 0):
        each, whole = count // processes, Tree()
        for rank in range(processes):
            own = Tree()
            for place in range(rank * each, (rank + 1) * each):
                own.push(Node(0, place, [leaves[place].clone()]))
                assert len(own.nodes) <= 2 * math.log2(each) + 1
            places = [(node.level, node.index) for node in own.nodes]
            assert places == list(complete_nodes(rank * each, (rank + 1) * each))
            for node in own.nodes:
                whole.push(node)
        assert torch.equal(whole.total()[0], expected), processes


def test_both_sums_are_the_gradient_of_the_summed_loss(one_process):
    weight = torch.randn(3, 4)
    batches = torch.randn(6, 5, 3)
    (batches @ weight.requires_grad_()).square().sum().backward()
    for kind in (FastSum, CanonicalSum):
        model = torch.nn.Linear(3, 4, bias=False)
        model.weight = torch.nn.Parameter(weight.detach().t().clone())
        reduce = "canonical" if kind is CanonicalSum else "fast"
        total = new_sum(PretrainConfig(reduce=reduce), model, one_process, per_process=6)
        assert type(total) is kind
        for batch in batches:
            loss = model(batch).square().sum()
            loss.backward()
            total.add(loss.detach())
        found = total.finish()
        assert found.item() == pytest.approx((batches @ weight).square().sum().item(), rel=1e-6)
        torch.testing.assert_close(model.weight.grad, weight.grad.t())


@pytest.mark.parametrize(
    ("rows", "size", "count", "canonical", "fitting"),
    [
        (16, 4, 1, False, 4),
        (16, 4, 4, True, 4),
        (16, 8, 4, False, 4),  # 4 rows for each process
        (24, 16, 1, False, 12),
        (30, 4, 2, False, 3),  # 15 each
    ],
)
def test_a_micro_batch_goes_evenly_into_what_a_process_gets(rows, size, count, canonical, fitting):
    assert fitting_micro_batch(rows, size, count, canonical=canonical) == fitting


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(ConfigError, match="10 rows does not go evenly into 4 processes"):
        fitting_micro_batch(10, 1, 4, canonical=False)
    with pytest.raises(ConfigError, match=r"16 rows in .* of 8 .* into 4 processes"):
        fitting_micro_batch(16, 8, 4, canonical=True)


def test_a_canonical_sum_of_shares_is_refused():
    with pytest.raises(ConfigError, match="canonical needs whole gradients"):
        PretrainConfig.build(dict(reduce="canonical", parallel="fsdp"))

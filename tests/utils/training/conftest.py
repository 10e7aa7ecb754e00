"""What the tests of training share."""

import pytest


@pytest.fixture(scope="module")
def group_of_one():
    """A gloo process group of this process alone: FSDP without starting others."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()

"""On a cluster the same bytes come out, also when a node is lost in the middle."""

import json
import sys
import threading
import time

import pytest

from tests.stage01 import prepare
from utils.config.prepare import PrepareConfig
from utils.data.corpus import work_units as units
from utils.errors import ConfigError
from utils.reading import file_parts


def _config(corpus, output, **settings):
    return PrepareConfig.build({
        "input_path": str(corpus), "output_dir": output, "vocab_size": 600, "language": None,
        "num_workers": 1, "train_ratio": 0.9, **settings,
    })  # fmt: skip


def _contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def corpus(tmp_path, texts, monkeypatch):
    for module in (units, file_parts):
        monkeypatch.setattr(module, "PART_BYTES", 9000)
    path = tmp_path / "docs.jsonl"
    path.write_text(
        "\n".join(json.dumps({"text": f"{text}\n\n{n}"}) for n, text in enumerate(texts))
    )
    return path


def test_without_ray_the_way_to_it_is_told(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="make install-ray"):
        prepare(_config(corpus, tmp_path / "out", executor="ray"))


@pytest.fixture
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield nodes
    nodes.shutdown()


def test_a_cluster_gives_the_same_bytes_although_a_node_is_lost(corpus, tmp_path, cluster):
    whole = _contents(prepare(_config(corpus, tmp_path / "whole")))
    lost, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
    cluster.wait_for_nodes()
    done_before = []

    def lose_a_node():
        while len(cleaned := list((tmp_path / ".cache-out").glob("clean-*.json"))) < 5:
            time.sleep(0.01)
        cluster.remove_node(lost, allow_graceful=False)
        done_before.append(len(cleaned))

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    cfg = _config(corpus, tmp_path / "out", executor="ray", ray_address=cluster.address)
    assert _contents(prepare(cfg)) == whole
    assert done_before and done_before[0] < len(
        list((tmp_path / ".cache-out").glob("clean-*.json"))
    )

import pytest

from utils.errors import ConfigError
from utils.session.state.corpus import find_corpus, is_prepared, sample_limit


def test_the_size_of_a_hub_data_set_is_unknown_and_its_documents_are_limited(bench):
    config = bench.folder / "hub.json"
    config.write_text('{"input_path": "someone/texts", "dataset_name": "texts"}')
    corpus = find_corpus(bench.config(dataset_config=config))
    assert corpus.raw_bytes is None
    assert sample_limit(corpus, 10_000_000) == {"max_samples": 200_000}


def test_a_local_corpus_is_used_whole(bench):
    (bench.folder / "a.txt").write_text("x" * 100)
    corpus = find_corpus(bench.config(source=bench.folder / "a.txt"))
    assert corpus.raw_bytes == 100
    assert sample_limit(corpus, 10_000_000) == {}


def test_an_unknown_key_of_the_data_set_is_named(bench):
    config = bench.folder / "bad.json"
    config.write_text('{"input_pth": "x"}')
    with pytest.raises(ConfigError, match=r"bad.json: unknown key 'input_pth'.*input_path"):
        find_corpus(bench.config(dataset_config=config))


def test_prepared_data_is_found_by_its_manifest(bench):
    corpus = find_corpus(bench.config())
    assert not is_prepared(corpus, 8192, bench.folder)
    folder = bench.folder / corpus.folder(8192)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    assert is_prepared(corpus, 8192, bench.folder)

import csv
import gzip
import hashlib
import lzma
from urllib.parse import urlsplit

import pytest

from chainrule.datasets import embedded
from chainrule.manifest import ROLES, sources


def test_it_has_the_four_public_sets_and_the_embedded_one():
    assert list(sources()) == ["mnist", "fashion-mnist", "kmnist", "qmnist", "digits"]
    hosts = {"digits": 0, "kmnist": 1}  # of KMNIST one host is known, which the manifest lists by two schemes
    for name, source in sources().items():
        assert len({urlsplit(mirror).hostname for mirror in source.mirrors}) >= hosts.get(name, 2)
        assert all(mirror.endswith("/") for mirror in source.mirrors)
        assert source.complete == (name != "qmnist")
        assert len(source.classes) == (10 if source.complete else 0)


def test_every_file_has_its_sums():
    for source in sources().values():
        for file in source.files.values():
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 0
            assert bool(file.raw_sha256) == bool(file.raw_size)


def test_qmnist_offers_no_file_without_a_sum():
    assert not {"train_images", "test_images"} & set(sources()["qmnist"].files)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "qmnist"])
def test_the_real_files_have_these_sizes_and_sums(name, shared):
    for file in sources()[name].files.values():
        data = (shared / name / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)
        raw = (lzma if file.name.endswith(".xz") else gzip).decompress(data)
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (file.raw_size, file.raw_sha256)


def test_it_agrees_with_the_list_of_known_files(shared):
    with (shared / "known-files.tsv").open(encoding="utf-8") as file:
        known = {(row["dataset"], row["file"]): row for row in csv.DictReader(file, delimiter="\t")}
    for source in sources().values():
        for file in source.files.values() if source.mirrors else ():
            row = known[source.torchvision, file.name]
            assert (int(row["size"]), row["sha256"]) == (file.size, file.sha256)
            addresses = {f"{mirror}{file.name}".partition("://")[2] for mirror in source.mirrors}
            assert row["url"].partition("://")[2] in addresses


def test_the_embedded_files_have_these_sums():
    source = sources()["digits"]
    assert set(source.files) == set(ROLES)
    for file in source.files.values():
        data = (embedded() / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)

"""Members of zip archives are read as they lie; what is wrong with one costs that one only."""

import io
import random
import struct
import zipfile
import zlib

import pytest

from utils.reading import archives
from utils.reading.archives import Archive
from utils.reading.streams import TornFile, read_blocks

TEXT = "\n".join(f"line {number} of a member" for number in range(20_000)).encode()


def pack(path, members, method=zipfile.ZIP_DEFLATED):
    """Write an archive of (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def contents(path):
    """Return {name: (content, what is wrong with it)}."""
    found = {}
    with Archive(path) as archive:
        for member in archive.members():
            data, reason = bytearray(), None
            try:
                for block in read_blocks(member):
                    data += block
            except TornFile as error:
                reason = str(error)
            found[member.name] = (bytes(data), reason)
    return found


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_come_by_name_and_hidden_ones_do_not(tmp_path, method):
    names = ["b.txt", "a/z.txt", "a/b.txt", ".hidden", "a/.git/x.txt", "__MACOSX/a/b.txt", "dir/"]
    path = pack(tmp_path / "a.zip", [(name, TEXT + name.encode()) for name in names], method)
    found = contents(path)
    assert list(found) == ["a/b.txt", "a/z.txt", "b.txt"]
    assert found == {name: (TEXT + name.encode(), None) for name in found}
    with Archive(path) as archive:
        assert archive.find("b.txt").name == "b.txt" and archive.find("c.txt") is None


def test_random_archives_read_as_the_standard_library_reads_them(tmp_path):
    chance = random.Random(1)
    for number in range(30):
        members = [
            (f"{at}.bin", chance.randbytes(chance.randrange(70_000)) + zeros)
            for at in range(chance.randrange(6))
            for zeros in [bytes(chance.choice([0, 9**6]))]
        ]  # fmt: skip
        path = pack(tmp_path / f"{number}.zip", members, chance.choice([0, 8]))
        path.write_bytes(b"#!/bin/sh\n" * (number % 3) + path.read_bytes())  # self-extracting
        with zipfile.ZipFile(path) as archive:
            assert contents(path) == {name: (archive.read(name), None) for name, _ in members}


def _info(name, **fields):
    info = zipfile.ZipInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def test_names_and_kinds_that_are_no_files_of_the_archive_are_refused(tmp_path):
    members = [
        (_info("../up.txt"), b"x"), (_info("/etc/motd.txt"), b"x"), (_info("C:\\a.txt"), b"x"),
        (_info("a\\..\\..\\b.txt"), b"x"), (_info("good\\name.txt"), b"kept"),
        (_info("link.txt", external_attr=0o120777 << 16), b"/etc/passwd"),
    ]  # fmt: skip
    found = contents(pack(tmp_path / "a.zip", members))
    assert found.pop("good/name.txt") == (b"kept", None)
    assert found.pop("link.txt") == (b"", "a symbolic link")
    assert set(found) == {"../up.txt", "/etc/motd.txt", "C:/a.txt", "a/../../b.txt"}
    assert set(found.values()) == {(b"", "its name leads out of the archive")}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_whose_output_has_no_bound_are_refused(tmp_path, method):
    path = pack(tmp_path / "a.zip", [("a.txt", TEXT)], method)
    ((data, reason),) = contents(path).values()
    assert data == b"" and reason.startswith("packed by ") and "not by deflate" in reason


def _patched(path, place, value):
    """Change bytes of an archive."""
    data = bytearray(path.read_bytes())
    data[place : place + len(value)] = value
    path.write_bytes(data)


def _central(path, name):
    """Return where the entry of a member begins in the table of contents."""
    return path.read_bytes().rindex(name.encode()) - 46


def test_an_encrypted_member_is_refused_and_the_others_are_read(tmp_path):
    path = pack(tmp_path / "a.zip", [("secret.txt", TEXT), ("open.txt", TEXT)])
    _patched(path, _central(path, "secret.txt") + 8, b"\x01\x00")
    assert contents(path) == {"open.txt": (TEXT, None), "secret.txt": (b"", "encrypted")}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_wrong_checksum_is_named_after_all_the_data(tmp_path, method):
    path = pack(tmp_path / "a.zip", [("a.txt", TEXT)], method)
    _patched(path, _central(path, "a.txt") + 16, b"\x00\x00\x00\x00")
    reason = "damaged zip data (its length or checksum is wrong)"
    assert contents(path) == {"a.txt": (TEXT, reason)}


def test_a_flipped_byte_costs_what_comes_after_it_in_its_member(tmp_path):
    chance = random.Random(2)
    for _ in range(40):
        path = pack(tmp_path / "a.zip", [("a.txt", TEXT), ("b.txt", TEXT)])
        place = chance.randrange(40, _central(path, "a.txt") // 2 - 100)
        _patched(path, place, bytes([path.read_bytes()[place] ^ (1 << chance.randrange(8))]))
        found = contents(path)
        assert found["b.txt"] == (TEXT, None)
        assert "damaged zip data" in found["a.txt"][1]


def test_a_member_that_is_longer_than_it_says_is_stopped_there(tmp_path):
    path = pack(tmp_path / "a.zip", [("a.txt", bytes(50_000_000))])
    _patched(path, _central(path, "a.txt") + 24, struct.pack("<I", 1000))
    ((data, reason),) = contents(path).values()
    assert data == bytes(1000) and "longer than the archive says" in reason


def test_overlapping_members_are_a_bomb(tmp_path):
    kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = kernel.compress(bytes(1_000_000)) + kernel.flush()
    crc = zlib.crc32(bytes(1_000_000))
    fields = (20, 0, 8, 0, 0, crc, len(packed), 1_000_000, 5)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", *fields, 0) + b"a.txt" + packed
    entries = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, *fields, 0, 0, 0, 0, 0, 0)
        + f"{number:05}".encode() for number in range(1000)
    )  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1000, 1000, len(entries), len(local), 0)
    path = tmp_path / "bomb.zip"
    path.write_bytes(local + entries + end)
    found = contents(path)
    assert len(found) == 1000
    assert {reason for _, reason in found.values()} == {
        "shares its bytes with another member (a zip bomb)"
    }


def test_what_is_no_archive_says_so(tmp_path, monkeypatch):
    whole = pack(tmp_path / "a.zip", [("a.txt", TEXT)])
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:-30])
    text = tmp_path / "text.zip"
    text.write_bytes(TEXT)
    for path in (cut, text):
        with pytest.raises(TornFile, match=r"damaged zip archive \("):
            Archive(path)
    with pytest.raises(FileNotFoundError):
        Archive(tmp_path / "none.zip")
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 40)
    with pytest.raises(TornFile, match="a table of contents of"):
        Archive(whole)


def test_a_member_gives_a_bounded_part_at_a_time(tmp_path):
    path = pack(tmp_path / "a.zip", [("a.txt", bytes(100_000_000))])
    assert path.stat().st_size < 200_000
    with Archive(path) as archive, next(archive.members()).open("rb") as file:
        assert len(file.read(4)) == 4
        assert file.seek(0) == 0
        assert len(file.read(1000)) <= 1000
        assert 0 < len(file.read(1 << 20)) <= 1 << 20
        assert isinstance(file, io.RawIOBase)

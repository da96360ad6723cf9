from __future__ import annotations

import hashlib
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.packing import PICKS, flipped, link, tarred, zipped, zipped_link

from deepbedmap.download import archives
from deepbedmap.download.archives import ArchiveError
from deepbedmap.registry import File

ONE = File("a.zip", None, None, unpacked="a.txt")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def unpack(path: Path, file: File) -> None:
    with archives.opened(path, "https://a.org/a.zip") as archive:
        for member in archive.choose(file).values():
            member.extract(path.with_name("out"))


@pytest.fixture
def said(tmp_path: Path):
    """The line in which an archive is refused."""

    def said(data: bytes, file: File = ONE) -> str:
        path = tmp_path / "a.zip"
        path.write_bytes(data)
        with pytest.raises(ArchiveError) as error:
            unpack(path, file)
        line = str(error.value)
        assert "\n" not in line
        assert line.startswith("https://a.org/a.zip: the archive ")
        assert not list(tmp_path.rglob("evil*"))
        return line.removeprefix("https://a.org/a.zip: the archive ")

    return said


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (
            b"this is no archive",
            "cannot be unpacked: it is not a zip or tar archive, or it is broken",
        ),
        (b"PK\x03\x04 nor is this", "cannot be unpacked: File is not a zip file"),
        (zipped({"x": PICKS})[:-30], "cannot be unpacked: File is not a zip file"),
        (flipped(zipped({"x": PICKS})), "cannot be unpacked: "),
        (tarred(tarfile.TarInfo("x"))[:-20], "cannot be unpacked: "),
        (b"", "cannot be unpacked: "),
        (zipped({"../evil.txt": PICKS}), "contains an unsafe name, '../evil.txt'"),
        (zipped({"x": PICKS, "a/../../evil.txt": PICKS}), "contains an unsafe name, "),
        (zipped({"/evil.txt": PICKS}), "contains an unsafe name, '/evil.txt'"),
        (zipped({"..\\evil.txt": PICKS}), "contains an unsafe name, "),
        (zipped({"C:/evil.txt": PICKS}), "contains an unsafe name, 'C:/evil.txt'"),
        (tarred(tarfile.TarInfo("../evil.txt")), "contains an unsafe name, '../evil.txt'"),
        (tarred(tarfile.TarInfo("/evil.txt")), "contains an unsafe name, '/evil.txt'"),
        (tarred(link("evil.txt")), "contains a link or a device, 'evil.txt'"),
        (tarred(link("evil.txt", tarfile.LNKTYPE)), "contains a link or a device, 'evil.txt'"),
        (tarred(link("evil.txt", tarfile.FIFOTYPE)), "contains a link or a device, 'evil.txt'"),
        (tarred(link("evil.txt", tarfile.CHRTYPE)), "contains a link or a device, 'evil.txt'"),
        (zipped_link(), "contains a link or a device, 'link.txt'"),
        (zipped({"x": bytes(2**26 + 1)}), "unpacks to more than 200 times its size"),
        (
            tarred(tarfile.TarInfo("x"), data=bytes(2**26 + 1)),
            "unpacks to more than 200 times its size",
        ),
        (
            zipped({"one": PICKS, "two\n": PICKS}),
            "should contain one file, but contains one, two\\n",
        ),
        (zipped({}), "should contain one file, but contains nothing"),
    ],
)
def test_a_broken_or_unsafe_archive_is_refused_in_one_line(data, why, said):
    assert said(data).startswith(why)


def test_more_names_than_an_honest_archive_of_its_size_has_are_refused(said, monkeypatch):
    monkeypatch.setattr(archives, "_HEADER", 2**26 // 500)
    many = tarred(*(tarfile.TarInfo(str(number)) for number in range(1000)), data=b"")
    assert said(many) == "unpacks to more than 200 times its size"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (zipped({"a.txt": PICKS}), "should contain files like '*.csv', but contains a.txt"),
        (zipped({"x/a.csv": PICKS, "y/a.csv": b"x"}), "contains two files called 'a.csv'"),
        (zipped({"a.csv": PICKS, "A.csv": b"x"}), "contains two files called 'A.csv'"),
        (zipped({"x/.a.csv": PICKS}), "contains an unsafe name, 'x/.a.csv'"),
        (zipped({"x/C:a.csv": PICKS}), "contains an unsafe name, 'x/C:a.csv'"),
        (zipped({"a\n.csv": PICKS}), "contains an unsafe name, 'a\\n.csv'"),
        (zipped({f"{n}.csv": b"" for n in range(21)}), "contains more than 20 files like '*.csv'"),
    ],
)
def test_members_with_unsafe_names_or_that_clash_are_refused(data, why, said, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 20)
    assert said(data, File("a.zip", None, None, members="*.csv")) == why


MEMBERS = {"2007/bed.txt": b"old", "2010/bed.txt": PICKS, "read.me": b"", "__MACOSX/._x": b""}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (File("a.zip", None, None, member="2010/bed.txt", unpacked="a"), {"a": "2010/bed.txt"}),
        (File("read.me", None, None), {"read.me": "read.me"}),
        (File("a.zip", None, None, members="read.*"), {"read.me": "read.me"}),
    ],
)
def test_the_members_that_the_registry_means_are_chosen(file, expected, tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(MEMBERS))
    with archives.opened(path) as archive:
        chosen = archive.choose(file)
        assert {name: member.path for name, member in chosen.items()} == expected


def test_an_archive_without_the_file_wanted_names_what_it_holds(said):
    why = said(zipped({"folder/other.tif": PICKS}), File("bed.tif", None, None))
    assert why == "should contain one file called 'bed.tif', but contains folder/other.tif"


@pytest.mark.parametrize("data", [zipped({"x": PICKS}), tarred(tarfile.TarInfo("x"))])
def test_a_member_is_written_and_its_checksum_returned(data, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(data)
    with archives.opened(path) as archive:
        (member,) = archive.members
        assert member.extract(tmp_path / "out") == (sha256(PICKS), len(PICKS)) == member.digest()
    assert (tmp_path / "out").read_bytes() == PICKS


def test_a_disk_that_cannot_be_written_is_no_fault_of_the_archive(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(zipped({"x": PICKS}))
    with archives.opened(path) as archive, pytest.raises(OSError, match=r"full|space") as error:
        archive.members[0].extract(Path("/dev/full"))
    assert not isinstance(error.value, ArchiveError)


def content(data: bytes, folder: Path) -> str:
    path = folder / "a.zip"
    path.write_bytes(data)
    with archives.opened(path) as archive:
        return archive.content_sha256()


@given(
    members=st.dictionaries(st.sampled_from(["a", "b/a", "b/c", "d.csv"]), st.binary(max_size=50))
)
def test_the_checksum_of_the_content_is_that_of_the_files_however_packed(members, tmp_path_factory):
    folder = tmp_path_factory.mktemp("content")
    found = content(zipped(members), folder)
    turned = dict(reversed(members.items()))
    assert content(zipped(turned, zipfile.ZIP_STORED), folder) == found
    lines = sorted(f"{sha256(data)}  {name}\n" for name, data in members.items())
    assert found == sha256("".join(lines).encode())


def test_the_checksum_of_the_content_is_one_of_names_too(tmp_path):
    assert content(zipped({"a": PICKS}), tmp_path) != content(zipped({"b": PICKS}), tmp_path)

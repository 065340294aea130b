"""Folders and files that another user could have written are refused, and records that are not of their form."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.errors import UntrustedPath
from airflow_provider_sewer.core.trusted_files import (
    InvalidRecord,
    check_own_folder,
    check_own_folders,
    has_types,
    make_folder,
    make_own_folders,
    open_own_to_write,
    parse_json,
    read_own,
    read_regular,
)

if TYPE_CHECKING:
    from pathlib import Path

OTHER = 65533
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to act as two users")


# -- Folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o2755])
def test_check_own_folder_accepts_modes_without_write_access_of_others(mode: int, tmp_path: Path) -> None:
    """Others may read."""
    tmp_path.chmod(mode)
    check_own_folder(str(tmp_path))


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_check_own_folder_refuses_write_access_of_all(mode: int, tmp_path: Path) -> None:
    """Also with the sticky bit: others can still create files."""
    tmp_path.chmod(mode)
    with pytest.raises(UntrustedPath, match=rf"run_dir: {tmp_path} is writable by other users \(mode {mode:04o}\)"):
        check_own_folder(str(tmp_path), "run_dir")


@needs_root
def test_check_own_folder_refuses_another_owner(tmp_path: Path) -> None:
    """The message has the owner and this user."""
    os.chown(tmp_path, OTHER, OTHER)
    tmp_path.chmod(0o700)
    with pytest.raises(UntrustedPath, match=rf"{tmp_path} belongs to uid {OTHER}, not to root \(uid 0\); remove it"):
        check_own_folder(str(tmp_path))


@needs_root
@pytest.mark.parametrize(("group", "is_own"), [(0, True), (OTHER, False)])
def test_check_own_folder_accepts_write_access_of_own_group_only(group: int, is_own: bool, tmp_path: Path) -> None:
    """With umask 002, folders are writable by the user's private group; containers use group 0."""
    os.chown(tmp_path, -1, group)
    tmp_path.chmod(0o775)
    if is_own:
        check_own_folder(str(tmp_path))
    else:
        with pytest.raises(UntrustedPath, match="writable by other users"):
            check_own_folder(str(tmp_path))


@needs_root
def test_check_own_folder_refuses_access_control_lists_that_open_the_group(tmp_path: Path) -> None:
    """The group's bits are then those of all users in the list."""
    user, named, group, mask, others = 1, 2, 4, 16, 32
    entries = [(user, 7, -1), (named, 7, OTHER), (group, 7, -1), (mask, 7, -1), (others, 5, -1)]
    listed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path, "system.posix_acl_access", struct.pack("<I", 2) + listed)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    with pytest.raises(UntrustedPath, match="writable by other users"):
        check_own_folder(str(tmp_path))


@pytest.mark.parametrize("target", ["own", "/nowhere"])
def test_check_own_folder_refuses_links(target: str, tmp_path: Path) -> None:
    """Also a link to a folder of this user, which someone may change."""
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UntrustedPath, match=r"/link is a symbolic link; put a directory in its place"):
        check_own_folder(str(tmp_path / "link"))


def test_check_own_folder_accepts_missing_folders(tmp_path: Path) -> None:
    """It is created later."""
    check_own_folder(str(tmp_path / "missing" / "folder"))


@pytest.mark.parametrize("level", ["a", "a/b", "a/b/c"])
def test_check_own_folders_checks_each_level_below_the_base(level: str, tmp_path: Path) -> None:
    """The base may belong to all."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    tmp_path.chmod(0o1777)
    check_own_folders(str(tmp_path), str(tmp_path / "a" / "b" / "c"))
    (tmp_path / level).chmod(0o777)
    with pytest.raises(UntrustedPath, match=rf"{tmp_path / level} is writable"):
        check_own_folders(str(tmp_path), str(tmp_path / "a" / "b" / "c"))


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077])
def test_make_own_folders_creates_folders_only_owner_can_write(umask: int, tmp_path: Path) -> None:
    """With any umask."""
    before = os.umask(umask)
    try:
        make_own_folders(str(tmp_path), str(tmp_path / "a" / "b"))
        make_own_folders(str(tmp_path), str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)
    assert [os.stat(tmp_path / path).st_mode & 0o777 for path in ("a", "a/b")] == [0o755 & ~umask] * 2


def test_make_folder_checks_from_the_own_folder_on(tmp_path: Path) -> None:
    """Folders before ``.sewer`` are the user's own affair."""
    (tmp_path / "shared").mkdir(mode=0o777)
    (tmp_path / "shared").chmod(0o777)
    make_folder(str(tmp_path / "shared" / "logs"))
    make_folder(str(tmp_path / "shared" / ".sewer" / "logs"))
    (tmp_path / "shared" / ".sewer").chmod(0o777)
    with pytest.raises(UntrustedPath, match=r"shared/\.sewer is writable"):
        make_folder(str(tmp_path / "shared" / ".sewer" / "logs"))


#: This process is then another user to the file system, as root is on NFS with root_squash.
SQUASHED = f"""
import ctypes, os, sys
from airflow_provider_sewer.core.trusted_files import check_own_folder
os.chdir(sys.argv[1])
ctypes.CDLL(None).setfsuid({OTHER})
os.mkdir("own", 0o700)
assert os.lstat("own").st_uid == {OTHER} != os.geteuid()
check_own_folder(os.path.abspath("own"))
check_own_folder(os.path.abspath("other"))
"""


@needs_root
def test_check_own_folder_accepts_the_user_that_the_file_system_takes_this_one_for(tmp_path: Path) -> None:
    """Root is another user on NFS with root_squash; folders of a third user stay refused."""
    tmp_path.chmod(0o1777)
    (tmp_path / "other").mkdir()
    os.chown(tmp_path / "other", 65532, 65532)
    for parent in tmp_path.parents[:3]:  # up to the folder of all runs of pytest, also beside other workers
        parent.chmod(0o755)
    ran = subprocess.run([sys.executable, "-c", SQUASHED, tmp_path], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1].endswith(
        f"UntrustedPath: {tmp_path}/other belongs to uid 65532, not to root (uid 0); remove it, or use another folder"
    ), ran.stderr
    assert sorted(os.listdir(tmp_path)) == ["other", "own"]


# -- Files -------------------------------------------------------------------------------------------------------------


def test_read_own_returns_the_content(tmp_path: Path) -> None:
    """Of a regular file of this user."""
    (tmp_path / "record").write_bytes(b"{}")
    assert read_own(str(tmp_path / "record")) == b"{}"


def _socket(path: Path) -> None:
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    socket.socket(socket.AF_UNIX).bind(path.name)


STRANGE: dict[str, tuple[Any, str]] = {
    "a named pipe": (os.mkfifo, "it is not a regular file"),
    "a link": (lambda path: path.symlink_to("/etc/passwd"), "it is a symbolic link"),
    "a link to itself": (lambda path: path.symlink_to(path), "it is a symbolic link"),
    "a directory": (lambda path: path.mkdir(), "it is not a regular file"),
    "too much": (lambda path: path.touch() or os.truncate(path, 1_000_000_000), "it is 1,000,000,000 bytes"),
    "open to all": (lambda path: path.touch() or path.chmod(0o666), "it is writable by other users (mode 0666)"),
}


@pytest.mark.parametrize(("make", "why"), STRANGE.values(), ids=STRANGE)
def test_read_own_refuses_strange_files(make: Any, why: str, tmp_path: Path) -> None:
    """It waits for none of them, and reads nothing."""
    make(tmp_path / "record")
    with pytest.raises(InvalidRecord) as caught:
        read_own(str(tmp_path / "record"))
    assert str(caught.value).startswith(why)


def test_read_own_refuses_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux itself refuses to open one."""
    monkeypatch.chdir(tmp_path)
    _socket(tmp_path / "record")
    with pytest.raises(OSError, match="No such device or address"):
        read_own(str(tmp_path / "record"))


@needs_root
def test_read_own_refuses_files_of_another_user(tmp_path: Path) -> None:
    """Though they can be read."""
    (tmp_path / "record").write_text("{}")
    os.chown(tmp_path / "record", OTHER, OTHER)
    for is_private in (True, False):
        with pytest.raises(InvalidRecord, match=f"it belongs to uid {OTHER}"):
            read_own(str(tmp_path / "record"), is_private=is_private)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/proc/self/fd"])
def test_read_regular_rejects_other_than_regular_file(path: str) -> None:
    """Devices have no end."""
    with pytest.raises(InvalidRecord, match="it is not a regular file"):
        read_regular(path, largest=10)


def test_read_regular_follows_links_within_its_bound(tmp_path: Path) -> None:
    """A workflow file may be a link."""
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(str(tmp_path / "link"), largest=5) == b"12345"
    with pytest.raises(InvalidRecord, match="it is 5 bytes"):
        read_regular(str(tmp_path / "link"), largest=4)


@pytest.mark.parametrize("appends", [True, False])
def test_open_own_to_write_writes_no_other_file(appends: bool, tmp_path: Path) -> None:
    """Neither through a link, nor into a named pipe; nothing waits for a reader."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").symlink_to("precious")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRecord, match="it is a symbolic link"):
        open_own_to_write(str(tmp_path / "link"), appends=appends)
    with pytest.raises(OSError) as caught:
        open_own_to_write(str(tmp_path / "pipe"), appends=appends)
    assert caught.value.errno == errno.ENXIO
    assert (tmp_path / "precious").read_text() == "mine"


# -- What is in a record -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, "[" * 121 + "]" * 121, '{"a":' * 130 + "1" + "}" * 130, "NaN", "[1e999]", "[-Infinity]", "{"],
)
def test_parse_json_rejects_deep_or_invalid_json(text: str) -> None:
    """Without a RecursionError."""
    with pytest.raises(ValueError):
        parse_json(text)


def test_parse_json_accepts_wide_json() -> None:
    """Wide values are no matter."""
    value = [[[{"a": [index]}]] for index in range(10_000)]
    assert parse_json(json.dumps(value)) == value
    assert parse_json("[" * 120 + "]" * 120)


@pytest.mark.parametrize("value", [True, None, "1", [], {}, 2**63, -(2**63)])
def test_has_types_refuses_other_values_for_numbers(value: Any) -> None:
    """A bool is not a number here."""
    assert not has_types({"n": value}, {"n": int})
    assert not has_types({"n": value}, {"n": float})


def test_has_types_takes_whole_numbers_for_floats() -> None:
    """JSON does not distinguish them."""
    assert has_types({"n": 1, "x": 1, "text": "a"}, {"n": int, "x": float, "text": str})
    assert not has_types({"n": 1.5}, {"n": int})


@pytest.mark.parametrize("value", ["a\nb", "\x1b[31m", "a" * 5000, 1, None])
def test_has_types_refuses_text_that_cannot_be_shown(value: Any) -> None:
    """It stands in log lines."""
    assert not has_types({"text": value}, {"text": str})


@pytest.mark.parametrize("fields", [[], "text", 1, None, {}])
def test_has_types_rejects_missing_field(fields: Any) -> None:
    """Also a value that is not an object."""
    assert not has_types(fields, {"n": int})

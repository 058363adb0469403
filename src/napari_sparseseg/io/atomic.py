"""Files that are either written completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sparseseg.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space",
    errno.EFBIG: "the file would be larger than allowed; choose another folder",
    errno.EACCES: "there is no permission to write there; choose another folder",
    errno.EPERM: "there is no permission to write there; choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; create it first",
    errno.ENOTDIR: "its folder is a file; choose another folder",
    errno.EISDIR: "a folder has that name; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def write_atomically(
    path: str | Path,
    write: Callable[[Path], None],
    suffix: str | None = None,
    *,
    flush: bool = True,
) -> None:
    """Write a file under a temporary name in its folder, then rename it.

    Whoever reads ``path`` sees the old file or the new one, never a part of either,
    and a failure leaves the old file as it was and nothing else behind.

    Parameters
    ----------
    path
        The file to write or replace.
    write
        Writes the content to the path it is given, which has the suffix of ``path``.
    suffix
        Of the path it is given, where it has several parts, as ``.nii.gz``.
    flush
        Whether to wait until the disk has it; else a loss of power may leave a file
        that is not complete.

    Raises
    ------
    OutputError
        If the file cannot be written, with the reason. Errors of ``write`` other than
        ``OSError`` pass unchanged.
    """
    target = Path(path)
    temporary = _temporary(target, target.suffix if suffix is None else suffix)
    try:
        try:
            write(temporary)
            if flush:
                _flush_to_disk(temporary)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {reason_of(error, target.parent)}.",
            path=str(target),
        ) from error


def write_folder_atomically(path: str | Path, write: Callable[[Path], None]) -> None:
    """Write a folder under a temporary name beside it, then rename it.

    Whoever reads ``path`` sees the old folder or the new one, or for an instant none;
    a failure leaves the old folder as it was and nothing else behind.

    Parameters
    ----------
    path
        The folder to write, or to replace with all that is in it.
    write
        Makes the folder of the path it is given, and its files.

    Raises
    ------
    OutputError
        If it cannot be written, with the reason. Errors of ``write`` other than
        ``OSError`` pass unchanged.
    """
    target = Path(path)
    temporary, old = _temporary(target, ".new"), _temporary(target, ".old")
    try:
        try:
            write(temporary)
            for file in temporary.rglob("*"):
                if file.is_file():
                    _flush_to_disk(file)
            if target.exists():
                target.rename(old)
            try:
                temporary.rename(target)
            except BaseException:
                if old.exists():
                    old.rename(target)
                raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {reason_of(error, target.parent)}.",
            path=str(target),
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a text and the end of its last line: UTF-8, lines ending as on Unix.

    Raises
    ------
    OutputError
        If the file cannot be written, with the reason.
    """

    def write(temporary: Path) -> None:
        temporary.write_text(f"{text}\n", encoding="utf-8", newline="\n")

    write_atomically(path, write)


def _temporary(target: Path, suffix: str) -> Path:
    return target.with_name(f".{secrets.token_hex(8)}{suffix}")


def _flush_to_disk(path: Path) -> None:
    """Make sure that the content is on disk before the old file is replaced.

    Some file systems rename before they write, and report a full disk only here.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def reason_of(error: OSError, folder: Path | None = None) -> str:
    """Say why a file cannot be written into a folder, and what to do."""
    if error.errno == errno.ENOENT and folder is not None and folder.is_dir():
        # Such as /proc, where only the system makes files.
        return "its folder takes no files; choose another folder"
    text = _REASONS.get(error.errno or 0)
    return text or (error.strerror or str(error) or type(error).__name__)

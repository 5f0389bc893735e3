"""A DVC remote on the company's own storage: objects by MD5 in DVC's own layout, put there with DVC's own library.

Nothing is believed: every object is read back after a push, and compared. The layout, as DVC 3 keeps it, is
``files/md5/ab/cdef…``; a folder is an object of its own whose name ends in ``.dir``, and lists its files.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import GatehouseError, IntegrityViolated, Unreachable, UsageError

_MD5 = "md5"
_CHUNK = 1 << 20
_SECONDS = 10
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
_SAYS_NO = ("Credentials", "exceptions.ClientError", "PermissionDenied", "KeyImport", "KeyEncryption", "SFTPFailure")
_NO_ROOM = ("SFTPNoSpace", "SFTPQuota")


class RemoteFull(GatehouseError):
    """The remote has no room left. Objects that are there are whole; the push can be run again."""

    family = "remote full"


@dataclass(frozen=True, slots=True)
class Output:
    """One file or folder as a DVC remote has it.

    Attributes:
        md5: its object's id; of a folder it ends in ``.dir``.
        size: bytes in all.
        files: how many files a folder has; None for a file.
        objects: ids of every object that it needs.
    """

    md5: str
    size: int
    files: int | None
    objects: tuple[str, ...]


class DvcRemote:
    """The remote at `url`, reached with DVC's own `options` for a remote.

    Raises:
        Unreachable: from every method, when the storage does not answer, or a folder is not there.
        UsageError: from every method, when the storage refuses, or DVC is not installed.
        RemoteFull: no room left.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self._options = dict(options)

    def push(self, paths: Iterable[Path]) -> tuple[list[Output], list[str]]:
        """Bring files and folders into the remote, and read back what is there.

        Returns:
            Each path's output, and the ids of the objects that were not there before.

        Raises:
            IntegrityViolated: an object in the remote has other bytes than its name says.
        """
        with self._talking(), tempfile.TemporaryDirectory(prefix="gatehouse-dvc-") as scratch:
            odb = self._odb()
            outputs: list[Output] = []
            added: list[str] = []
            for path in paths:
                output, files = _describe(path, Path(scratch))
                # A folder's own object comes last: where it is, its files are.
                for oid in output.objects:
                    if not odb.exists(oid):
                        odb.add(str(files[oid]), _local(), oid)
                        added.append(oid)
                    self._confirm(odb, oid)
                outputs.append(output)
            return outputs, added

    def remove(self, oids: Iterable[str]) -> None:
        """Remove objects; one that is gone already is no failure. Folders before what they list."""
        with self._talking():
            odb = self._odb()
            for oid in sorted(oids, key=lambda oid: not oid.endswith(".dir")):
                if odb.exists(oid):
                    odb.delete(oid)

    def _confirm(self, odb: Any, oid: str) -> None:
        digest = hashlib.new(_MD5, usedforsecurity=False)
        place = odb.oid_to_path(oid)
        with odb.fs.open(place, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != oid.removesuffix(".dir"):
            raise IntegrityViolated(
                f"the object {oid} has other bytes than its name says: {digest.hexdigest()}",
                where=f"{self.url}: {place}",
                fix="find out who changed it; then remove this object and push again",
            )

    def _odb(self) -> Any:
        from dvc.fs import get_cloud_fs
        from dvc_data.hashfile.db import get_odb

        scheme = urlsplit(self.url).scheme
        if not scheme:
            _demand_folder(Path(self.url))
        fs_class, config, path = get_cloud_fs({}, url=self.url, **self._options)
        fs = fs_class(**config)
        if scheme == "ssh":
            # DVC's own default knows no host keys and forwards the agent: whoever answers would be believed.
            fs.fs_args.update(known_hosts=(), agent_forwarding=False, timeout=_SECONDS)
        if scheme == "s3":
            own = {"connect_timeout": _SECONDS, "read_timeout": 60, "retries": {"total_max_attempts": 1}}
            fs.fs_args["config_kwargs"] = own | fs.fs_args.get("config_kwargs", {})
        return get_odb(fs, fs.join(path, "files", _MD5), hash_name=_MD5)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        # DVC reports usage, and botocore asks the cloud's metadata address for credentials: neither was configured.
        os.environ["DVC_NO_ANALYTICS"] = os.environ["DO_NOT_TRACK"] = os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        for name in ("asyncssh", "dvc", "dvc_data", "dvc_objects", "s3fs", "botocore"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        except GatehouseError:
            raise
        except ImportError as error:
            raise UsageError(
                f"DVC is not installed: {error}", where=self.url, fix="pip install 'gatehouse[dvc]'"
            ) from error
        except Exception as error:
            # Three libraries with families of errors of their own answer here.
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> GatehouseError:
        words = str(error).strip() or type(error).__name__
        family = f"{type(error).__module__}.{type(error).__qualname__}"
        if (isinstance(error, OSError) and error.errno in _FULL) or any(name in family for name in _NO_ROOM):
            return RemoteFull(
                f"the DVC remote is full: {words}", where=self.url, fix="make room there and run the same command again"
            )
        if "HostKey" in family:
            return UsageError(
                f"the DVC remote's host key is not known here: {words}",
                where=self.url,
                fix="put the host's key, as its operator gives it to you, into ~/.ssh/known_hosts",
            )
        refused = isinstance(error, _REFUSED) or (isinstance(error, OSError) and error.errno == errno.EROFS)
        if refused or family.startswith("dvc") or any(name in family for name in _SAYS_NO):
            return UsageError(
                f"the DVC remote refuses: {words}",
                where=self.url,
                fix="check the settings' [dvc], the credentials, and whether this account may write there",
            )
        if isinstance(error, OSError) or family.startswith(("botocore.", "asyncssh.", "fsspec.", "aiohttp.")):
            return Unreachable(
                f"the DVC remote does not answer: {words}",
                where=self.url,
                fix="run the same command again when it is back",
            )
        raise error


def _demand_folder(folder: Path) -> None:
    """A share that is not mounted is an empty place: nothing may be written there."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("the DVC remote is no folder", where=str(folder), fix="name a folder in the settings' [dvc]")
    if not folder.exists():
        raise Unreachable(
            "the DVC remote's folder is not there", where=str(folder), fix="mount the share, or make the folder"
        )


def _describe(path: Path, scratch: Path) -> tuple[Output, Mapping[str, Path]]:
    """An output and, by object id, the local file with its bytes."""
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import get_odb

    _, meta, built = build(
        get_odb(_local(), str(scratch / "odb"), hash_name=_MD5), str(path), _local(), _MD5, dry_run=True
    )
    oid = str(built.oid)
    if path.is_file():
        return Output(oid, meta.size, None, (oid,)), {oid: path}
    files = {str(info.value): path.joinpath(*key) for key, (_, info) in built.iteritems()}
    listing = scratch / oid
    listing.write_bytes(built.as_bytes())
    return Output(oid, meta.size, meta.nfiles, (*sorted(files), oid)), files | {oid: listing}


def _local() -> Any:
    from dvc.fs import localfs

    return localfs

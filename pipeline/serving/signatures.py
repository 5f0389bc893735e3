"""Signatures beside the packages on this server's own disk: a restart needs no control plane to believe them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import GatehouseError
from pipeline.serving.store import Store

_log = logging.getLogger("gatehouse.serving")

# Package folder, its digest, its signature; answers the id of the key that made it, or raises IntegrityViolated.
Verify = Callable[[Path, str, Mapping[str, Any] | None], str]


class Signatures:
    """The signatures in `store`, judged by `verify`; without it none is demanded."""

    def __init__(self, store: Store, verify: Verify | None) -> None:
        self._store = store
        self._verify = verify

    def check(self, folder: Path, digest: str) -> str | None:
        """The key that vouches for a package by its kept signature; None where no signature is demanded.

        Raises:
            IntegrityViolated: no trusted key does.
        """
        return self._verify(folder, digest, self._store.signature(digest)) if self._verify else None

    def accept(self, folder: Path, digest: str, signature: Mapping[str, Any] | None) -> str | None:
        """Keep a new signature of a package once it verified; answers the key as `check` does.

        One that does not verify never displaces a kept one that does: signing with a key that this server does not
        trust takes nothing from what was signed before.

        Raises:
            IntegrityViolated: neither verifies.
        """
        kept = self._store.signature(digest)
        if signature is None or signature == kept:
            return self.check(folder, digest)
        try:
            key = self._verify(folder, digest, signature) if self._verify else None
        except GatehouseError as error:
            try:
                key = self.check(folder, digest)
            except GatehouseError:
                raise error from None
            _log.error("a new signature of %s is refused, the one before holds: %s", digest, error.what)
            return key
        self._store.keep_signature(digest, signature)
        return key

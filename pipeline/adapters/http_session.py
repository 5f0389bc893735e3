"""Sessions that talk to the configured server alone."""

from __future__ import annotations

from pathlib import Path

import requests


def own_session(ca_file: Path | None = None) -> requests.Session:
    """A session in which neither a proxy nor a password file of the environment has a say.

    Args:
        ca_file: certificates of a company's own authority, in PEM.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = str(ca_file) if ca_file else True
    return session

"""A stack with the small project's flights, for each file of faces."""

from __future__ import annotations

import pytest

from tests.faces.late import write_flights
from tests.integration.conftest import bare


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a stack with flights")
    write_flights(folder)
    with bare(folder) as stack:
        yield stack

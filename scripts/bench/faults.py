"""Kills stages of the whole line at random outside calls until they are done; says how often, where, and how it ended.

Run from a checkout that is set up: .venv/bin/python scripts/bench/faults.py [--kills 200] [--seed 20261124]
It is the test of tests/faults with another number: every request to MLflow, every insert into the ledger and every
commit is a place to die, before it or after it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run it and exit as it exits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", default="200")
    parser.add_argument("--seed", default="20261124")
    options = parser.parse_args()
    env = {**os.environ, "GATEHOUSE_FAULT_KILLS": options.kills, "GATEHOUSE_FAULT_SEED": options.seed}
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-s", "tests/faults", "-k", "random_kills"]
    code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    print(f"{options.kills} kills, {time.monotonic() - began:.0f} s, {'it holds' if code == 0 else 'IT DOES NOT HOLD'}")
    sys.exit(code)


if __name__ == "__main__":
    main()

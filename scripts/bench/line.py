"""Times of the demo's stages, the share that is the line's own overhead, peak memory, and ``gatehouse --help``.

Run from a checkout that is set up: .venv/bin/python scripts/bench/line.py [--sample 0.1] [--json]
Plays the whole demo in a temporary folder, each stage a process of its own, and reads what it measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HELP_TRIES = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", default="1.0", help="share of the flights")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = {**_demo(options.sample), "help_seconds": _help()}
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, seconds in result["seconds"].items():
        print(f"{name:24}{seconds:8.1f} s")
    print(f"{'whole demo':24}{result['total']:8.1f} s")
    print(f"overhead: {1 - result['heavy'] / result['line']:.1%} of the stages, ", end="")
    print(f"{(result['line'] - result['heavy']) / result['total']:.1%} of the whole demo")
    print(f"largest process: {result['peak_mb']:.0f} MB")
    print(f"gatehouse --help: {result['help_seconds'] * 1000:.0f} ms (best of {HELP_TRIES})")


def _demo(sample: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        gatehouse = [sys.executable, "-m", "pipeline"]
        try:
            subprocess.run([*gatehouse, "demo", "--sample", sample], cwd=folder, check=True, stdout=sys.stderr)
            measured = json.loads((Path(folder) / ".gatehouse" / "demo.json").read_text())
        finally:
            subprocess.run([*gatehouse, "down"], cwd=folder, check=False)
    # Linux counts ru_maxrss in kilobytes; of children it is the largest one, not their sum.
    return {**measured, "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}


def _help() -> float:
    times = []
    for _ in range(HELP_TRIES):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pipeline", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()

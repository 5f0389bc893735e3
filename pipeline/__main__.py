"""``gatehouse`` and ``python -m pipeline``: the one place where errors become exit codes."""

from __future__ import annotations

import sys


def main() -> None:
    """Run one command; exit with its documented code."""
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    sys.exit(_run(arguments, debug=debug))


def _run(arguments: list[str], *, debug: bool) -> int:
    from pipeline.cli import app
    from pipeline.errors import GatehouseError

    try:
        result = app(arguments, standalone_mode=False)
    except GatehouseError as error:
        if debug:
            raise
        _explain(error.family, error.what, error.where, error.fix)
        return error.exit_code
    except KeyboardInterrupt:
        _explain("interrupted", "stopped by hand", "", "run the same command again: it goes on where it was")
        return 130
    except Exception as error:
        # The only broad except: whatever nobody foresaw still ends in one screen and a documented code.
        if debug:
            raise
        return _unexpected(error)
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception) -> int:
    show = getattr(error, "show", None)
    if callable(show):  # the command line parser's own errors know how to print themselves
        show()
        return 2
    words = str(error).strip().splitlines() or [""]
    _explain("unexpected", f"{type(error).__name__}: {words[0]}", "", "run again with --debug for the traceback")
    return 1


def _explain(family: str, what: str, where: str, fix: str) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]{family}:[/] ", end="")
    console.print(what, markup=False)
    for label, text in (("where", where), ("what to do", fix)):
        if text:
            console.print(f"  {label}: {text}", markup=False)


if __name__ == "__main__":
    main()

"""`penstock test`: the project's own cases, with the shipped driver."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.project import load_project
from penstock.testing.cases import run_cases


@click.command()
@click.argument("words", nargs=-1)
@PROJECT
@JSON
def command(words: tuple[str, ...], project_dir: Path, as_json: bool) -> None:
    """Run the functions `test_*` in the project's tests/; with WORDS, those whose name holds one."""
    project = load_project(project_dir)
    results = run_cases(project, words)
    failed = [one for one in results if one.fault]
    result = {
        "passed": len(results) - len(failed), "failed": len(failed),
        "cases": [{"name": one.name, "where": one.where, "fault": one.fault} for one in results],
    }  # fmt: skip

    def say() -> None:
        for one in results:
            out.print(f"{'FAIL' if one.fault else ' ok '} {one.name}")
            if one.fault:
                err.print(f"     {one.where}: {one.fault}")
        out.print(f"{result['passed']} passed, {result['failed']} failed")
        if not results:
            named = ", ".join(f"`{word}`" for word in words)
            err.print(f"no case's name holds {named}: `penstock test` alone runs all of them" if words
                      else "there are no cases: write functions `test_*` into files tests/test_*.py")  # fmt: skip

    show(result, as_json, say)
    if failed or not results:
        sys.exit(1)

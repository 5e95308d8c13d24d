"""The command line: install every service that this machine can run, or start one until Ctrl-C."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
from pathlib import Path

from tools import services
from tools.services.service import Missing, NotStarted, Service, new_folder


def every_service() -> dict[str, Service]:
    """Return the services by name: of each module of this package that holds one as `SERVICE`."""
    found: dict[str, Service] = {}
    for module in pkgutil.iter_modules(services.__path__):
        if not module.name.startswith("_"):
            loaded = importlib.import_module(f"tools.services.{module.name}")
            service: Service | None = getattr(loaded, "SERVICE", None)
            if service is not None:
                found[service.name] = service
    return found


def in_ci() -> bool:
    """Return whether nothing may be missing."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}  # noqa: TID251 - as tests do


def install(names: list[str]) -> int:
    """Install services; in CI it is an error if one can't be, elsewhere it is said and skipped."""
    every = every_service()
    failed = False
    for name in names or sorted(every):
        why = every[name].missing()
        if not why:
            try:
                every[name].install()
            except Missing as error:
                why = str(error)
        if why:
            failed = True
            print(f"{name}: {why}", file=sys.stderr)
    return int(failed and (in_ci() or bool(names)))


def start(service: Service, folder: Path | None, options: dict[str, object]) -> int:
    """Start a service, say where it is, and stop it at Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        running = service.start(folder or new_folder(service.name), **options)
    except (Missing, NotStarted) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        print(running.address, flush=True)
        for server in running.servers:
            print(f"  {server.name}: process {server.pid}, {server.log}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        return 0
    finally:
        if folder is None:
            running.remove()
        else:
            running.stop()


def main() -> int:
    """Run the command line."""
    every = every_service()
    parser = argparse.ArgumentParser(prog="python -m tools.services", description=services.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    installing = commands.add_parser(
        "install", help="have what the services need in .cache/services"
    )
    installing.add_argument("names", nargs="*", choices=[*sorted(every), []], metavar="NAME")
    starting = commands.add_parser("start", help="start one, until Ctrl-C")
    for_one = starting.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, service in sorted(every.items()):
        one = for_one.add_parser(name)
        one.add_argument(
            "--folder", type=Path, help="what it holds; kept. Without it: a new one, removed"
        )
        service.add_options(one)
    asked = vars(parser.parse_args())
    if asked.pop("command") == "install":
        return install(asked["names"])
    return start(every[asked.pop("name")], asked.pop("folder"), asked)


if __name__ == "__main__":
    sys.exit(main())

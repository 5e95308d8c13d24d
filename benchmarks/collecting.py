"""The collector alone, as a process: its routes, connections and log; whoever folds reads the log later.

    python -m benchmarks.collecting PROJECT PORT

The parts are those of `penstock up`, put together by the same functions. What is left out is what
follows the answer: nobody is handed the records that were appended, so nothing is folded or written
to leaves in this process. It is what FastAPI is compared with, for that does no more either.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import uvicorn
import uvloop
from litestar import Litestar

from benchmarks import sampling
from penstock.adapters.accelerator.native import accelerate_intake
from penstock.adapters.clock import SystemClock
from penstock.adapters.metrics.prometheus import PrometheusMetrics
from penstock.cli.up import GC_THRESHOLDS
from penstock.compose import open_stores
from penstock.core.protect import Protector
from penstock.edges.collector.edge import collector_edge
from penstock.edges.collector.keys import write_key
from penstock.edges.collector.routes import collector_handlers
from penstock.edges.fast import FastServer
from penstock.flows.collect import Collector
from penstock.ports.keys import IDENTIFIER_KEY, PSEUDONYM_KEY
from penstock.project import load_project
from penstock.runtimes.appender import GroupAppender


async def serve(folder: Path, port: int) -> None:
    """Collect into a project's log until SIGTERM."""
    project = load_project(folder)
    stores = open_stores(project)
    clock, metrics = SystemClock(), PrometheusMetrics()
    appender = GroupAppender(
        stores.log, clock, metrics, on_appended=lambda _partition, _records: None
    )
    collector = Collector(
        catalog=project.catalog, protector=Protector(stores.keys.get(PSEUDONYM_KEY)),
        identity=project.identity_rules(), consent=project.consent_rules(),
        identifier_key=stores.keys.get(IDENTIFIER_KEY), tenant=project.settings.project.tenant,
        appender=appender, suppressions=stores.suppressions, clock=clock, metrics=metrics,
        accelerate=accelerate_intake() if project.settings.fold.accelerated else None,
    )  # fmt: skip
    server = project.settings.server
    keys = [
        write_key(source.write_key, name, source.kind, source.rank, basis=source.basis,
                  origins=source.origins, identity_keys=source.identity_keys)
        for name, source in project.settings.sources.items() if source.write_key
    ]  # fmt: skip
    edge = collector_edge(
        collector, keys, clock=clock, metrics=metrics, requests_max=server.requests_max,
        requests_per_s_per_key=server.requests_per_s_per_key, public_url=server.public_url,
    )  # fmt: skip
    app = Litestar(route_handlers=collector_handlers(edge), logging_config=None)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        await uvicorn.Server(uvicorn.Config(
            app, host="127.0.0.1", port=port, loop="none", lifespan="off", log_config=None,
            http=FastServer(edge.routes, metrics=metrics), access_log=False,  # type: ignore[arg-type]
        )).serve()  # fmt: skip
    finally:
        await appender.close()
        stores.close()


if __name__ == "__main__":
    sampling.on_signals()
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))

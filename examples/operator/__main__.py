"""A Kubernetes operator in 20 lines: each Site has a ConfigMap with its page, and a folder outside of the cluster.

    kubectl apply -f examples/operator/crd.yaml -f examples/operator/site.yaml
    python -m examples.operator

The order is what matters. The finalizer comes before anything that has to be cleaned up. What is outside goes before
the finalizer does. The status says which generation it is about, and is written only when it changes. All of it may be
done twice, because after a crash it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path

from dispatcher import Attempt, Cluster, Controller, ControllerSettings
from workqueue.sources.kubernetes import Watch, owner

SITE, FINALIZER = "example.com/v1/Site", "example.com/folder"
ROOT = Path(os.environ.get("SITES_ROOT", "sites"))


async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> None:
    """Make the ConfigMap, the folder and the status as the Site wants them, or clean up after it."""
    site = cluster.get(SITE, key)
    if site is None:
        return
    if cluster.is_deleted(site):
        shutil.rmtree(ROOT / key, ignore_errors=True)
        await cluster.remove_finalizer(site, FINALIZER)
        return
    site = await cluster.add_finalizer(site, FINALIZER)
    (ROOT / key).mkdir(parents=True, exist_ok=True)
    part = ROOT / key / "index.html.part"  # whoever reads the page sees the old one or the new one
    part.write_text(site["spec"]["html"])
    part.replace(ROOT / key / "index.html")
    name, page = site["metadata"]["name"], {"index.html": site["spec"]["html"]}
    await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": page}, owner=site)
    await cluster.set_status(site, {"observedGeneration": site["metadata"]["generation"], "ready": True})


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(message)s")
    watches = [Watch(SITE), Watch("v1/ConfigMap", keys=owner("Site", group="example.com"))]
    asyncio.run(Controller(watches, reconcile, settings=ControllerSettings(name="site-operator")).run())

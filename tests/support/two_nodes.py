"""A Ray cluster of two nodes that is reached by its address; one of them is lost while it works."""

import os
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster as Nodes

from minima_core.parallel import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


def job(given):
    """Return the square of a number, late; leave a file that tells the node."""
    folder, number = given
    (Path(folder) / f"{ray.get_runtime_context().get_node_id()}-{number}-{os.getpid()}").touch()
    time.sleep(1)
    return number**2


def main(folder: Path) -> None:
    """Print what comes of twelve numbers, and on how many nodes they were worked at."""
    nodes = Nodes(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    second = nodes.add_node(**NODE)

    def lose() -> None:
        while not list(folder.glob(f"{second.node_id}-*")):
            time.sleep(0.05)
        nodes.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    jobs = [(str(folder), number) for number in range(12)]
    found = Cluster(nodes.address, workers=1).map_jobs(job, jobs, gpus=0, what="squares")
    thread.join(10)
    worked = {path.name.split("-")[0] for path in folder.iterdir()}
    sys.stdout.write(f"{found} {len(worked)} {second.any_processes_alive()}\n")
    nodes.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

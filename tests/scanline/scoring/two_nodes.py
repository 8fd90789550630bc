"""A Ray cluster of two nodes with a core each, in one machine, for as long as its standard input is open.

    python -m tests.scanline.scoring.two_nodes

It prints its address when both nodes are there.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()  # type: ignore[no-untyped-call] # Ray's


if __name__ == "__main__":
    main()

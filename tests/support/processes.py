"""Two processes of one training or prediction, started as torchrun would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def start_two(program: str, *arguments: str, **environment: str) -> list[subprocess.Popen[str]]:
    """Start a program twice, as torchrun would: two ranks that find each other on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, program, *arguments],
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]

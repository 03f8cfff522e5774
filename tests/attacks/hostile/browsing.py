"""A model whose code may use the network looks for the browser that other models are run in."""

import json
import time
import urllib.request


def list_listening():
    """The ports of this machine that somebody listens on."""
    ports = set()
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}") as file:
            for line in file.readlines()[1:]:
                words = line.split()
                if words[3] == "0A":
                    ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


def build():
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for port in list_listening():
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/json/version", timeout=1
                ) as there:
                    version = json.load(there)["Browser"]
            except (OSError, ValueError, KeyError):
                continue
            raise RuntimeError(f"reached {version}")
        time.sleep(0.05)
    raise RuntimeError("reached nothing")

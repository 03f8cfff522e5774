"""The factory of a hostile repository: ``attack.txt`` beside it names what it tries.

It is copied into a workspace and runs there; no test imports it.
"""

import contextlib
import json
import os
import stat
import subprocess
import sys
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.expanduser("~")
SPACE = os.path.dirname(HOME)  # the folder of the step
with open(os.path.join(HERE, "attack.txt")) as chosen:
    ATTACK, *ARGUMENTS = chosen.read().split()
CHANNELS = ("log.txt", "request.json", "response.json", "server.log", "service.log")


def pipes():
    """Descriptors of this process that are pipes to write to, the log aside: the answer's
    channel."""
    log = os.fstat(1).st_ino
    for descriptor in range(3, 256):
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue
        if stat.S_ISFIFO(status.st_mode) and status.st_ino != log:
            yield descriptor


def answer(text):
    """Answer in the step's stead, by a file as by the pipe, and end without another word."""
    with open(os.path.join(HOME, "response.json"), "w") as file:
        file.write(text)
    for descriptor in pipes():
        with contextlib.suppress(OSError):
            os.write(descriptor, text.encode())
    os._exit(0)


def replace_channels(put):
    """Put something else in place of every file that a parent might open."""
    for folder in (SPACE, HOME):
        for name in CHANNELS:
            path = os.path.join(folder, name)
            try:
                if os.path.lexists(path):
                    os.rename(path, path + ".old")
                put(path)
            except OSError as problem:
                print("not replaced:", path, problem.strerror)


def leave_session(code):
    """Start a process that outlives the step; it keeps every descriptor of this one."""
    inherited = [d for d in range(1, 256) if os.path.exists(f"/proc/self/fd/{d}")]
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    script = (
        "import os, sys, time\nos.setsid()\nif os.fork(): os._exit(0)\nend = time.time() + 30\n"
        + code
    )
    subprocess.Popen([sys.executable, "-c", script], close_fds=False).wait()


def build():
    if ATTACK == "logenv":
        replace_channels(lambda path: os.symlink("/proc/1/environ", path))
        raise ValueError("boom")
    if ATTACK == "logfile":
        replace_channels(lambda path: os.symlink(ARGUMENTS[0], path))
        raise ValueError("boom")
    if ATTACK == "logfifo":
        replace_channels(os.mkfifo)
        raise ValueError("boom")
    if ATTACK == "logsparse":
        os.ftruncate(1, 200 * 10**9)
    if ATTACK == "logzero":
        replace_channels(lambda path: os.symlink("/dev/zero", path))
        raise ValueError("boom")
    if ATTACK == "logendless":
        leave_session("while time.time() < end: os.write(1, b'x' * 65536)")
        raise ValueError("boom")
    if ATTACK == "respfifo":
        os.mkfifo(os.path.join(HOME, "response.json"))
        os._exit(0)
    if ATTACK == "respzero":
        os.symlink("/dev/zero", os.path.join(HOME, "response.json"))
        os._exit(0)
    if ATTACK == "respbig":
        with open(os.path.join(HOME, "response.json"), "w") as file:
            file.truncate(int(ARGUMENTS[0]))
        for descriptor in pipes():
            with contextlib.suppress(OSError):
                for _ in range(70):
                    os.write(descriptor, b"1" * 2**20)
        os._exit(0)
    if ATTACK == "respheld":
        leave_session("time.sleep(30)")
        os._exit(0)
    if ATTACK == "respdeep":
        answer('{"result": {"export": ' + "[" * 10000)
    if ATTACK == "respevil":
        markup = "<img src=x onerror=alert(1)> ::error::INJECTED @octocat #1"
        notes = ["| [x](http://evil) | <b>"]
        answer(
            json.dumps(
                {
                    "result": {
                        "export": {"exporter": markup, "model": {}, "attempts": [], "notes": notes}
                    }
                }
            )
        )
    if ATTACK == "respcmd":
        command = "\n::warning file=README.md,line=1::INJECTED BY A WORKER\n::stop-commands::zz\n"
        answer(json.dumps({"result": {"export": {"exporter": "x", "model": {}, command: 1}}}))
    if ATTACK == "errorcmd":
        answer(
            json.dumps(
                {
                    "error": {
                        "type": "E\n::warning::INJECTED\n",
                        "message": "m\n::error::INJECTED\n##[error]INJECTED",
                    }
                }
            )
        )
    if ATTACK == "respmissing":
        answer('{"result": {}}')
    if ATTACK == "resptypes":
        answer('{"result": {"export": {"exporter": 7, "model": [], "attempts": "x"}}}')
    if ATTACK == "outlink":
        os.rmdir(os.path.join(SPACE, "out"))
        os.symlink(ARGUMENTS[0], os.path.join(SPACE, "out"))
        answer(
            json.dumps(
                {"result": {"export": {"exporter": "x", "model": {}, "attempts": [], "notes": []}}}
            )
        )
    if ATTACK == "outfile":
        os.symlink(ARGUMENTS[0], os.path.join(SPACE, "out", "model.onnx.secret"))
    if ATTACK == "outfifo":
        os.mkfifo(os.path.join(SPACE, "out", "model.onnx.fifo"))
    if ATTACK == "outsparse":
        with open(os.path.join(SPACE, "out", "model.onnx.sparse"), "wb") as file:
            file.truncate(200 * 10**9)
    return torch.nn.Sequential(torch.nn.Linear(4, 3))


def sleeper():
    """Holds the second place, so that the thief's first try counts as made beside others and is
    repeated."""
    time.sleep(6)
    return torch.nn.Sequential(torch.nn.Linear(4, 3))


def thief():
    """Has the parent open a file of its own as this worker's log: a process that outlives the try
    puts a link there, and the answer has the step tried again."""
    target = ARGUMENTS[0]
    if os.path.realpath("/proc/self/fd/1") == os.path.realpath(target):
        os.write(1, b"STOLEN")
    time.sleep(1)
    code = f"""
names = {[os.path.join(SPACE, name) for name in CHANNELS]!r}
while time.time() < end:
    for name in names:
        if not os.path.lexists(name):
            try:
                os.symlink({target!r}, name)
            except OSError:
                time.sleep(0.001)
"""
    leave_session(code)
    answer(json.dumps({"error": {"type": "OutOfMemoryError", "message": "x"}, "answer": None}))

"""Factories that leave something in the folder of their step's output, or in their home."""

import functools
import os
import sys

import torch

HOME = os.path.expanduser("~")
OUT = os.path.join(os.path.dirname(HOME), "out")


def at_the_end(leave):
    """Make a factory of a function that is called when the step has done its work and answers: what
    it leaves then nobody removes who is not its parent."""

    @functools.wraps(leave)
    def build():
        channels = sys.modules["mconv.workers.channels"]
        write = channels.write_answer

        def write_answer(*arguments):
            leave()
            write(*arguments)

        channels.write_answer = write_answer
        return torch.nn.Sequential(torch.nn.Linear(4, 3))

    return build


@at_the_end
def setuid():
    """A file that runs as who owns it, and that will be somebody else's."""
    for name in ("setuid", "model.onnx.setuid"):
        with open(os.path.join(OUT, name), "wb") as file:
            file.write(b"#!/bin/sh\nid\n")
        os.chmod(os.path.join(OUT, name), 0o6777)
    os.chmod(OUT, 0o7777)


@at_the_end
def names():
    """Names that are options, commands, more than a line, or no text."""
    for name in (
        "-rf",
        "--help",
        "a\nb",
        "\n::error::INJECTED",
        "\x1b[31mred",
        "..data",
        "SHA256SUMS",
        "mconv.json",
        "e" * 255,
        "con:|?*<script>",
        "\u202egnp.exe",
    ):
        path = os.path.join(os.fsencode(OUT), os.fsencode(name))
        with open(path, "wb") as file:
            file.write(b"x")


@at_the_end
def names_of_no_text():
    with open(os.path.join(os.fsencode(OUT), b"\xff\xfe"), "wb") as file:
        file.write(b"x")


@at_the_end
def names_of_no_text_in_folders():
    os.makedirs(os.path.join(os.fsencode(OUT), b"a", b"\xff\xfe"))


def dig(folder, levels):
    """Make folders below one another, more than a path can name."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@at_the_end
def deep():
    dig(OUT, 3000)


@at_the_end
def deep_home():
    """Nobody looks at what is there, but it has to be removed."""
    dig(HOME, 3000)


@at_the_end
def many():
    for number in range(3_000):
        os.close(os.open(os.path.join(OUT, f"f{number}"), os.O_CREAT | os.O_WRONLY))


@at_the_end
def too_many():
    for number in range(200_000):
        os.close(os.open(os.path.join(OUT, f"f{number}"), os.O_CREAT | os.O_WRONLY))


@at_the_end
def many_in_its_home():
    for number in range(3_000):
        os.close(os.open(os.path.join(HOME, f"f{number}"), os.O_CREAT | os.O_WRONLY))


@at_the_end
def closed():
    """Folders and files that nobody may enter or read."""
    os.mkdir(os.path.join(OUT, "closed"), 0o700)
    os.close(os.open(os.path.join(OUT, "closed", "file"), os.O_CREAT | os.O_WRONLY, 0))
    os.mkdir(os.path.join(OUT, "nothing"), 0)
    os.umask(0o777)
    os.mkdir(os.path.join(HOME, "closed"))


@at_the_end
def linked():
    """Two names of one file."""
    with open(os.path.join(OUT, "one"), "wb") as file:
        file.write(b"x")
    os.link(os.path.join(OUT, "one"), os.path.join(OUT, "two"))
    os.link(os.path.join(OUT, "one"), os.path.join(HOME, "three"))


@at_the_end
def beside():
    """A link to the folder itself, one that leads nowhere, and a socket's name."""
    os.symlink(".", os.path.join(OUT, "itself"))


@at_the_end
def holes():
    """Larger than any disk, of which nothing is there."""
    for number in range(3):
        with open(os.path.join(OUT, f"hole{number}"), "wb") as file:
            file.truncate(2**42)


def gone():
    """Its folders are not there any more."""
    os.chdir("/")
    for folder in (OUT, HOME):
        try:
            os.rmdir(folder)
        except OSError:
            continue
    os._exit(0)


def fill():
    """The disk that others work on, too."""
    with open(os.path.join(HOME, "fill"), "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 2**20)
        except OSError as problem:
            print(problem)
    raise RuntimeError("done")

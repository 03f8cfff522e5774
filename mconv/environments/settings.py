"""The settings of pip, as uv's: uv reads none of pip's configuration by itself.

pip merges its files of configuration and the variables ``PIP_…``; ``pip config list`` prints what
comes of them. Where there is no pip, the variables alone are read.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping

PIP_SECONDS = 60
FALSE = ("0", "false", "no", "off")
FIND_LINKS = "UV_FIND_LINKS"
CONSTRAINT = "UV_CONSTRAINT"
NO_INDEX = "UV_NO_INDEX"  # uv knows it as an option alone
# a setting of pip → the variable of uv; https://docs.astral.sh/uv/reference/environment
VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": CONSTRAINT,
    "trusted-host": "UV_INSECURE_HOST",
    "no-index": NO_INDEX,
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "keyring-provider": "UV_KEYRING_PROVIDER",
}
# settings that say where packages come from: PyTorch, too
PLACES = ("index-url", "extra-index-url", "find-links", "no-index", "constraint")
# of the environment of mconv: uv's own settings, and those of the network
PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
PRECEDENCE = (":env:", "install", "global")  # the first that says something counts


def read_pip_settings() -> dict[str, str]:
    """Return the settings of pip that are in force, by the names of its options."""
    listed = _parse_variables(os.environ)
    pip = _find_pip()
    if pip is not None:
        done = subprocess.run(
            [*pip, "config", "list"],
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
            check=False,
        )
        listed = {**listed, **parse_list(done.stdout.splitlines())}
    settings: dict[str, str] = {}
    for section in PRECEDENCE:
        for (place, name), value in listed.items():
            if place == section:
                settings.setdefault(name, value)
    return settings


def _find_pip() -> list[str] | None:
    """Return the command of pip: that of this Python, else the one on the path."""
    if (path := shutil.which("pip")) is not None:
        own = shutil.which("pip", path=os.path.dirname(sys.executable))
        return [own or path]
    return None


def parse_list(lines: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return what `pip config list` prints, by section and option: ``global.index-url='…'``."""
    settings = {}
    for line in lines:
        match = re.match(r"(:env:|[a-z-]+)\.([a-z-]+)=(.*)", line)
        if match is None:
            continue
        try:
            settings[match[1], match[2]] = str(ast.literal_eval(match[3]))
        except (ValueError, SyntaxError):
            continue
    return settings


def _parse_variables(variables: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return the options of pip among environment variables: ``PIP_INDEX_URL`` is index-url."""
    settings = {}
    for name, value in variables.items():
        if name.startswith("PIP_") and value:
            settings[":env:", name[4:].lower().replace("_", "-")] = value
    return settings


def make_variables(settings: Mapping[str, str]) -> dict[str, str]:
    """Return uv's environment variables for settings of pip, and those that it has already.

    pip takes the best version of all indexes together, so uv is told to, too.
    """
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    for option, variable in VARIABLES.items():
        value = settings.get(option)
        if value and not (variable == NO_INDEX and value.lower() in FALSE):
            joint = "," if variable == FIND_LINKS else " "
            variables[variable] = joint.join(value.split())
    if "UV_INDEX" in variables or "UV_DEFAULT_INDEX" in variables:
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if settings.get("pre", "").lower() in ("1", "true", "yes", "on"):
        variables["UV_PRERELEASE"] = "allow"
    for name, value in os.environ.items():
        if name.startswith("UV_"):
            variables[name] = value
    return variables


def names_places(variables: Mapping[str, str]) -> bool:
    """Return whether somebody has said where packages come from, with these variables of uv."""
    return any(VARIABLES[option] in variables for option in PLACES) or any(
        name in variables for name in ("UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_TORCH_BACKEND")
    )

"""Helpers of the browser runtime: finding and starting a browser, serving a package to it, talking
to its pages, reading where its nodes ran."""

from mconv.runtimes._browser.executables import (
    ARGUMENTS,
    find_browser,
    find_browsers,
    find_ort,
    find_other_browsers,
    has_browser,
    unpack_browser,
)
from mconv.runtimes._browser.server import ORT_URL, serve_folder

__all__ = [
    "ARGUMENTS",
    "ORT_URL",
    "find_browser",
    "find_browsers",
    "find_ort",
    "find_other_browsers",
    "has_browser",
    "serve_folder",
    "unpack_browser",
]

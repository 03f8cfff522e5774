"""Helpers of the browser runtime: finding and starting a browser, serving a package to it, reading
where its nodes ran."""

from mconv.runtimes._browser.find import ARGUMENTS, find, find_all, find_ort, strangers, unpack
from mconv.runtimes._browser.serve import ORT_URL, serve

__all__ = ["ARGUMENTS", "ORT_URL", "find", "find_all", "find_ort", "serve", "strangers", "unpack"]

"""A release's assets: each variant that passed as a deterministic zip, the results, the report and
their checksums.

An asset that is there with the same digest is left alone; another one of its name is deleted first,
since GitHub replaces nothing. An upload that ended in an error may have left a half asset, in
another state than ``uploaded`` (GitHub's "Upload a release asset"): it is deleted before the next
try."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mconv import plain_files
from mconv.errors import PublishError
from mconv.github.api import Api, NotFoundError, UncertainWriteError
from mconv.values import Frozen, Report

ASSET_LIMIT = 2 * 1024**3  # bytes; an asset must be smaller
TRIES = 3
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
SUMS = "SHA256SUMS"
PROVENANCE = "provenance.json"


class Uploaded(Frozen, frozen=True, kw_only=True):
    """What became of the assets: their names, and a sentence for each that is not there."""

    created: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    url: str = ""


def bundle_assets(report: Report, source: Path, out: Path) -> list[Path]:
    """Write the assets of the variants in ``source`` (the OUT of a run) into ``out``; SHA256SUMS is
    the last.

    Raises PublishError where a file is missing or not the one that the report tells of.
    """
    made = []
    origins: dict[str, Any] = {}
    for variant in report.variants:
        if variant.status != "passed" or variant.directory is None:
            continue
        folder = source / variant.directory
        if not folder.resolve().is_relative_to(source.resolve()):
            raise PublishError(f"{variant.id}: its folder {variant.directory!r} is not in {source}")
        for file in variant.files:
            path = (folder / file.path).resolve()
            if (
                not path.is_relative_to(folder.resolve())
                or not path.is_file()
                or _sha256(path) != file.sha256
            ):
                raise PublishError(
                    f"{variant.id}: {file.path} is missing or changed since the run",
                    hint="run `mconv run` again",
                )
        target = out / f"{variant.directory.replace('/', '-')}.zip"
        beside = folder / "mconv.json"
        names = sorted([f.path for f in variant.files] + [beside.name] * beside.is_file())
        with (
            zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
            plain_files.open_folder(folder) as top,
        ):
            for name in names:
                with plain_files.open_file(name, top) as content:
                    _add(archive, content, name)
        made.append(target)
        if beside.is_file():
            origins[variant.id] = json.loads(beside.read_text(encoding="utf-8"))
    for name in ("results.json", "report.html"):
        if (source / name).is_file():
            with (
                plain_files.open_folder(source) as top,
                plain_files.open_file(name, top) as content,
            ):
                (out / name).write_bytes(content.read())
            made.append(out / name)
    (out / PROVENANCE).write_text(
        json.dumps(origins, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    made.append(out / PROVENANCE)
    (out / SUMS).write_text(
        "".join(f"{_sha256(p)}  {p.name}\n" for p in sorted(made)), encoding="utf-8"
    )
    return [*made, out / SUMS]


def _add(archive: zipfile.ZipFile, file: BufferedReader, name: str) -> None:
    about = zipfile.ZipInfo(name, EPOCH)
    about.compress_type = zipfile.ZIP_DEFLATED
    about.external_attr = 0o100644 << 16
    about.create_system = 3  # Unix, on every system
    size = os.fstat(file.fileno()).st_size
    with archive.open(about, "w", force_zip64=size >= 1 << 31) as target:
        shutil.copyfileobj(file, target, 1 << 20)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload_assets(api: Api, tag: str, assets: Sequence[Path]) -> Uploaded:
    """Bring the release of ``tag`` to hold ``assets``, in their order.

    Raises PublishError where there is no such release, or an upload fails for good; what was
    uploaded until then stays, and the next run goes on from there.
    """
    release = _release(api, tag)
    present = {asset["name"]: asset for asset in _assets(api, release)}
    done: dict[str, list[str]] = {"created": [], "replaced": [], "unchanged": [], "refused": []}
    for path in assets:
        size = path.stat().st_size
        if size >= ASSET_LIMIT:
            done["refused"].append(
                f"{path.name} has {size:,} bytes; GitHub takes assets below {ASSET_LIMIT:,}"
            )
            continue
        digest = f"sha256:{_sha256(path)}"
        before = present.get(path.name)
        if before is not None and _same(before, digest):
            done["unchanged"].append(path.name)
            continue
        if before is not None:
            _delete(api, before)
        _put(api, release, path, digest)
        done["replaced" if before is not None else "created"].append(path.name)
    return Uploaded(**{k: tuple(v) for k, v in done.items()}, url=str(release["html_url"]))


def _release(api: Api, tag: str) -> Any:
    try:
        return api.get(f"/repos/{api.repository}/releases/tags/{quote(tag, safe='')}")
    except NotFoundError as problem:
        raise PublishError(
            f"there is no published release of the tag {tag!r}", hint=f"gh release create {tag}"
        ) from problem


def _assets(api: Api, release: Any) -> Iterator[Any]:
    return api.pages(f"/repos/{api.repository}/releases/{release['id']}/assets")


def _same(asset: Any, digest: str) -> bool:
    return asset["state"] == "uploaded" and asset.get("digest") == digest


def _delete(api: Api, asset: Any) -> None:
    api.delete(f"/repos/{api.repository}/releases/assets/{asset['id']}")


def _put(api: Api, release: Any, path: Path, digest: str) -> None:
    """Upload one asset; after an error look what is there, delete a half one, and try again."""
    url = str(release["upload_url"]).partition("{")[0]
    said = ""
    for attempt in range(TRIES):
        try:
            api.upload(url, path)
            return
        except UncertainWriteError as problem:
            said = problem.message
        api.sleep(2.0**attempt)
        half = next((a for a in _assets(api, release) if a["name"] == path.name), None)
        if half is not None and _same(half, digest):
            return
        if half is not None:
            _delete(api, half)
    raise PublishError(
        f"{path.name} could not be uploaded in {TRIES} tries: {said}",
        hint="run the job again: it goes on from there",
    )

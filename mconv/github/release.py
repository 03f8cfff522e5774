"""A release's assets: each variant that passed as a deterministic zip, the results and the report.

Their checksums come last. An asset that is there with the same digest is left alone; another one of
its name stays until the new one is uploaded, since GitHub replaces nothing. An upload that ended in
an error may have left a half asset, in another state than ``uploaded`` (GitHub's "Upload a release
asset"): it is deleted before the next try.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import NotRequired, TypedDict
from urllib.parse import quote

from mconv import plain_files
from mconv.errors import PublishError
from mconv.github.api import Api, NotFoundError, ReadOnlyTokenError, UncertainWriteError
from mconv.values import Frozen, Report, VariantResult, name_asset

ASSET_LIMIT = 2 * 1024**3  # bytes; an asset must be smaller
TRIES = 3
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
SUMS = "SHA256SUMS"
STAGED = ".mconv-new"  # behind the name of an asset that is to take another one's place
UPLOADED = "uploaded"  # the state of a whole asset
PROVENANCE = "provenance.json"


class Release(TypedDict):
    """A release as the API gives it; only what is read here.

    Attributes:
        id: Its number.
        html_url: Its page.
        upload_url: Where assets are uploaded, with a template of the query behind it.
    """

    id: int
    html_url: str
    upload_url: str


class Asset(TypedDict):
    """An asset as the API gives it; only what is read here.

    Attributes:
        id: Its number.
        name: The name of its file.
        state: ``uploaded`` where it is whole.
        digest: ``sha256:`` and the hex digest; missing for old assets.
    """

    id: int
    name: str
    state: str
    digest: NotRequired[str | None]


class Uploaded(Frozen, frozen=True, kw_only=True):
    """What became of the assets.

    Attributes:
        created: Names of assets that were not there.
        replaced: Names of assets that were there with other content.
        unchanged: Names of assets that were there already.
        refused: A sentence for each asset that GitHub does not take.
        url: The release's page.
    """

    created: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    url: str = ""


def bundle_assets(report: Report, source: Path, out: Path) -> list[Path]:
    """Write the assets of the variants in ``source`` (the OUT of a run) into ``out``.

    Returns their paths; SHA256SUMS is the last. Raises PublishError where a file is missing or not
    the one that the report tells of.
    """
    assets = []
    origins: dict[str, object] = {}
    takers: dict[str, str] = {}
    for variant in report.variants:
        if variant.status != "passed" or variant.directory is None:
            continue
        folder = source / variant.directory
        if not folder.resolve().is_relative_to(source.resolve()):
            raise PublishError(f"{variant.id}: its folder {variant.directory!r} is not in {source}")
        _check_files(variant, folder)
        target = out / name_asset(variant.directory)
        before = takers.setdefault(plain_files.fold_name(target.name), variant.id)
        if before != variant.id:
            raise PublishError(
                f"{variant.id} and {before} would both be the asset {target.name}",
                hint="rename a model, or give a variant another name with `as:`",
            )
        names = [file.path for file in variant.files]
        beside = folder / "mconv.json"
        if beside.is_file():
            names.append(beside.name)
            origins[variant.id] = json.loads(beside.read_text(encoding="utf-8"))
        _zip(folder, sorted(names), target)
        assets.append(target)
    for name in ("results.json", "report.html"):
        if (source / name).is_file():
            with (
                plain_files.open_folder(source) as top,
                plain_files.open_file(name, top) as content,
            ):
                (out / name).write_bytes(content.read())
            assets.append(out / name)
    (out / PROVENANCE).write_text(
        json.dumps(origins, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    assets.append(out / PROVENANCE)
    sums = [f"{_sha256(path)}  {path.name}\n" for path in sorted(assets)]
    (out / SUMS).write_text("".join(sums), encoding="utf-8")
    return [*assets, out / SUMS]


def _check_files(variant: VariantResult, folder: Path) -> None:
    """Raise PublishError where a file of the variant is missing, or not that of the report."""
    for file in variant.files:
        path = (folder / file.path).resolve()
        inside = path.is_relative_to(folder.resolve()) and path.is_file()
        if not inside or _sha256(path) != file.sha256:
            raise PublishError(
                f"{variant.id}: {file.path} is missing or changed since the run",
                hint="run `mconv run` again",
            )


def _zip(folder: Path, names: Sequence[str], target: Path) -> None:
    """Write the files of a variant and their provenance into the zip ``target``."""
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
        plain_files.open_folder(folder) as top,
    ):
        for name in names:
            with plain_files.open_file(name, top) as content:
                _add(archive, content, name)


def _add(archive: zipfile.ZipFile, file: BufferedReader, name: str) -> None:
    """Add a file to a zip, with nothing in it that depends on time or machine."""
    member = zipfile.ZipInfo(name, EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o100644 << 16
    member.create_system = 3  # Unix, on every system
    size = os.fstat(file.fileno()).st_size
    with archive.open(member, "w", force_zip64=size >= 1 << 31) as target:
        shutil.copyfileobj(file, target, 1 << 20)


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload_assets(api: Api, tag: str, assets: Sequence[Path]) -> Uploaded:
    """Bring the release of ``tag`` to hold ``assets``, in their order.

    Raises PublishError where there is no such release, or uploads fail for good: it names each of
    them. The others are uploaded, but for the sums, and the next run goes on from there.
    """
    release = _release(api, tag)
    present = {asset["name"]: asset for asset in _assets(api, release)}
    names: dict[str, list[str]] = {"created": [], "replaced": [], "unchanged": [], "refused": []}
    failed: list[str] = []
    for path in assets:
        size = path.stat().st_size
        if size >= ASSET_LIMIT:
            names["refused"].append(
                f"{path.name} has {size:,} bytes; GitHub takes assets below {ASSET_LIMIT:,}"
            )
            continue
        digest = f"sha256:{_sha256(path)}"
        before = present.get(path.name)
        if before is not None and _same(before, digest):
            names["unchanged"].append(path.name)
            continue
        if failed and path.name == SUMS:
            failed.append(f"{SUMS}, which would name what is missing")
            continue
        try:
            _bring(api, release, path, digest, present)
        except ReadOnlyTokenError:
            raise
        except PublishError as problem:
            failed.append(f"{path.name} ({problem.message})")
            continue
        names["replaced" if before is not None else "created"].append(path.name)
    if failed:
        raise PublishError(
            f"{len(failed)} of {len(assets)} assets were not uploaded: {'; '.join(failed)}",
            hint="what was there before is there still; run the job again: it goes on from there",
        )
    return Uploaded(
        created=tuple(names["created"]),
        replaced=tuple(names["replaced"]),
        unchanged=tuple(names["unchanged"]),
        refused=tuple(names["refused"]),
        url=release["html_url"],
    )


def _bring(
    api: Api, release: Release, path: Path, digest: str, present: Mapping[str, Asset]
) -> None:
    """Make the release hold ``path``, in place of an asset of its name, if one is ``present``.

    GitHub replaces nothing: the new one is uploaded under another name, and takes the old one's
    when that is deleted. An upload that fails loses nothing so; one that was not renamed in an
    earlier run is renamed now.
    """
    before, staged = present.get(path.name), present.get(path.name + STAGED)
    if staged is not None and not _same(staged, digest):
        _delete(api, staged)
        staged = None
    if staged is None and (before is None or before["state"] != UPLOADED):
        if before is not None:  # half of one, which nobody can use
            _delete(api, before)
        _put(api, release, path, digest, path.name)
        return
    if staged is None:
        staged = _put(api, release, path, digest, path.name + STAGED)
    if before is not None:
        _delete(api, before)
    asset = f"/repos/{api.repository}/releases/assets/{staged['id']}"
    api.write("PATCH", asset, {"name": path.name}, again=True)


def _release(api: Api, tag: str) -> Release:
    """Return the release of a tag. Raises PublishError where there is none."""
    try:
        release: Release = api.get(f"/repos/{api.repository}/releases/tags/{quote(tag, safe='')}")
    except NotFoundError as problem:
        raise PublishError(
            f"there is no published release of the tag {tag!r}", hint=f"gh release create {tag}"
        ) from problem
    return release


def _assets(api: Api, release: Release) -> Iterator[Asset]:
    """Yield the assets that the release has."""
    return api.pages(f"/repos/{api.repository}/releases/{release['id']}/assets")


def _same(asset: Asset, digest: str) -> bool:
    """Return whether the asset is there, whole, with the same digest."""
    return asset["state"] == UPLOADED and asset.get("digest") == digest


def _delete(api: Api, asset: Asset) -> None:
    """Delete an asset."""
    api.delete(f"/repos/{api.repository}/releases/assets/{asset['id']}")


def _put(api: Api, release: Release, path: Path, digest: str, name: str) -> Asset:
    """Upload one asset and return it; after an error look what is there, delete a half one, and
    try again where the error may pass.
    """
    url = str(release["upload_url"]).partition("{")[0]
    reason = ""
    for attempt in range(TRIES):
        refusal: PublishError | None = None
        try:
            uploaded: Asset = api.upload(url, path, name)
            return uploaded
        except UncertainWriteError as problem:
            reason = problem.message
            api.sleep(2.0**attempt)
        except ReadOnlyTokenError:
            raise
        except PublishError as problem:
            refusal = problem
        present = next((a for a in _assets(api, release) if a["name"] == name), None)
        if present is not None and _same(present, digest):
            return present
        if present is not None and present["state"] != UPLOADED:
            _delete(api, present)
        if refusal is not None:
            raise refusal
    raise PublishError(
        f"it could not be uploaded in {TRIES} tries: {reason}",
        hint="run the job again: it goes on from there",
    )

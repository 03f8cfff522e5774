"""Release assets against the API server: what is uploaded, left alone, replaced, refused, and tried
again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import msgspec
import pytest

from mconv.__main__ import main
from mconv.errors import PublishError
from mconv.github import release
from mconv.github.api import Api
from mconv.values import FileRecord, Report, to_json
from tests.action.server import GitHub, serve
from tests.unit.github.test_artifacts import zipped
from tests.unit.reports.factory import report, variant


def api(state: GitHub) -> Api:
    return Api(state.url, "t0ken", "octo/models", sleep=lambda _: None)


def folder(out: Path, text: str = "weights") -> Report:
    """An OUT of two variants, the second of which failed."""
    made = []
    for name, status in (("good", "passed"), ("bad", "failed")):
        content = f"{name} {text}".encode()
        path = out / f"{name}/onnx-int8/model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        (path.parent / "mconv.json").write_text(json.dumps({"id": f"{name}/onnx/int8"}))
        record = FileRecord(
            path="model.onnx", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        made.append(variant(name, status, files=(record,)))
    found = msgspec.structs.replace(report(), variants=tuple(made))
    (out / "results.json").write_text(to_json(found))
    (out / "report.html").write_text("<!doctype html>")
    return found


def bundle(tmp_path: Path, text: str = "weights", name: str = "assets") -> list[Path]:
    found = folder(tmp_path / "out", text)
    target = tmp_path / name
    target.mkdir()
    return release.bundle_assets(found, tmp_path / "out", target)


def test_what_passed_is_bundled_the_same_way_every_time(tmp_path: Path) -> None:
    first = bundle(tmp_path, name="a")
    for path in (tmp_path / "out").rglob("*"):
        path.touch()
    second = bundle(tmp_path, name="b")
    assert [p.name for p in first] == [
        "good-onnx-int8.zip",
        "results.json",
        "report.html",
        "provenance.json",
        "SHA256SUMS",
    ]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with zipfile.ZipFile(first[0]) as archive:
        assert sorted(archive.namelist()) == ["mconv.json", "model.onnx"]
        assert archive.read("model.onnx") == b"good weights"
    for line in first[-1].read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest() == digest
    assert json.loads(first[3].read_text()) == {"good/onnx/int8": {"id": "good/onnx/int8"}}


def test_two_variants_of_one_asset_are_refused(tmp_path: Path) -> None:
    """Several shards' results, or those of an older mconv, were held to nothing."""
    found = folder(tmp_path / "out")
    good = found.variants[0]
    assert good.directory is not None
    other = tmp_path / "out" / "GOOD-onnx/int8"
    other.mkdir(parents=True)
    (other / "model.onnx").write_bytes(
        (tmp_path / "out" / good.directory / "model.onnx").read_bytes()
    )
    twin = msgspec.structs.replace(good, id="GOOD-onnx//int8", directory="GOOD-onnx/int8")
    found = msgspec.structs.replace(found, variants=(good, twin))
    (tmp_path / "assets").mkdir()
    with pytest.raises(PublishError, match="GOOD-onnx//int8 and good/onnx/int8 would both be"):
        release.bundle_assets(found, tmp_path / "out", tmp_path / "assets")


def test_a_file_changed_since_the_run_is_not_released(tmp_path: Path) -> None:
    found = folder(tmp_path)
    (tmp_path / "good/onnx-int8/model.onnx").write_bytes(b"other")
    (tmp_path / "assets").mkdir()
    with pytest.raises(PublishError, match=r"good/onnx/int8: model\.onnx is missing or changed"):
        release.bundle_assets(found, tmp_path, tmp_path / "assets")
    outside = msgspec.structs.replace(found.variants[0], directory="../elsewhere")
    with pytest.raises(PublishError, match="is not in"):
        release.bundle_assets(
            msgspec.structs.replace(found, variants=(outside,)), tmp_path, tmp_path / "assets"
        )


def test_created_then_unchanged_then_only_what_changed_is_replaced(tmp_path: Path) -> None:
    with serve(GitHub(releases={"v1": 9}, page=3)) as state:
        assets = bundle(tmp_path)
        assert len(release.upload_assets(api(state), "v1", assets).created) == 5
        state.add_asset("of somebody else.txt", b"kept")
        again = release.upload_assets(api(state), "v1", assets)
        assert (len(again.unchanged), again.created, again.replaced) == (5, (), ())
        changed = release.upload_assets(api(state), "v1", bundle(tmp_path, "other weights", "b"))
        assert set(changed.replaced) == {"good-onnx-int8.zip", "results.json", "SHA256SUMS"}
        assert len(state.assets) == 6
        digests = {a["name"]: a["digest"] for a in state.assets}
        content = (tmp_path / "b/good-onnx-int8.zip").read_bytes()
        assert digests["good-onnx-int8.zip"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("effect", [False, True])
def test_a_failed_upload_leaves_no_half_asset_and_is_tried_again(
    effect: bool, tmp_path: Path
) -> None:
    with serve(GitHub(releases={"v1": 9}, faults=[("POST", 502, {}, effect)] * 2)) as state:
        release.upload_assets(api(state), "v1", bundle(tmp_path))
        assert sorted(a["name"] for a in state.assets) == sorted(
            p.name for p in (tmp_path / "assets").iterdir()
        )
        assert {a["state"] for a in state.assets} == {"uploaded"}


def test_uploads_that_never_work_end_without_a_half_asset(tmp_path: Path) -> None:
    with serve(GitHub(releases={"v1": 9}, faults=[("POST", 502, {}, False)] * 9)) as state:
        with pytest.raises(PublishError, match=r"zip \(it could not be uploaded in 3 tries"):
            release.upload_assets(api(state), "v1", bundle(tmp_path)[:3])
        assert state.assets == []


def hold(state: GitHub) -> dict[str, str]:
    return {asset["name"]: asset["state"] for asset in state.assets}


@pytest.mark.parametrize("status", [422, 502])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
def test_an_asset_stays_until_the_new_one_is_there(
    method: str, status: int, tmp_path: Path
) -> None:
    """An upload that was refused after the old one was deleted lost it."""
    with serve(GitHub(releases={"v1": 9})) as state:
        release.upload_assets(api(state), "v1", bundle(tmp_path))
        old = {asset["name"]: asset["digest"] for asset in state.assets}
        changed = bundle(tmp_path, "other weights", "b")
        state.faults = [(method, status, {}, False)] * (5 if status == 502 else 1)
        with pytest.raises(PublishError, match=r"2 of 5 assets were not uploaded: good-onnx-int8"):
            release.upload_assets(api(state), "v1", changed)
        now = {asset["name"]: asset["digest"] for asset in state.assets}
        assert set(hold(state).values()) == {"uploaded"}
        name = "good-onnx-int8.zip"
        kept = now.get(name) == old[name] or f"{name}{release.STAGED}" in now
        assert kept, now
        assert now["SHA256SUMS"] == old["SHA256SUMS"]
        # the next run goes on from there
        state.faults = []
        release.upload_assets(api(state), "v1", changed)
        assert hold(state).keys() == old.keys()
        content = (tmp_path / "b" / name).read_bytes()
        digests = {asset["name"]: asset["digest"] for asset in state.assets}
        assert digests[name] == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_each_asset_that_was_not_uploaded_is_named_and_the_others_are_there(
    tmp_path: Path,
) -> None:
    faults = [("POST", 422, {}, False)] * 2
    with serve(GitHub(releases={"v1": 9}, faults=faults)) as state:
        with pytest.raises(PublishError, match="3 of 5 assets") as caught:
            release.upload_assets(api(state), "v1", bundle(tmp_path))
        for name in ("good-onnx-int8.zip", "results.json", "SHA256SUMS"):
            assert name in caught.value.message
        assert set(hold(state)) == {"report.html", "provenance.json"}


def test_a_half_asset_of_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    with serve(GitHub(releases={"v1": 9})) as state:
        state.add_asset("results.json", b"ha", state="open")
        found = release.upload_assets(api(state), "v1", bundle(tmp_path))
        assert found.replaced == ("results.json",)
        assert {a["state"] for a in state.assets} == {"uploaded"}


def test_assets_too_large_are_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "ASSET_LIMIT", 200)
    with serve(GitHub(releases={"v1": 9})) as state:
        found = release.upload_assets(api(state), "v1", bundle(tmp_path))
        assert any(text.startswith("good-onnx-int8.zip has ") for text in found.refused)
        assert "good-onnx-int8.zip" not in {a["name"] for a in state.assets}


def test_a_release_that_is_not_there_is_said(tmp_path: Path) -> None:
    with (
        serve(GitHub()) as state,
        pytest.raises(PublishError, match="no published release of the tag 'v9'"),
    ):
        release.upload_assets(api(state), "v9", bundle(tmp_path))


def test_publish_uploads_on_a_release_event_and_says_what_it_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path / "out")
    (tmp_path / "event.json").write_text(
        json.dumps({"action": "published", "release": {"tag_name": "v1"}})
    )
    monkeypatch.setattr("mconv.github.api.WRITE_PAUSE", 0.0)
    with serve(GitHub(releases={"v1": 9})) as state:
        for name, value in {
            "GITHUB_EVENT_NAME": "release",
            "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "GITHUB_REPOSITORY": "octo/models",
            "GITHUB_API_URL": state.url,
            "GITHUB_TOKEN": "t0ken",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        }.items():
            monkeypatch.setenv(name, value)
        argv = ["publish", str(tmp_path / "out/results.json"), "--comment", "--release"]
        assert main(argv) == 0
        assert "5 created" in capsys.readouterr().err
        assert state.comments == []
        assert len(state.assets) == 5
        state.assets.clear()
        state.faults = [("POST", 422, {}, False)]
        assert main(argv) != 0
        said = capsys.readouterr().err
        assert "the release v1 is not complete: 2 of 5 assets were not uploaded: good-onnx" in said
        assert "good-onnx-int8.zip" in (tmp_path / "summary").read_text()
        state.read_only = True
        state.assets.clear()
        assert main([*argv, "v1"]) != 0  # it was asked for
        assert main(argv) == 0
        assert (
            "not all assets were uploaded: the token may not write"
            in (tmp_path / "summary").read_text()
        )


def test_the_baseline_command_keeps_only_what_fits_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = folder(tmp_path)
    (tmp_path / "event.json").write_text(
        json.dumps({"pull_request": {"number": 7, "base": {"ref": "main"}}})
    )
    out = tmp_path / "base/baseline.json"
    with serve(GitHub()) as state:
        for name, value in {
            "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "GITHUB_REPOSITORY": "octo/models",
            "GITHUB_API_URL": state.url,
            "GITHUB_TOKEN": "t0ken",
        }.items():
            monkeypatch.setenv(name, value)
        assert main(["baseline", "-o", str(out)]) == 1
        assert "no artifact 'mconv-results' of a run on main" in capsys.readouterr().err
        state.add_artifact("mconv-results", zipped("results.json", to_json(found).encode()))
        assert main(["baseline", "-o", str(out)]) == 0
        assert json.loads(out.read_text())["summary"]["conclusion"] == "success"
        state.add_artifact("mconv-results", zipped("results.json", b'{"schema": 99}'))
        assert main(["baseline", "-o", str(out)]) == 2
        assert not out.exists()
        # what a checkout may have there
        out.mkdir()
        assert main(["baseline", "-o", str(out)]) == 2
        assert "cannot be written" in capsys.readouterr().err
        assert main(["baseline", "-o", str(tmp_path / "event.json/x")]) == 2

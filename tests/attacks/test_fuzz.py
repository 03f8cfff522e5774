"""Whatever a worker does costs its own variant: programs of hostile actions, made by hypothesis,
twenty models of them in one run beside two honest ones."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mconv.answers import ExportAnswer, VerifyAnswer
from mconv.values import ExportInfo, ModelInfo, Placement, Report, from_json, to_json
from mconv.workers.messages import Problem, Response
from tests.attacks import harness
from tests.attacks.harness import Hostile
from tests.models import write_linear

COUNT = 20
STATUSES = ("passed", "failed", "error", "unverified")
VICTIMS = """
  - {name: victim, source: linear.onnx, targets: [onnx]}
  - {name: bystander, source: other.onnx, targets: ["onnx:int8"]}
"""
Program = list[list[object]]

COMMAND = "\n::error file=a,line=1::INJECTED\n##[error]INJECTED\n::stop-commands::x\n"
WORDS = st.one_of(
    st.sampled_from(
        [COMMAND, "\x1b[2J\x1b]0;title\x07", "\u202e\u2028", "<img src=x>", "a" * 5000, "\0", ""]
    ),
    st.text(max_size=30),
)
PLACEMENT = Placement(provider="CPUExecutionProvider", device="cpu", nodes=1)
GOOD = [
    to_json(Response(answer=ExportAnswer(export=ExportInfo(exporter="x", model=ModelInfo())))),
    to_json(
        Response(
            answer=VerifyAnswer(
                runtime="onnxruntime",
                placement=PLACEMENT,
                samples=1,
                reference="source",
                outputs=(),
            )
        )
    ),
    to_json(Response(error=Problem(type="OutOfMemoryError", message=COMMAND.strip()))),
]
NUMBERS = st.sampled_from(["NaN", "Infinity", "-0", "1e999", "9" * 400, "1.0e-400", "true", "null"])
JSON = st.recursive(
    st.one_of(NUMBERS, WORDS.map(json.dumps)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda each: f"[{','.join(each)}]"),
        # a name may come twice
        st.lists(
            st.tuples(
                st.one_of(
                    st.sampled_from(
                        ["answer", "error", "kind", "export", "model", "notes", "type"]
                    ),
                    WORDS,
                ),
                inner,
            ),
            max_size=5,
        ).map(lambda pairs: "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in pairs) + "}"),
    ),
    max_leaves=12,
)


@st.composite
def bend(draw: Callable) -> str:
    """An answer that is nearly good: a piece of it is another's."""
    text = draw(st.sampled_from(GOOD))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 20)))
    return text[:start] + draw(st.one_of(JSON, WORDS)) + text[end:]


ANSWERS = st.one_of(
    st.sampled_from([*GOOD, *(text[:-3] for text in GOOD), *(text * 2 for text in GOOD)]),
    st.sampled_from(["", "{}", "[" * 50_000, '{"answer":' * 5000, "null", "\x00\x01", "\ufeff{}"]),
    JSON,
    bend(),
)
# a part of what names can be; surrogates are bytes that are no text
NAMES = st.one_of(
    st.sampled_from(
        [
            *("model.onnx", "model.onnx.data", "x", "a\nb", "-rf", "SHA256SUMS", "mconv.json"),
            *("\udcff\udcfe", "e" * 255, "folder/x", "a/b/c/d/x", "home:x", "space:x"),
            *("space:log.txt", "space:home", "space:out", "repository:linear.onnx", ".git", "..."),
            *("repository:models.yml", "home:.bashrc", "\x1b[31m", "::error::INJECTED"),
        ]
    ),
    st.text(
        st.characters(exclude_characters="/\0:", exclude_categories=["Cs"]), min_size=1, max_size=8
    ),
)
SECONDS = st.sampled_from([0, 0.2, 1, 6])
SIGNALS = st.sampled_from([1, 2, 3, 6, 9, 10, 11, 13, 14, 15, 17, 18, 19, 20, 23, 34, 64])
MODES = st.sampled_from([0, 0o200, 0o400, 0o644, 0o777, 0o4755, 0o7777])
SIZES = st.sampled_from([0, 1, 1000, 2**20, 2**33, 2**42])
COMMANDS = st.sampled_from(
    [
        ["true"],
        ["false"],
        ["sleep", "6"],
        ["sh", "-c", "echo '::error::INJECTED'; kill -9 $$"],
        ["sh", "-c", "while :; do echo y; done | head -c 30000000"],
        ["sh", "-c", "(setsid sleep 30 &) ; exec >&- 2>&-"],
        ["nonexistent"],
    ]
)
LIMITS = st.sampled_from(
    [
        *(("RLIMIT_FSIZE", 0), ("RLIMIT_FSIZE", 100), ("RLIMIT_NOFILE", 4), ("RLIMIT_CPU", 1)),
        *(("RLIMIT_AS", 2**26), ("RLIMIT_NPROC", 0), ("RLIMIT_STACK", 2**16)),
    ]
)


def act(name: str, *arguments: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(st.just(name), *arguments).map(list)


ACTION = st.one_of(
    act("answer", ANSWERS),
    act("answer", ANSWERS),
    act("answer_long", st.sampled_from(["1", "[", '{"answer":', " "]), st.sampled_from([1, 9_000])),
    act("answer_slowly", ANSWERS, SECONDS),
    act("close_pipes"),
    act("close_all"),
    act("block_pipes"),
    act("log", WORDS, st.sampled_from([1, 50, 20_000])),
    act("fork", st.sampled_from([1, 20]), SECONDS),
    act("orphan", SECONDS, st.booleans()),
    act("orphan_that_answers", ANSWERS, SECONDS),
    act("fork_on", SECONDS),
    act("execute", COMMANDS),
    act("start", COMMANDS),
    act(
        "send_signal",
        SIGNALS,
        st.sampled_from(["self", "parent", "group", "all", "others", "first"]),
    ),
    act("handle_signals", st.booleans()),
    act("leave", st.sampled_from([0, 1, 70, 137, 255])),
    act(
        "leave_by",
        st.one_of(
            st.sampled_from(["SystemExit", "KeyboardInterrupt", "MemoryError", "OSError", "A\nB"]),
            st.text(max_size=5),
        ),
        WORDS,
    ),
    act("write", NAMES, SIZES, MODES),
    act("write", NAMES, SIZES, MODES),
    act("make", st.sampled_from(["fifo", "folder", "closed", "device", "socket"]), NAMES),
    act(
        "link",
        st.sampled_from(["/proc/1/environ", "/dev/zero", ".", "nowhere", "/"]),
        NAMES,
        st.booleans(),
    ),
    act("dig", st.sampled_from(["home:", "space:out"]), st.sampled_from([3, 70, 1200])),
    act("fill", NAMES, st.sampled_from([50, 3000])),
    act("move", NAMES, NAMES),
    act("remove", NAMES),
    act("close_off", NAMES, MODES),
    act("take_memory", st.sampled_from([10, 3000])),
    act("sleep", SECONDS),
    act("spin", st.sampled_from([1, 8]), SECONDS),
    LIMITS.map(lambda pair: ["limit", *pair]),
    act("forget"),
    act("alarm", SECONDS),
    act("later"),
    act("later"),
    act("later"),
)


def make_programs(number: int, count: int = COUNT) -> list[Program]:
    """The programs of a seed, the same each time."""
    programs: list[Program] = []

    @seed(number)
    @settings(
        max_examples=10 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(ACTION, min_size=1, max_size=6))
    def collect(program: Program) -> None:
        if program not in programs:
            programs.append(program)

    collect()
    # far from one another, since one is often made of the last by a small change
    return programs[:: len(programs) // count][:count]


def run_programs(programs: list[Program], mode: str) -> None:
    """Run the models of all programs, and hold mconv to what it promises."""
    names = [f"hostile{number:02}" for number in range(len(programs))]
    options = "resources: {timeout: 3s, memory: 1500MB}"
    models = [Hostile(name, f"fuzzed:{name}", options) for name in names]
    with harness.repository(models, VICTIMS) as place:
        write_linear(place / "other.onnx", seed=1)
        (place / "programs.json").write_text(json.dumps(programs))
        lines = ["from fuzzing import perform\n"]
        lines += [f"def {name}(): return perform({i})\n" for i, name in enumerate(names)]
        (place / "fuzzed.py").write_text("".join(lines))
        begin = time.monotonic()
        run = harness.run(place, mode, timeout=30 * len(programs))
        told = dict(zip(names, programs, strict=True))
        assert run.code in (0, 1), f"{run.printed}\n{json.dumps(told)}"
        assert time.monotonic() - begin < 15 * len(programs)
        variants = run.variants()
        for name in ("victim", "bystander"):
            assert variants[name]["status"] == "passed", f"{run.printed}\n{json.dumps(told)}"
        assert set(variants) == {*names, "victim", "bystander"}
        from_json((run.out / "results.json").read_bytes(), Report)
        for name in names:
            assert variants[name]["status"] in STATUSES
        assert "Traceback" not in run.printed
        commands = run.commands()
        assert all(line.startswith("::error ") for line in commands), commands
        assert not [line for line in commands if "INJECTED" in line.partition("::")[0]]
        assert run.leaked() == []
        for folder in ("store", "out"):
            assert not [path for path in (place / folder).rglob("*") if path.is_symlink()]
        assert (place / "models.yml").read_text().startswith("version: 1")
        shutil.rmtree(place / "out")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", harness.MODES)
def test_no_behaviour_of_a_worker_is_anybody_elses_loss(mode: str) -> None:
    harness.require(mode)
    run_programs(make_programs(harness.MODES.index(mode)), mode)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(2, 12))
@pytest.mark.parametrize("mode", harness.MODES)
def test_two_hundred_behaviours_each(mode: str, number: int) -> None:
    harness.require(mode)
    run_programs(make_programs(100 * harness.MODES.index(mode) + number), mode)

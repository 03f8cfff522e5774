"""Functions and classes of a repository that build a model's module, found by syntax.

Nothing is imported or run. What a class gives to ``self`` is held against the names of weights, so
the code that a file of weights belongs to can be told from other code in most repositories.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from pathlib import Path

from mconv.values import Frozen

SKIPPED = {"node_modules", "__pycache__", "site-packages", "build", "dist"}
MOST_FILES = 2000
LARGEST = 1_000_000  # bytes of a module
BASES = {
    "pytorch": (
        "torch.nn.Module",
        "torch.nn.Sequential",
        "torch.nn.modules.module.Module",
        "lightning.LightningModule",
        "lightning.pytorch.LightningModule",
        "pytorch_lightning.LightningModule",
        "transformers.PreTrainedModel",
    ),
    "jax": ("flax.linen.Module", "flax.nnx.Module"),
}
# calls of other packages that return a module
BUILDERS = {
    "pytorch": (
        "torch.nn.",
        "torch.hub.load",
        "torchvision.models.",
        "timm.create_model",
        "timm.models.",
        "transformers.Auto",
        "segmentation_models_pytorch.",
    ),
    "jax": (),
}
# methods of a module that return it again
RETURNING_SELF = {"eval", "to", "cpu", "cuda", "float", "half", "double", "train", "requires_grad_"}
USUAL = re.compile(r"(build|create|make|get|load)(_|$)")  # how functions that build are named
PLAIN = {"object", *(name for names in BASES.values() for name in names if name.endswith("Module"))}
FORWARD = ("forward", "__call__")
BY_NAME = {"register_buffer", "register_parameter", "add_module", "register_module"}


class Candidate(Frozen, frozen=True, kw_only=True):
    """Code that builds a module.

    Attributes:
        folder: Where its module is imported from, from the repository's folder; empty is that
            itself.
        module: The full name of its module.
        name: The function's or the class's name.
        kind: The source that takes what it builds: ``pytorch`` or ``jax``.
        place: Its file and line.
        builds: The full name of the class of what it builds, where that is in the repository,
            else what it calls for it.
        is_class: It is the class itself.
        is_beside: The class is of the same module.
        attributes: What the built class gives to ``self``; None where that cannot be told.
        inputs: The arguments that its ``forward`` needs.
        required: The arguments that it cannot be called without.
        imports: The top-level names of what is not in the repository and is imported for it.
    """

    folder: str
    module: str
    name: str
    kind: str
    place: str
    builds: str = ""
    is_class: bool = False
    is_beside: bool = False
    attributes: frozenset[str] | None = None
    inputs: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()

    @property
    def factory(self) -> str:
        """The text of ``factory:`` in models.yml."""
        return f"{self.module}:{self.name}"


Key = tuple[str, str]


class _Class(Frozen, frozen=True, kw_only=True):
    """A class that is a module.

    Attributes:
        kind: Its framework.
        attributes: What it gives to ``self``; None where that cannot be told.
        inputs: The arguments that its ``forward`` needs.
        required: The arguments that it is made with.
    """

    kind: str
    attributes: frozenset[str] | None
    inputs: tuple[str, ...]
    required: tuple[str, ...]


class _File:
    """A Python file of the repository.

    Attributes:
        path: From the repository's folder.
        folder: Where it is imported from, from the repository's folder.
        module: Its full name there.
        tree: Its syntax.
        is_script: It lies in no package, in a folder that has a name of Python's.
        names: What each name that it imports stands for, in full.
    """

    def __init__(self, path: Path, folder: str, module: str, tree: ast.Module) -> None:
        self.path = path
        self.folder = folder
        self.module = module
        self.tree = tree
        folders = folder.split("/")
        self.is_script = "." not in module and "src" not in folders
        self.is_script = self.is_script and all(each.isidentifier() for each in folders)
        self.names = dict(_list_names(tree, module, is_package=path.name == "__init__.py"))

    def resolve(self, node: ast.expr) -> str:
        """Return the full name of ``a.b.c``, or an empty text for another expression."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        first = self.names.get(node.id, f"{self.module}.{node.id}")
        return ".".join([first, *reversed(parts)])


def find_factories(root: Path) -> tuple[Candidate, ...]:
    """Return the code under ``root`` that builds a module, in the order of files."""
    code = _Code(list(_read_files(root)))
    candidates: list[Candidate] = []
    for file in code.files:
        for node in file.tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                candidates += code.describe(file, node)
    return tuple(candidates)


def rank_factories(
    candidates: Sequence[Candidate], kind: str, weights: str, names: Sequence[str]
) -> tuple[Candidate, ...]:
    """Return the candidates that may build the module of a file of weights, the likeliest first.

    ``names`` are those of its tensors. Left out are candidates of another framework, those that
    need arguments, and those whose class gives other names to ``self``.
    """
    tops = {name.split(".")[0] for name in names}
    words = set(_split_words(Path(weights).with_suffix("").as_posix()))
    rated = []
    for order, each in enumerate(candidates):
        known = each.attributes is not None and bool(tops)
        fits = known and tops <= (each.attributes or frozenset())
        if each.kind != kind or each.required or (known and not fits):
            continue
        alike = words & set(_split_words(f"{each.module} {each.name} {each.builds}"))
        tested = any(word in ("test", "tests") for word in _split_words(each.place))
        usual = bool(USUAL.match(each.name))
        rating = (
            not fits,
            tested,
            -len(alike),
            not each.is_beside,
            not usual,
            each.is_class,
            order,
        )
        rated.append((rating, each))
    return tuple(each for _, each in sorted(rated, key=lambda pair: pair[0]))


def list_needy(
    candidates: Sequence[Candidate], kind: str, names: Sequence[str]
) -> tuple[Candidate, ...]:
    """Return the candidates that build the module of weights, but cannot be called without
    arguments.
    """
    fitting = [each for each in candidates if each.kind == kind and fits_weights(each, names)]
    return tuple(each for each in fitting if each.required)


def fits_weights(candidate: Candidate, names: Sequence[str]) -> bool:
    """Return whether the class that is built is known to have all of the weights' names."""
    tops = {name.split(".")[0] for name in names}
    return bool(tops) and candidate.attributes is not None and tops <= candidate.attributes


def _split_words(text: str) -> list[str]:
    """Return the words of names: of ``weights/TinyNet_v2`` weights, tiny, net and v2."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", apart) if word]


def _read_files(root: Path) -> Iterator[_File]:
    """Yield the Python files under ``root`` that can be parsed, with their names as modules."""
    trees = dict(_parse_files(root))
    scripts = {path.parent for path, tree in trees.items() if _names_neighbour(path, tree)}
    for path, tree in trees.items():
        folder, module = _name_module(path, root, scripts)
        if module:
            yield _File(path.relative_to(root), folder, module, tree)


def _parse_files(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the Python files under ``root`` with their syntax, without those of environments."""
    count = 0
    for place, folders, names in os.walk(root):
        here = Path(place)
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED)
        for name in sorted(names):
            path = here / name
            if path.suffix != ".py" or not path.is_file() or path.stat().st_size > LARGEST:
                continue
            count += 1
            if count > MOST_FILES:
                return
            try:
                yield path, ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
                continue


def _names_neighbour(path: Path, tree: ast.Module) -> bool:
    """Return whether a file imports one beside it by its name alone, as scripts do."""
    beside = {each.stem for each in path.parent.glob("*.py")} - {"__init__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            if beside & {alias.name.split(".")[0] for alias in node.names}:
                return True
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module in beside:
            return True
    return False


def _name_module(path: Path, root: Path, scripts: Set[Path]) -> tuple[str, str]:
    """Return where a file's module is imported from, and its full name there.

    A package is imported from beside its topmost folder. A file in no package is imported from
    the repository's folder, unless that cannot be, or its folder is one of ``scripts``.
    """
    top = path.parent
    while top != root and (top / "__init__.py").is_file():
        top = top.parent
    if top == path.parent:  # in no package
        folders = top.relative_to(root).parts
        valid = all(part.isidentifier() for part in folders)
        top = root if valid and "src" not in folders and top not in scripts else top
    parts = list(path.relative_to(top).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    folder = top.relative_to(root).as_posix()
    valid = bool(parts) and all(part.isidentifier() for part in parts)
    return "" if folder == "." else folder, ".".join(parts) if valid else ""


def _list_names(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[tuple[str, str]]:
    """Yield each name that a module imports, anywhere in it, with what it stands for in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                yield alias.asname or name, name
        elif isinstance(node, ast.ImportFrom):
            package = module if is_package else module.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = [*(above if node.level else []), *([node.module] if node.module else [])]
            for alias in node.names:
                yield alias.asname or alias.name, ".".join([*filter(None, base), alias.name])


class _Code:
    """The Python of a repository, with what in it is a module or builds one.

    Keys are a folder that is imported from and a full name there: two folders may have modules of
    one name.

    Attributes:
        files: The files.
        folders: The folders that they are imported from.
        by_module: The files by their modules.
        classes: The classes that are modules.
        functions: What each function builds that builds a module: the key of a class, or, with
            the name of a source for a folder, what is called for it.
    """

    def __init__(self, files: Sequence[_File]) -> None:
        self.files = files
        self.folders = sorted({file.folder for file in files})
        self.by_module = {(file.folder, file.module): file for file in files}
        self.classes: dict[Key, _Class] = {}
        self.functions: dict[Key, Key] = {}
        self._grow(ast.ClassDef, self._add_class)
        self._grow(ast.FunctionDef, self._add_function)

    def find_key(self, file: _File, name: str, table: Container[Key]) -> Key | None:
        """Return the key of a name that a file uses: of its own folder first, then of others."""
        for folder in (file.folder, "", *self.folders):
            if (folder, name) in table:
                return folder, name
        return None

    def describe(self, file: _File, node: ast.ClassDef | ast.FunctionDef) -> Iterator[Candidate]:
        """Yield what is to be said of a class or function that builds a module."""
        key = (file.folder, f"{file.module}.{node.name}")
        built = key if key in self.classes else self.functions.get(key)
        if built is None:
            return
        built_class = self.classes.get(built)
        own = self.classes.get(key)
        required = own.required if own else ()
        used, imports = self.follow(file)
        alone = used == {(file.folder, file.module)} and file.is_script
        yield Candidate(
            folder="" if alone else file.folder,
            module=f"{file.folder.replace('/', '.')}.{file.module}" if alone else file.module,
            name=node.name,
            kind=built_class.kind if built_class else built[0],
            place=f"{file.path.as_posix()}:{node.lineno}",
            builds=built[1],
            is_class=own is not None,
            is_beside=built_class is not None and built[1].rpartition(".")[0] == file.module,
            attributes=built_class.attributes if built_class else None,
            inputs=built_class.inputs if built_class else (),
            required=_list_required(node) if isinstance(node, ast.FunctionDef) else required,
            imports=imports,
        )

    def follow(self, start: _File) -> tuple[set[Key], tuple[str, ...]]:
        """Return the repository's modules that a file needs, itself among them, and the top-level
        names of others that these import.
        """
        waiting = [(start.folder, start.module)]
        used: set[Key] = set()
        foreign: set[str] = set()
        while waiting:
            key = waiting.pop()
            if key in used:
                continue
            used.add(key)
            file = self.by_module[key]
            for name in (file.module.rpartition(".")[0], *file.names.values()):
                parent = name.rpartition(".")[0]
                keys = [self.find_key(file, each, self.by_module) for each in (name, parent)]
                waiting += filter(None, keys)
                top = name.split(".")[0]
                if not any(keys) and not self._is_local(top):
                    foreign.add(top)
        return used, tuple(sorted(foreign - sys.stdlib_module_names - {""}))

    def _is_local(self, top: str) -> bool:
        """Return whether a top-level name is one of the repository's."""
        return any(module.split(".")[0] == top for _, module in self.by_module)

    def _grow(self, kind: type[ast.stmt], add: Callable[[_File, ast.stmt], bool]) -> None:
        """Add top-level statements of a kind until none is new: they may use one another."""
        waiting = []
        for file in self.files:
            waiting += [(file, node) for node in file.tree.body if isinstance(node, kind)]
        grown = True
        while grown:
            left = [(file, node) for file, node in waiting if not add(file, node)]
            grown = len(left) < len(waiting)
            waiting = left

    def _add_class(self, file: _File, node: ast.stmt) -> bool:
        """Add a class if it is known to be a module by now, and return whether it was added."""
        assert isinstance(node, ast.ClassDef)
        names = [file.resolve(base) for base in node.bases]
        keys = [self.find_key(file, name, self.classes) for name in names]
        parents = [self.classes[key] for key in keys if key]
        kind = parents[0].kind if parents else _find_kind(names)
        if not kind:
            return False
        # of what another package's class gives to itself nothing is known
        closed = all(key or name in PLAIN for name, key in zip(names, keys, strict=True))
        key = (file.folder, f"{file.module}.{node.name}")
        self.classes[key] = _describe_class(node, kind, parents, closed=closed)
        return True

    def _add_function(self, file: _File, node: ast.stmt) -> bool:
        """Add a function if it is known to build a module by now, and return whether it was."""
        assert isinstance(node, ast.FunctionDef)
        built = None if node.name.startswith("_") else self._find_built(file, node)
        if built is not None:
            self.functions[file.folder, f"{file.module}.{node.name}"] = built
        return built is not None

    def _find_built(self, file: _File, node: ast.FunctionDef) -> Key | None:
        """Return what a function builds, by what it returns, else by its annotation."""
        given: dict[str, ast.expr] = {}
        returned: list[ast.expr] = []
        for each in _walk_own(node):
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
                given.setdefault(each.targets[0].id, each.value)
            elif isinstance(each, ast.Return) and each.value is not None:
                returned.append(each.value)
        for value in returned:
            if built := self._find_made(file, value, given):
                return built
        name = file.resolve(node.returns) if node.returns is not None else ""
        kind = _find_kind([name]) if returned else ""
        return self.find_key(file, name, self.classes) or ((kind, name) if kind else None)

    def _find_made(self, file: _File, value: ast.expr, given: Mapping[str, ast.expr]) -> Key | None:
        """Return what the value of an expression is, where that is a module that is made there."""
        value = _unwrap(value, given)
        if not isinstance(value, ast.Call):
            return None
        name = file.resolve(value.func)
        if key := self.find_key(file, name, self.classes):
            return key
        if key := self.find_key(file, name, self.functions):
            return self.functions[key]
        kinds = [kind for kind, starts in BUILDERS.items() if name.startswith(starts)]
        return (kinds[0], name) if kinds else None


def _unwrap(value: ast.expr, given: Mapping[str, ast.expr]) -> ast.expr:
    """Return what an expression stands for: through names, and methods that return the module."""
    for _ in range(20):
        if isinstance(value, ast.Name) and value.id in given:
            value = given[value.id]
        elif (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Attribute)
            and value.func.attr in RETURNING_SELF
        ):
            value = value.func.value
        else:
            break
    return value


def _find_kind(names: Sequence[str]) -> str:
    """Return the source that takes what has one of the names of other packages, or nothing."""
    for kind, bases in BASES.items():
        if any(name in bases for name in names):
            return kind
    return ""


def _describe_class(
    node: ast.ClassDef, kind: str, parents: Sequence[_Class], *, closed: bool
) -> _Class:
    """Return what the body of a class tells, with what it has from those that it derives from.

    ``closed`` says that nothing else is given to it.
    """
    methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    attributes: frozenset[str] | None = frozenset(_list_attributes(node))
    if not closed or _sets_by_name(node):
        attributes = None
    for parent in parents:
        if attributes is None or parent.attributes is None:
            attributes = None
        else:
            attributes |= parent.attributes
    forward = next((methods[name] for name in FORWARD if name in methods), None)
    inherited = parents[0] if parents else None
    inputs = _list_required(forward)[1:] if forward else inherited.inputs if inherited else ()
    start = methods.get("__init__")
    required = _list_required(start)[1:] if start else inherited.required if inherited else ()
    if start is None and kind == "jax":  # a dataclass: fields without a value
        required = tuple(
            each.target.id
            for each in node.body
            if isinstance(each, ast.AnnAssign)
            and each.value is None
            and isinstance(each.target, ast.Name)
        )
    return _Class(kind=kind, attributes=attributes, inputs=inputs, required=required)


def _list_attributes(node: ast.ClassDef) -> Iterator[str]:
    """Yield what the methods of a class give to ``self``."""
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
            if isinstance(each.value, ast.Name) and each.value.id == "self":
                yield each.attr
        elif isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute):
            first = each.args[0] if each.args else None
            if each.func.attr in BY_NAME and isinstance(first, ast.Constant):
                yield str(first.value)


def _sets_by_name(node: ast.ClassDef) -> bool:
    """Return whether a class gives things to ``self`` by names that syntax does not show."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call):
            if isinstance(each.func, ast.Name) and each.func.id == "setattr":
                return True
            by_name = isinstance(each.func, ast.Attribute) and each.func.attr in BY_NAME
            if by_name and not (each.args and isinstance(each.args[0], ast.Constant)):
                return True
    return False


def _list_required(node: ast.FunctionDef) -> tuple[str, ...]:
    """Return the arguments that a function cannot be called without."""
    positional = [*node.args.posonlyargs, *node.args.args]
    count = len(positional) - len(node.args.defaults)
    by_name = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    required = [each.arg for each in positional[:count]]
    required += [each.arg for each, default in by_name if default is None]
    return tuple(required)


def _walk_own(node: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body, without those of functions and classes in it."""
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        each = waiting.pop(0)
        yield each
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(each)

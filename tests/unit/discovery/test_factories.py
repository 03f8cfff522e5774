"""Code that builds a module, found by syntax, and told apart by the names of weights."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from mconv.discovery.factories import Candidate, find_factories, fits_weights, rank_factories

NET = """
    import torch.nn as nn
    from torch import nn as other


    class Net(nn.Module):
        def __init__(self, width: int = 8):
            super().__init__()
            self.body = nn.Linear(4, width)
            self.register_buffer("mean", None)

        def forward(self, x, mask=None):
            return self.body(x)


    class Sized(Net):
        def __init__(self, classes):
            super().__init__()
            self.head = other.Linear(8, classes)


    class Plain:
        pass


    def build():
        net = Net()
        return net.eval()


    def sized():
        return Sized(3)


    def helper():
        return Plain()


    def _private():
        return Net()


    def outer():
        def inner():
            return Net()

        return inner
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedent(text))
    return root


def by_name(root: Path) -> dict[str, Candidate]:
    return {each.factory: each for each in find_factories(root)}


def test_classes_and_functions_are_found_with_what_they_need(tmp_path: Path) -> None:
    found = by_name(write(tmp_path, {"net.py": NET}))
    assert set(found) == {"net:Net", "net:Sized", "net:build", "net:sized"}
    assert found["net:build"].attributes == {"body", "mean"}
    assert found["net:build"].inputs == ("x",)
    assert found["net:build"].builds == "net.Net"
    assert not found["net:build"].required
    assert found["net:sized"].attributes == {"body", "mean", "head"}
    assert found["net:sized"].inputs == ("x",)  # of the class that it derives from
    assert found["net:Sized"].required == ("classes",)
    assert found["net:Net"].is_class
    assert found["net:build"].place == "net.py:26"


@pytest.mark.parametrize(
    ("path", "folder", "module"),
    [
        ("net.py", "", "net"),
        ("models/net.py", "", "models.net"),
        ("src/pack/net.py", "src", "pack.net"),
        ("src/net.py", "src", "net"),
        ("my-code/net.py", "my-code", "net"),
    ],
)
def test_a_module_has_the_name_that_python_imports(
    path: str, folder: str, module: str, tmp_path: Path
) -> None:
    write(tmp_path, {path: NET})
    if "pack" in path:
        (tmp_path / path).with_name("__init__.py").touch()
    found = {each.module: each.folder for each in find_factories(tmp_path)}
    assert found == {module: folder}


def test_a_script_that_imports_its_neighbour_is_imported_from_its_folder(tmp_path: Path) -> None:
    user = "from net import Net\n\n\ndef build():\n    return Net()\n"
    found = by_name(write(tmp_path, {"training/net.py": NET, "training/user.py": user}))
    assert found["user:build"].folder == "training"


def test_folders_of_scripts_may_have_files_of_one_name(tmp_path: Path) -> None:
    user = "from net import Net\n\n\ndef build():\n    return Net()\n"
    other = dedent(NET).replace("body", "other")
    files = {"a/net.py": NET, "a/user.py": user, "b/net.py": other, "b/user.py": user}
    found = find_factories(write(tmp_path, files))
    built = {(each.folder, each.factory): each.attributes for each in found}
    assert built["a", "user:build"] == {"body", "mean"}
    assert built["b", "user:build"] == {"other", "mean"}
    # what needs nothing beside it is imported from the repository's folder all the same
    assert ("", "a.net:build") in built


def test_names_are_followed_through_files(tmp_path: Path) -> None:
    files = {
        "src/pack/__init__.py": "",
        "src/pack/net.py": NET,
        "src/pack/entry.py": """
            from .net import Net as Base, build as make
            import timm, json


            class Own(Base):
                def __init__(self):
                    super().__init__()
                    self.tail = 1


            def build():
                return make()


            def own() -> Base:
                model = Own()
                model = prepare(model)
                return model


            def pretrained():
                return timm.create_model("resnet18")
            """,
    }
    found = by_name(write(tmp_path, files))
    assert found["pack.entry:build"].builds == "pack.net.Net"
    assert found["pack.entry:Own"].attributes == {"body", "mean", "tail"}
    assert found["pack.entry:own"].builds == "pack.entry.Own"
    assert found["pack.entry:pretrained"].attributes is None
    assert found["pack.entry:build"].imports == ("timm", "torch")
    assert found["pack.net:build"].imports == ("torch",)
    names = ["body.weight", "mean"]
    ranked = rank_factories(tuple(found.values()), "pytorch", "weights/net.pt", names)
    assert ranked[0].factory == "pack.net:build"
    assert "pack.entry:own" in {each.factory for each in ranked}  # a superset of the names
    assert ranked[-1].factory == "pack.entry:pretrained"  # nothing is known of it


def test_code_with_other_names_is_not_taken_for_the_weights(tmp_path: Path) -> None:
    found = find_factories(write(tmp_path, {"net.py": NET}))
    ranked = rank_factories(found, "pytorch", "net.pt", ["encoder.weight"])
    assert ranked == ()
    ranked = rank_factories(found, "pytorch", "net.pt", ["head.weight"])
    assert [each.factory for each in ranked] == ["net:sized"]  # Sized itself needs an argument
    assert fits_weights(ranked[0], ["head.weight"])
    assert not fits_weights(ranked[0], [])
    assert rank_factories(found, "jax", "net.npz", ["body.weight"]) == ()


def test_the_name_of_the_weights_decides_between_equals(tmp_path: Path) -> None:
    text = dedent(NET).replace("Net", "SmallNet") + dedent(NET).replace("Net", "LargeNet").replace(
        "build", "build_large"
    )
    found = find_factories(write(tmp_path, {"net.py": text}))
    for name, factory in (("large", "build_large"), ("small", "build")):
        ranked = rank_factories(found, "pytorch", f"weights/{name}.pt", ["body.weight"])
        assert ranked[0].name == factory


def test_classes_whose_names_cannot_be_known_are_not_ruled_out(tmp_path: Path) -> None:
    text = """
        from torch import nn


        class Stack(nn.Sequential):
            pass


        class Dynamic(nn.Module):
            def __init__(self):
                super().__init__()
                for i in range(3):
                    setattr(self, f"layer{i}", nn.Linear(2, 2))
        """
    found = find_factories(write(tmp_path, {"net.py": text}))
    assert [each.attributes for each in found] == [None, None]
    assert len(rank_factories(found, "pytorch", "x.pt", ["layer0.weight"])) == 2


def test_flax_is_another_source(tmp_path: Path) -> None:
    text = """
        import flax.linen as nn


        class Net(nn.Module):
            width: int

            def __call__(self, image):
                return image


        def build():
            return Net(8)
        """
    found = by_name(write(tmp_path, {"net.py": text}))
    assert found["net:build"].kind == "jax"
    assert found["net:build"].inputs == ("image",)
    assert found["net:Net"].required == ("width",)


def test_environments_hidden_folders_and_broken_files_are_left_out(tmp_path: Path) -> None:
    files = {
        "venv/lib/net.py": NET,
        ".hidden/net.py": NET,
        "build/net.py": NET,
        "broken.py": "def build(:\n",
        "null.py": "\0",
        "deep.py": "(" * 5000,
        "circle.py": "class A(B): pass\nclass B(A): pass\ndef f():\n    x = x\n    return x\n",
        "net.py": NET,
    }
    write(tmp_path, files)
    (tmp_path / "venv/pyvenv.cfg").touch()
    assert {each.module for each in find_factories(tmp_path)} == {"net"}

"""Plug-in layers: how they are named in a design, found, placed, built, and what is said where one is wrong."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from independent import randomize

import roadmap
from roadmap import Design, RoadmapError
from roadmap.network import layers
from roadmap.network.description import Description, read_description
from roadmap.network.layers import PLACES, Site, digest_of, find_layer, layer, load_plugins, loaded_plugins, site_of
from roadmap.network.model import RoadmapNet

START = Design(blocks=(2, 1), widths=(8, 16), num_classes=5)
END = roadmap.ladder()["separate_downsample"].design.replace(blocks=(2, 1), widths=(8, 16), num_classes=5)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test has a registry of its own, with what this package ships in it."""
    layers.load_installed()
    monkeypatch.setattr(layers, "_layers", dict(layers._layers))
    monkeypatch.setattr(layers, "_loaded", dict(layers._loaded))


def plugin(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text("from roadmap.network.layers import layer\nfrom torch import nn\n\n" + text)
    return path


GATE = """
@layer("gate", place="branch", why="A factor for each channel.")
def build(site, start=0.5, kind="sum", kernels=(3, 5)):
    module = nn.BatchNorm2d(site.outgoing)
    nn.init.constant_(module.weight, start)
    return module
"""


@pytest.mark.parametrize(
    "given",
    [
        {"se": {"ratio": 0.25, "a": [1, [2, None]]}, "grn": {}},
        {"se": {"a": (1, (2, None)), "ratio": 0.25}, "grn": None},
        [("se", {"ratio": 0.25, "a": [1, [2, None]]}), "grn"],
        [["se", [["a", [1, [2, None]]], ["ratio", 0.25]]], ["grn", []]],
    ],
)
def test_layers_have_one_form(given):
    design = Design(layers=given)
    assert design.layers == (("grn", ()), ("se", (("a", (1, (2, None))), ("ratio", 0.25))))
    returned = Design(**json.loads(json.dumps(dataclasses.asdict(design))))
    assert returned == design and hash(returned) == hash(design)
    assert design.replace(kernel_size=5).replace(kernel_size=3) == design
    assert read_description(Description(design).to_text()).design == design


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("se", "layers is 'se', but must be a list of names"),
        (3, "layers is 3, but must be a list of names"),
        (None, "layers is empty"),
        ([3], "layers holds 3, but must hold names"),
        (["se", "se"], "layers names 'se' twice"),
        (["Big"], "a layer's name is 'Big'"),
        (["a.b"], "a layer's name is 'a.b'"),
        ({"se": 0.25}, "the options of the layer 'se' are 0.25"),
        ({"se": "ratio"}, "the options of the layer 'se' are 'ratio'"),
        ({"se": [3]}, "the options of the layer 'se' holds 3"),
        ({"se": {"f": print}}, "f of the options of the layer 'se' is <built-in function print>"),
        ({"se": {"x": float("nan")}}, "x of the options of the layer 'se' is nan, but must be a finite number"),
    ],
)
def test_layers_that_cannot_be_named(given, words):
    with pytest.raises(RoadmapError) as caught:
        Design(layers=given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_flags_that_came_later_are_as_before_where_a_file_lacks_them():
    content = json.loads(Description(START).to_text())
    del content["design"]["layers"], content["design"]["stem_width"]
    assert read_description(json.dumps(content)).design == START
    del content["design"]["groups"]
    with pytest.raises(RoadmapError, match="its design lacks groups"):
        read_description(json.dumps(content))


def standing(network: torch.nn.Module) -> dict[str, Site]:
    return {name: site for name, module in network.named_modules() if (site := site_of(module)) is not None}


ADDING = "{}\n@layer('added', place={!r}, why='x')\ndef build(site): return nn.BatchNorm2d(site.outgoing)\n"
SAME = {  # modules that behave as what they replace
    "stem": "nn.Conv2d(site.incoming, site.outgoing, site.kernel_size, site.stride, site.kernel_size // 2 * (not"
    " site.bias))",
    "downsample": "nn.Conv2d(site.incoming, site.outgoing, 2, 2)",
    "spatial": "nn.Conv2d(site.incoming, site.outgoing, site.kernel_size, site.stride, site.kernel_size // 2, 1,"
    " site.groups, site.bias)",
    "norm": "nn.BatchNorm2d(site.incoming)",
    "activation": "nn.PReLU(site.incoming)",
    "hidden": "nn.BatchNorm2d(site.incoming)",
    "branch": "nn.BatchNorm2d(site.incoming)",
    "shortcut": "nn.Conv2d(site.incoming, site.outgoing, 1, site.stride)",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("base", [START.replace(stem_stride=2), END], ids=["start", "end"])
def test_places(place, base, tmp_path):
    load_plugins([plugin(tmp_path, f"@layer('own', {place!r}, 'x')\ndef build(site): return {SAME[place]}\n")])
    design = base.replace(layers=["own"])
    if (place, base) in (("downsample", START.replace(stem_stride=2)), ("shortcut", END)):
        with pytest.raises(RoadmapError, match=f"the layer 'own' has no place '{place}' in this network"):
            RoadmapNet(design)
        return
    network = randomize(RoadmapNet(design).double())
    sites = standing(network)
    plain = {name for name in RoadmapNet(base).state_dict() if not name.startswith(tuple(sites))}
    own = {name for name in network.state_dict() if not name.startswith(tuple(sites))}
    if place in ("hidden", "branch"):
        assert own == set(RoadmapNet(base).state_dict())
        assert {name.split(".", 4)[4] for name in sites} == {f"{place}.own"} and len(sites) == 3
    else:
        assert own <= plain
    assert all(site.place == place and site.layer == "own" and site.design == design for site in sites.values())
    assert all(name.removesuffix(".own") == site.path for name, site in sites.items())
    kinds = {"spatial": 3, "hidden": 3, "branch": 3, "stem": 1, "downsample": 1}
    if place in kinds:
        assert len(sites) == kinds[place]
    if place == "norm":
        assert not any(type(module).__name__ == "LayerNorm2d" for module in network.modules())
    x = torch.randn(2, 3, 48, 64, dtype=torch.float64)
    with torch.no_grad():
        assert network(x).shape == (2, 5)
        assert torch.equal(copy.deepcopy(network)(x), network(x))


def test_added_layers_stack_by_name(tmp_path):
    text = "".join(
        f"@layer('{name}', 'hidden', 'x')\ndef build(site): return nn.BatchNorm2d(site.outgoing)\n" for name in "abc"
    )
    load_plugins([plugin(tmp_path, text)])
    network = RoadmapNet(END.replace(layers=["c", "a", "b"]))
    assert list(dict(network.stages[0].blocks[1].hidden.named_children())) == ["a", "b", "c"]


def test_a_layer_initialises_itself_and_leaves_the_others_names_alone(tmp_path):
    text = "@layer('fives', 'stem', 'x')\ndef build(site):\n    module = nn.Conv2d(3, site.outgoing, 1, site.stride)\n"
    load_plugins([plugin(tmp_path, text + "    nn.init.constant_(module.weight, 5.0)\n    return module\n")])
    network = RoadmapNet(END.replace(layers=["fives"]))
    assert (network.stem.fives.weight == 5).all() and (network.stages[0].blocks[0].conv1.weight.std() > 0)
    assert "stem.norm_out.weight" in network.state_dict()


def test_options_reach_the_layer(tmp_path):
    load_plugins([plugin(tmp_path, GATE)])
    network = RoadmapNet(END.replace(layers={"gate": {"start": 0.25}}))
    assert (network.stages[0].blocks[0].branch.gate.weight == 0.25).all()


@pytest.mark.parametrize(
    ("text", "layers", "words"),
    [
        (GATE, {"gate": {"begin": 1}}, "unknown option of the layer 'gate' 'begin'; known: start, kind, kernels"),
        (GATE, {"gate": {"strat": 1}}, "did you mean 'start'"),
        (GATE, {"gat": {}}, "unknown layer 'gat' (did you mean 'gate'?)"),
        (GATE, {"gate": {"start": "x"}}, "the layer 'gate' (branch, stage 0, block 0, stages.0.blocks.0.branch) cannot"
         " be built: TypeError"),
        ("@layer('a', 'stem', 'x')\ndef build(site): return 3\n", ["a"], "is a int, but must be a torch module"),
        ("@layer('a', 'stem', 'x')\ndef build(site): return nn.Foo()\n", ["a"], "cannot be built: AttributeError: "
         "module 'torch.nn' has no attribute 'Foo' (mine.py, line 5)"),
        ("@layer('a', 'stem', 'x')\ndef build(site): return 3\n", {"a": {"b": 3}}, "has no options, but is given b"),
        ("@layer('half', 'branch', 'x')\ndef build(site): return nn.ReLU()\n", ["half"], "a word of torch's own"),
        ("one = nn.ReLU()\n@layer('a', 'branch', 'x')\ndef build(site): return one\n", ["a"],
         "is the module of another place: build a new one for each"),
        ("@layer('a', 'stem', 'x')\ndef build(site): return 3\n@layer('b', 'stem', 'x')\ndef build(site): return 3\n",
         ["a", "b"], "the layers 'a' and 'b' both replace what stands at 'stem'"),
        ("from roadmap import RoadmapError\n@layer('a', 'stem', 'x')\ndef build(site): raise RoadmapError('no')\n",
         ["a"], "the layer 'a' (stem, stem): no"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_built(text, layers, words, tmp_path):
    load_plugins([plugin(tmp_path, text)])
    with pytest.raises(RoadmapError) as caught:
        RoadmapNet(END.replace(layers=layers))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = undefined\n", "cannot be loaded: NameError: name 'undefined' is not defined (line 4)"),
        ("def f(:\n", "cannot be loaded: SyntaxError: invalid syntax (line 4)"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module' (line 4)"),
        ("def f():\n    raise ValueError('two\\nlines')\nf()\n", "cannot be loaded: ValueError: two lines (line 5)"),
        ("raise SystemExit\n", "cannot be loaded: SystemExit (line 4)"),
        ("x = 3\n", "registers no layer and no step"),
        ("@layer('a', 'hiden', 'x')\ndef build(site): pass\n", "place is 'hiden', but must be one of stem, downsample"),
        ("@layer('A', 'hidden', 'x')\ndef build(site): pass\n", "a layer's name is 'A'"),
        ("@layer('a', 'hidden', '')\ndef build(site): pass\n", "why is '', but must be text"),
        ("@layer('a', 'stem', 'x')\ndef build(site): 3\n" * 2, "the layer 'a' of "),
        (GATE + "1 / 0\n", "cannot be loaded: ZeroDivisionError: division by zero (line 10)"),
    ],
)
def test_files_that_are_no_plugins(text, words, tmp_path):
    path = plugin(tmp_path, text)
    with pytest.raises(RoadmapError) as caught:
        load_plugins([path])
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) not in loaded_plugins()
    with pytest.raises(RoadmapError, match="unknown layer"):  # nothing stays of a file that failed
        find_layer("gate")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(RoadmapError, match="there is no plug-in file '.*none.py'"):
        load_plugins([tmp_path / "none.py"])
    with pytest.raises(RoadmapError, match="there is no plug-in file"):
        load_plugins([tmp_path])
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(RoadmapError, match="must be a .py file"):
        load_plugins([tmp_path / "mine.txt"])


def test_a_file_is_loaded_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    path = plugin(tmp_path, "import roadmap\nroadmap.loads = getattr(roadmap, 'loads', 0) + 1\n" + GATE)
    monkeypatch.setattr(roadmap, "loads", 0, raising=False)
    monkeypatch.chdir(tmp_path)
    load_plugins([path, "mine.py"])
    load_plugins([str(path)])
    assert roadmap.loads == 1 and loaded_plugins()[-1] == str(path)
    first = digest_of(["gate"])["gate"]
    assert len(first) == 16 and digest_of([]) == {}
    path.write_text(path.read_text().replace("'loads', 0", "'loads', 0 ").replace('"gate"', '"gate2"'))
    assert digest_of(["gate"]) == {"gate": first}  # what is loaded counts, not what the file has become
    load_plugins([path])
    assert roadmap.loads == 2 and digest_of(["gate2"]) != {"gate2": first}
    with pytest.raises(RoadmapError, match="did you mean 'gate2'"):
        find_layer("gate")


def test_a_name_belongs_to_one_file(tmp_path):
    load_plugins([plugin(tmp_path, GATE)])
    other = plugin(tmp_path, GATE, "other.py")
    with pytest.raises(RoadmapError, match="the layer 'gate' of .*other.py is already there, from .*mine.py"):
        load_plugins([other])
    assert find_layer("gate").source == tmp_path / "mine.py"


def test_a_class_may_be_a_layer(tmp_path):
    text = "@layer('own', 'branch', 'x')\nclass Own(nn.BatchNorm2d):\n    def __init__(self, site, eps=1e-5):\n"
    load_plugins([plugin(tmp_path, text + "        super().__init__(site.outgoing, eps=eps)\n")])
    network = RoadmapNet(START.replace(layers={"own": {"eps": 0.5}}))
    assert network.stages[0].blocks[0].branch.own.eps == 0.5 and list(digest_of(["own"])) == ["own"]


def test_a_layer_that_was_typed_in_has_no_digest():
    scope = {"layer": layer}
    exec("@layer('typed', 'branch', 'x')\ndef build(site): pass", scope)
    with pytest.raises(RoadmapError, match="the layer 'typed' was defined interactively"):
        digest_of(["typed"])


def test_a_layer_has_the_designs_norms_and_activations(tmp_path):
    text = """
@layer("own_norm", place="norm", why="x")
def norm(site): return nn.GroupNorm(1, site.incoming)

@layer("deep", place="branch", why="x")
def deep(site): return nn.Sequential(site.norm(site.incoming), site.activation(site.incoming))
"""
    load_plugins([plugin(tmp_path, text)])
    deep = RoadmapNet(END.replace(layers=["deep"])).stages[0].blocks[0].branch.deep
    assert [type(module).__name__ for module in deep] == ["LayerNorm2d", "GELU"]
    deep = RoadmapNet(END.replace(layers=["deep", "own_norm"])).stages[0].blocks[0].branch.deep
    assert isinstance(deep[0], torch.nn.GroupNorm) and site_of(deep[0]).layer == "own_norm"


PACKAGE = {
    "other/__init__.py": "",
    "other/gates.py": "from roadmap.network.layers import layer\n@layer('distant', 'branch', 'x')\ndef build(site):\n"
    "    from torch import nn\n    return nn.BatchNorm2d(site.outgoing)\n",
    "other/broken.py": "1 / 0\n",
    "other-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
    "other-1.0.dist-info/entry_points.txt": "[roadmap.plugins]\ndistant = other.gates\nbad = other.broken\n",
}


def python(code: str, *folders: Path) -> str:
    path = [str(folder) for folder in (*folders, Path(roadmap.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {path!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_installed_packages_offer_layers(tmp_path):
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = """
from roadmap.network.layers import digest_of, find_layer, layer_names
from roadmap import RoadmapError
layer = find_layer("distant")
assert not layer.shipped and len(digest_of(["distant"])["distant"]) == 16
assert "torch" not in sys.modules
try:
    layer_names()
except RoadmapError as error:
    print(error)
"""
    assert python(code, tmp_path) == (
        "the installed plug-in 'bad' cannot be loaded: ZeroDivisionError: division by zero"
    )


def test_plugin_files_are_loaded_in_a_fresh_process_without_torch(tmp_path):
    path = plugin(tmp_path, GATE)
    path.write_text(path.read_text().replace("from torch import nn\n", ""))
    code = f"""
from roadmap.network.layers import load_plugins, loaded_plugins, find_layer
load_plugins([{str(path)!r}])
assert "torch" not in sys.modules and "timm" not in sys.modules
print(loaded_plugins() == ({str(path)!r},), find_layer("gate").place)
"""
    assert python(code) == "True branch"


def test_stem_width():
    design = START.replace(stem_width=24)
    assert design.block_inputs() == [[24, 32], [32]]
    network = RoadmapNet(design)
    assert network.stem.conv.weight.shape[0] == 24 and network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert RoadmapNet(END.replace(stem_width=24)).stages[0].blocks[0].conv1.weight.shape[0] == 24
    first = START.replace(stem_width=6, spatial_position="first")
    assert first.spatial_widths() == [6, 32, 32]
    with pytest.raises(RoadmapError, match="groups 4 does not divide the 6 channels"):
        first.replace(groups=4)
    with pytest.raises(RoadmapError, match="stem_width is 0"):
        START.replace(stem_width=0)


def test_large_patches_and_a_single_stage():
    with pytest.raises(RoadmapError, match="stem_stride is 8, but the resnet stem goes to 4 at most"):
        START.replace(stem_stride=8)
    design = END.replace(blocks=(2,), widths=(8,), stem_stride=16)
    assert design.feature_sizes(79) == [4, 4]
    network = RoadmapNet(design)
    assert [name for name, _ in network.stem.named_children()] == ["conv"] and network.stem.conv.stride == (16, 16)
    assert type(network.head.norm).__name__ == "LayerNorm2d" and not len(network.stages[0].downsample)
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 79, 64)).shape == (2, 5)

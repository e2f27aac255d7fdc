"""The program's floors: a module imports only modules below it, and imports form no circle."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the top down. A folder stands for the modules in it.
FLOORS = (
    {"benchmarks"},
    {"train", "test", "convert", "pack", "generate", "gallery", "demo", "export", "alignment"},
    {"trainer", "tester", "exporting", "pages"},
    {"training", "evaluation", "packing"},
    {"drawing"},
    {"sampler", "checkpoint", "dataset"},
    {"networks", "command", "loading"},
    {"parameters"},
    {"metrics", "published_data"},
    {"formats", "inference"},
    {"sagan_models", "acgan_models"},
    {"augment", "layers", "losses", "options", "pictures"},
    {"spectral_norm"},
    {"operations"},
    {"runtime"},
    {"processes"},
    {"randomness", "utils"},
    {"system"},
)


def modules():
    """{module: path} of the program; a module is named like "formats.safe_pickle"."""
    folders = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").is_file()]
    paths = [*ROOT.glob("*.py"), *(path for folder in (*folders, ROOT / "benchmarks") for path in folder.glob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path, known):
    """The modules among `known` that the file `path` imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


def test_modules_import_only_modules_on_lower_floors():
    known = modules()
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for module, path in known.items():
        room = module.split(".")[0]
        for imported in imports(path, known.keys()):
            below = imported.split(".")[0]
            assert below == room or floor[room] < floor[below], f"{module} imports {imported}"


def test_every_module_is_on_a_floor():
    assert {module.split(".")[0] for module in modules()} == set().union(*FLOORS)


def test_training_and_evaluation_do_not_import_each_other():
    known = modules()
    for module, path in known.items():
        room = module.split(".")[0]
        if room in ("training", "evaluation"):
            other = {"training": "evaluation", "evaluation": "training"}[room]
            assert not {name for name in imports(path, known.keys()) if name.split(".")[0] == other}, module


def test_imports_form_no_circle():
    known = modules()
    graph = {module: imports(path, known.keys()) - {module} for module, path in known.items()}
    while leaves := [module for module, needed in graph.items() if not needed & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph, f"a circle among {sorted(graph)}"

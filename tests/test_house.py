"""The package's imports: no circles, and no room that imports one above it."""

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What lies above what; `networks` opens runs, and stands on `training`.
FLOORS = (
    {"errors", "files", "processor", "_version"},
    {"registry", "startup", "schedules", "images"},
    {"architectures", "layers", "data"},
    {"weights", "model"},
    {"builder", "evaluation"},
    {"inspect", "export", "features", "verification"},
    {"training"},
    {"networks"},
    {"tuning"},
    {""},  # keras_alexnet itself, which names what is public.
    {"benchmarks"},
    {"cli"},
    {"__main__"},
)
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}


def imports():
    """For each module those of the package that it imports, in functions too."""
    files = {}
    for folder in ("keras_alexnet", "layers", "tuning", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            name = name if folder == "keras_alexnet" else f"keras_alexnet.{name}"
            files[name.removesuffix(".__init__")] = path
    for module, path in files.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= (inner & files.keys()) or {node.module}
        yield module, names & files.keys() - {module}


def room(module):
    parts = module.split(".")[1:] or [""]
    return parts[-1] if parts[-1] == "__main__" else parts[0]


def test_imports_form_no_circle_and_go_down_only():
    graph = dict(imports())
    graphlib.TopologicalSorter(graph).prepare()  # Raises where there is a circle.
    arrows = [(one, other) for one, others in graph.items() for other in others]
    assert not [a for a in arrows if HEIGHT[room(a[1])] > HEIGHT[room(a[0])]]

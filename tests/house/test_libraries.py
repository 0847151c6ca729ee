"""The model libraries without PyTorch's compiler, and the compiler when it is asked for."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def said_by(program: str) -> list[str]:
    """What a program prints that begins by importing the libraries as camcli does."""
    begin = "import sys\nfrom camcli.models.lazy_imports import without_compiler\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_model_is_loaded_without_the_compiler_and_the_libraries_get_it_when_they_use_it():
    said = said_by("""
from camcli.models import listing
from camcli.models.load import load
load("bundled:efficientnet-lite0")
listing.import_source("torchvision")
print("torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules)

from torchvision.ops import roi_align
supported = sys.modules["torchvision.ops.roi_align"].is_compile_supported
import torch
disable = torch.compiler.disable
print(supported("cpu"), supported("meta"), "torch._dynamo" in sys.modules)
print(supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu"))

from timm.models.naflexvit import NaFlexRopeIterator
each = NaFlexRopeIterator.__new__(NaFlexRopeIterator)
each._depth_idx = each.depth = 0
try:
    next(each)
except StopIteration:
    print("ended")
print(disable.__module__)
""")
    assert said == ["False", "False", "True", "False", "True", "True", "ended", "torch.compiler"]


def test_whatever_else_is_asked_of_the_compiler_is_its_own():
    said = said_by("""
import torch
with without_compiler():
    from torch._dynamo.utils import counters
    import torch._dynamo.utils as tools
    print(tools is sys.modules["torch._dynamo.utils"], counters is tools.counters, tools.__file__.endswith("utils.py"))
    import timm
import torch._dynamo.utils
print(torch._dynamo.utils.__file__.endswith("utils.py"), torch._dynamo.config.cache_size_limit > 0)
""")
    assert said == ["True"] * 5


def test_a_compiled_function_leaves_alone_what_it_shall():
    said = said_by("""
import torch
with without_compiler():
    @torch.compiler.disable
    def outside(x):
        return x + (1 if torch.compiler.is_compiling() else 2)
    @torch.compiler.disable(recursive=True)
    def another(x):
        return outside(x)
print("torch._dynamo" in sys.modules)
print(float(torch.compile(lambda x: another(x) * 2, backend="eager")(torch.ones(()))))
""")
    assert said == ["False", "6.0"]

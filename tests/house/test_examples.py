"""The examples for CI, commits and containers: their shell parts run, and say what they should."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from shared import ROOT

EXAMPLES = ROOT / "docs" / "examples"
JOB = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"), re.S)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell where this environment's camcli is the first found."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-e", "-c", command], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )


@pytest.fixture
def project(tmp_path: Path, sample_images: Path) -> Path:
    """A repository with the job of docs/install.md and the images that it names."""
    assert JOB
    (tmp_path / "camcli.toml").write_text(JOB[1], encoding="utf-8")
    (tmp_path / "sample_images").mkdir()
    for name in ("coffee.png", "chelsea.png"):
        shutil.copy(sample_images / name, tmp_path / "sample_images")
    return tmp_path


def test_the_workflow_explains_and_checks_the_peak(project):
    workflow = yaml.safe_load((EXAMPLES / "github-action.yml").read_text(encoding="utf-8"))
    steps = {step["name"]: step["run"] for step in workflow["jobs"]["look"]["steps"] if "run" in step}
    assert list(steps) == ["Install", "Explain", "The coffee is found in the cup"]
    explained = run(steps["Explain"], project)
    assert explained.returncode == 0, explained.stderr
    if not shutil.which("jq"):
        pytest.skip("jq is not installed; GitHub's runners have it")
    check = steps["The coffee is found in the cup"]
    assert run(check, project).returncode == 0
    lines = project / "maps.jsonl"
    lines.write_text(re.sub(r'"peak": \[[^]]*\]', '"peak": [5, 5]', lines.read_text(encoding="utf-8")), "utf-8")
    assert run(check, project).returncode == 1


def run_snippet(mark: str, project: Path) -> subprocess.CompletedProcess[str]:
    """Run the commands of the datasets page that have this mark, on the two images in `photos`."""
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    [commands] = re.findall(rf"<!-- test: {mark} -->\n```sh\n(.*?)```", page, re.S)
    (project / "sample_images").rename(project / "photos")
    ran = run(commands, project)
    assert ran.returncode == 0, ran.stderr
    return ran


def test_the_shards_of_the_datasets_page_share_the_images(project):
    ran = run_snippet("shards", project)
    assert "2 images: 2 done, 0 failed, 0 missing" in ran.stdout
    assert len((project / "maps" / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_the_tars_of_the_datasets_page_hold_the_outputs(project):
    assert "maps-000000.tar: 2 images" in run_snippet("tars", project).stderr


def test_the_hook_fails_when_an_image_has_no_map(project):
    hooks = yaml.safe_load((EXAMPLES / "pre-commit-config.yaml").read_text(encoding="utf-8"))
    [hook] = hooks["repos"][0]["hooks"]
    assert [bool(re.search(hook["files"], name)) for name in ("camcli.toml", "a/net.py", "notes.md")] == [1, 1, 0]
    assert run(hook["entry"], project).returncode == 0
    (project / "sample_images" / "chelsea.png").write_bytes(b"\x89PNG broken")
    assert run(hook["entry"], project).returncode == 1


def test_the_container_installs_the_package_and_runs_its_command():
    lines = (EXAMPLES / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "pip install" in line][-1].startswith("RUN pip install --no-cache-dir /camcli ")
    assert lines[-1] == 'ENTRYPOINT ["camcli"]'

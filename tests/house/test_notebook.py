"""The notebook of the documentation runs from top to bottom, and shows what it says."""

import pytest
from shared import ROOT

nbclient = pytest.importorskip("nbclient", reason="nbclient and ipykernel are in the extra dev")
pytest.importorskip("ipykernel", reason="nbclient and ipykernel are in the extra dev")
nbformat = pytest.importorskip("nbformat")


def test_the_notebook_runs():
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)  # none are stored
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "docs")}}
    ).execute()
    figures = [
        out["data"].get("text/html", "").count("<figure") for cell in code for out in cell.outputs if "data" in out
    ]
    assert figures == [1, 2, 0, 2, 2, 1, 0]
    assert any("image/png" in out.get("data", {}) for cell in code for out in cell.outputs)

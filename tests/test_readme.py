"""README: what it says in Python runs."""

import re
from pathlib import Path

import pytest

from tests.onnx_models import save
from tests.small import BODY, IMAGE, data

README = Path(__file__).parents[1] / "README.md"
SMALLER = {"(3, 32, 32)": "(3, 6, 5)", "rows=16, cols=16, lanes=4": "rows=4, cols=4, lanes=2"}


@pytest.mark.cosim
def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a smaller network and plan, its last line prints what its comment says."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for written, smaller in SMALLER.items():
        assert code.count(written) == 1
        code = code.replace(written, smaller)
    monkeypatch.chdir(tmp_path)
    Path("build").mkdir()
    data(Path("test.npz"))
    save(tmp_path, IMAGE, BODY, 2)
    exec(code, {})
    assert capsys.readouterr().out == code.rsplit("# ", 1)[1]

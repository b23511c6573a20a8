"""What a wheel holds: the whole package with its SQL, types and page; one command, one version; nothing else."""

import zipfile
from pathlib import Path

import pytest
from flit_core.wheel import make_wheel_in

import cotacoes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    made = make_wheel_in(ROOT / "pyproject.toml", tmp_path_factory.mktemp("dist"))
    return zipfile.ZipFile(made.file)


def test_it_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if not name.startswith(f"cotacoes-{cotacoes.__version__}.dist-info/")}
    source = ROOT / "src"
    there = {
        str(path.relative_to(source))
        for path in (source / "cotacoes").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    assert {
        "cotacoes/py.typed",
        "cotacoes/adapters/postgres/schema/0001_ledger.sql",
        "cotacoes/gateway_service/page/index.html",
        "cotacoes/gateway_service/page/vendor/lightweight-charts-5.2.1.js",
    } <= packed


def test_it_says_its_version_once_and_brings_the_command(wheel: zipfile.ZipFile) -> None:
    info = f"cotacoes-{cotacoes.__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert f"\nVersion: {cotacoes.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert wheel.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "cotacoes=cotacoes.__main__:main",
    ]

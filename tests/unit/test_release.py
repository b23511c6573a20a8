"""What a release is made of: notes from the changelog, workflows with pinned actions, hooks that agree with make."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

import cotacoes

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def release_notes(tag: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy" / "release_notes.py"), tag]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_notes_of_a_release_are_the_changelog_section_of_its_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    done = release_notes(f"v{cotacoes.__version__}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in changelog
    assert done.stdout.strip()
    assert not re.search(r"^## ", done.stdout, re.MULTILINE), "a second version's section"


def test_a_tag_that_is_not_the_package_version_is_refused() -> None:
    done = release_notes("v0.0.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the tag is v0.0.1, but the package is version {cotacoes.__version__}" in done.stderr


def test_every_action_is_pinned_by_digest_with_its_version_beside_it() -> None:
    uses = [line.strip() for file in WORKFLOWS for line in file.read_text().splitlines() if "uses:" in line]
    assert uses
    pinned = re.compile(r"(- )?uses: ([\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*|\$/\.github/workflows/\w+\.yml)")
    assert [line for line in uses if not pinned.fullmatch(line)] == []


def test_an_action_is_pinned_to_one_digest_everywhere() -> None:
    pins = {
        tuple(pin) for file in WORKFLOWS for pin in re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40})", file.read_text())
    }
    assert len(pins) == len({action for action, _ in pins})


def test_every_make_target_of_a_workflow_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [
        step["run"]
        for file in WORKFLOWS
        for job in yaml.safe_load(file.read_text())["jobs"].values()
        for step in job.get("steps", [])
        if step.get("run", "").startswith("make ")
    ]
    assert commands
    used = {word for command in commands for word in command.split()[1:] if re.fullmatch(r"[a-z-]+", word)}
    assert used <= targets


def test_hooks_run_the_tools_of_the_project_as_make_check_does() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    checked = set(re.findall(r"^\t\$\(BIN\)/([\w-]+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for hook in hooks[0]["hooks"]:
        program, _, _ = hook["entry"].removeprefix(".venv/bin/").partition(" ")
        assert program in checked, hook["id"]

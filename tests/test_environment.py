"""The environment is one list, stated once; what states it again cannot drift from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import anatolab
from anatolab import records
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[1]
LOCK_LINE = re.compile(  # a package with its version, where it is needed, and the hashes of its files; no address
    r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*( ; [^\\;@#]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
)
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def entries() -> list[str]:
    """The entries of requirements.lock, a package each."""
    return re.split(r"^(?=\S)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]


def lock() -> dict[str, Version]:
    """Package to version of requirements.lock."""
    lines = (entry.split(maxsplit=1)[0] for entry in entries())
    return {name: Version(version) for name, version in (line.split("==") for line in lines)}


def read_yaml(name: str) -> Any:
    """A YAML file of the checkout."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_lock_holds_exact_versions_with_hashes_and_nothing_else() -> None:
    assert [entry for entry in entries() if not LOCK_LINE.fullmatch(entry)] == []
    names = [entry.split("==")[0] for entry in entries()]
    assert names == sorted(set(names))
    assert len(names) > 100


HASH = " \\\n    --hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    "entry",
    [
        "torch==2.13.0\n",
        f"torch==2.13.0+cpu{HASH}\n",
        f"torch>=2{HASH}\n",
        "--index-url https://a\n",
        f"torch @ https://a/b.whl{HASH}\n",
        "torch==2 \\\n    --hash=sha256:1\n",
    ],
)
def test_entries_that_the_lock_may_not_hold(entry: str) -> None:
    assert not LOCK_LINE.fullmatch(entry)
    assert LOCK_LINE.fullmatch(f"torch==2.13.0 ; sys_platform == 'linux'{HASH}{HASH}\n")


PLATFORMS = {
    "linux": {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"},
    "darwin": {"sys_platform": "darwin", "os_name": "posix", "platform_machine": "arm64"},
    "win32": {"sys_platform": "win32", "os_name": "nt", "platform_machine": "AMD64"},
}
ONLY = {"linux": {"triton", "pexpect"}, "darwin": {"appnope", "pexpect"}, "win32": {"colorama", "pywinpty"}}


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_lock_serves_linux_macos_and_windows(platform: str, python: str) -> None:
    held = PLATFORMS[platform] | {"python_version": python, "python_full_version": f"{python}.0"}
    held |= {"platform_python_implementation": "CPython", "implementation_name": "cpython"}
    wanted = set()
    for entry in entries():
        requirement = Requirement(entry.split(" \\\n")[0])
        if requirement.marker is None or requirement.marker.evaluate(held):
            wanted.add(requirement.name)
    assert {"torch", "torchvision", "monai", "numpy", "jupyter-book", "pytest"} <= wanted
    assert wanted & set.union(*ONLY.values()) == ONLY[platform]
    assert any(name.startswith("nvidia-") for name in wanted) == (platform == "linux")
    assert "httpx2-jsfetch" not in wanted


REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(line for extra in ("book", "test", "dev", "notebooks") for line in PROJECT["optional-dependencies"][extra]),
    *PYPROJECT["tool"]["uv"]["constraint-dependencies"],
]


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_the_lock_lies_within_the_ranges(line: str) -> None:
    requirement = Requirement(line)
    assert lock()[canonicalize_name(requirement.name)] in requirement.specifier


def test_packages_that_break_when_moved_apart_are_pinned() -> None:
    pinned = {Requirement(line).name for line in PYPROJECT["tool"]["uv"]["constraint-dependencies"]}
    assert {"torch", "torchvision", "sphinx", "jupyter-book"} <= pinned


def test_conda_lines_parse_and_hold_the_interpreter_only() -> None:
    environment = read_yaml("environment.yml")
    lines = [line for line in environment["dependencies"] if isinstance(line, str)]
    specs = {str(spec.name.normalized): spec for spec in (rattler.MatchSpec(line, strict=True) for line in lines)}
    assert set(specs) == {"python", "pip"}
    python = str(specs["python"].version).rstrip(".*")
    assert Version(python) in SpecifierSet(PROJECT["requires-python"])
    assert environment["name"] == "anatolab"


def test_the_pip_section_names_no_version_of_its_own() -> None:
    sections = [line for line in read_yaml("environment.yml")["dependencies"] if isinstance(line, dict)]
    assert sections == [{"pip": ["-r requirements.lock"]}]  # pip verifies hashes only where everything has one


def test_the_version_is_stated_alike_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)
    stated = {anatolab.__version__, PROJECT["version"], str(read_yaml("CITATION.cff")["version"]), *released[:1]}
    assert stated == {PROJECT["version"]}


def test_the_citation_file_is_complete() -> None:
    citation = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "date-released", "license", "type"} <= set(
        citation
    )
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]


# Written so that the patterns do not match themselves.
PRIVATE = {
    "a path of one machine": re.compile(
        r"(?<![\w./:-])(?:/(?:home|Users)/\w|/(?:root|work|opt)/\w|[A-Z]:\\Users)|/\.pyenv/"
    ),
    "the host of a package registry": re.compile(
        r"(?:pythonhosted|pypi|npmjs|anaconda|download[.]pytorch|quay|artifactory|nexus)[.](?:org|com|io)\b",
        re.IGNORECASE,
    ),
    "an option that names an index": re.compile(r"--(?:extra-)?(?:index|find)-(?:url|links)[= ]\S"),
}
TEXT = {
    ".py",
    ".md",
    ".ipynb",
    ".yml",
    ".yaml",
    ".toml",
    ".cfg",
    ".cff",
    ".lock",
    ".sh",
    ".json",
    ".js",
    ".css",
    ".bib",
    "",
}


def tracked() -> list[Path]:
    """The text files that git tracks; vendored scripts are others' words."""
    try:
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in done.stdout.splitlines() if "vendor/" not in name]
    return [path for path in files if path.suffix in TEXT and path.is_file()]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {what}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for what, pattern in PRIVATE.items()
        if pattern.search(line) and path != Path(__file__)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "open('/" + "home/someone/acdc')",
        "root: /" + "work/shared",
        "https://pypi" + ".org/simple",
        "https://download.pytorch" + ".org/whl/cpu",
        "pip install --find-" + "links wheels",
    ],
)
def test_private_words_are_recognized(line: str) -> None:
    assert any(pattern.search(line) for pattern in PRIVATE.values())


@pytest.mark.parametrize(
    "parts",
    [
        ("..", "work", "a"),
        ("a", "home", "b"),
        ("network", "opt", "x"),
        ("python -m anatolab.cli",),
        ("https:", "", "a.io", "root", "b"),
    ],
)
def test_common_words_are_not_private(parts: tuple[str, ...]) -> None:
    line = "/".join(parts)
    assert not any(pattern.search(line) for pattern in PRIVATE.values())


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_all_workflows_are_there() -> None:
    assert [path.stem for path in WORKFLOWS] == ["anywhere", "book", "links", "release", "test", "weekly"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_parse_and_ask_for_little(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert True in workflow  # `on`, which YAML 1.1 reads as true
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        if any(right == "write" for right in job.get("permissions", {}).values()):  # no foreign code beside its token
            assert not re.search(r"pip|make|uv |python", " ".join(step.get("run", "") for step in job["steps"]))
        assert "runs-on" in job
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+(/[\w-]+)*@[0-9a-f]{40}", step["uses"])  # a tag can be moved
            else:
                assert "${{" not in step["run"]  # values reach a script as environment variables
                subprocess.run(["bash", "-n"], input=step["run"], encoding="utf-8", check=True)


def test_pre_commit_hooks_need_no_network() -> None:
    config = read_yaml(".pre-commit-config.yaml")
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    assert {hook["language"] for hook in config["repos"][0]["hooks"]} == {"system"}


@pytest.mark.parametrize("name", [".ci/run", "tools/env.sh", "tools/phases.sh"])
def test_scripts_are_valid_bash_and_executable(name: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / name)], check=True)
    assert os.access(ROOT / name, os.X_OK)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A toy checkout whose uv only writes down what it is asked."""
    for name in ("tools/env.sh", "tools/phases.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "requirements.lock").write_text("a==1\n")
    (tmp_path / "pyproject.toml").write_text("")
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        '#!/bin/sh\n[ "$1" = --version ] || echo "$1 $2 ${UV_FIND_LINKS-no-links}"'
        '"$(case "$*" in *--require-hashes*requirements.lock) echo " hashes";; esac)" >> log\n'
        '[ "$1" = venv ] || exit 0\nmkdir -p .venv/bin\n'
        'printf "#!/bin/sh\\n" > .venv/bin/python\nchmod +x .venv/bin/python\n'
    )
    uv.chmod(0o755)
    return tmp_path


def bash(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in the toy checkout with its uv first on PATH and a folder of wheels offered."""
    environment = os.environ | {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "UV_FIND_LINKS": "wheels"}
    return subprocess.run(["bash", *arguments], cwd=checkout, env=environment, capture_output=True, encoding="utf-8")


INSTALLED = ["pip sync no-links hashes", "pip install no-links"]


def test_the_environment_is_made_once_and_again_when_the_lock_changes(checkout: Path) -> None:
    log = checkout / "log"
    assert bash(checkout, "tools/env.sh").returncode == 0
    assert log.read_text().splitlines() == ["venv --quiet no-links", *INSTALLED]
    assert bash(checkout, "tools/env.sh").returncode == 0
    assert len(log.read_text().splitlines()) == 3
    (checkout / "requirements.lock").write_text("a==2\n")
    assert bash(checkout, "tools/env.sh").returncode == 0
    assert log.read_text().splitlines()[3:] == INSTALLED


def test_a_python_that_is_too_old_gets_one_sentence(checkout: Path) -> None:
    old = checkout / "bin" / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = bash(checkout, "tools/env.sh", str(old))
    assert done.returncode == 1
    assert "is not Python 3.11 or 3.12" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_phases_stop_at_the_first_failure_and_say_what_each_took(checkout: Path) -> None:
    (checkout / "Makefile").write_text("good:\n\t@true\nbad:\n\t@false\nnever:\n\t@touch ran\n")
    done = bash(checkout, "tools/phases.sh", "good", "bad", "never")
    assert done.returncode == 1
    assert re.search(r"good +ok +\d+ s; CPU 0 s\nbad +FAILED +\d+ s; CPU 0 s\nall +FAILED", done.stdout)
    assert not (checkout / "ran").exists()
    kept = checkout / "_build" / "phases.json"
    assert json.loads(kept.read_text()).items() >= {"phases": "good bad never", "status": 1}.items()
    assert bash(checkout, "tools/phases.sh", "good").returncode == 0
    assert json.loads(kept.read_text())["status"] == 0


def test_a_phase_over_its_budget_fails_and_the_next_still_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "Makefile").write_text("slow:\n\t@sleep 2\ngood:\n\t@true\nlint:\n\t@true\n")
    monkeypatch.setenv("ANATOLAB_BUDGET_SLOW", "1")
    done = bash(checkout, "tools/phases.sh", "slow", "good", "lint")
    assert done.returncode == 1
    pattern = r"slow +OVER +[23] s, at most 1 s; CPU 0 s\ngood +ok .*\nlint +ok +\d+ s, at most 120 s; .*\nall +FAILED"
    assert re.search(pattern, done.stdout)
    monkeypatch.setenv("ANATOLAB_BUDGET_SLOW", "0")
    monkeypatch.setenv("ANATOLAB_BUDGET", "1.5")
    done = bash(checkout, "tools/phases.sh", "slow", "lint")
    assert done.returncode == 0
    assert re.search(r"slow +ok +[23] s; .*\nlint +ok +\d+ s, at most 180 s; .*\n", done.stdout)


def test_a_phase_says_what_its_processes_computed(checkout: Path) -> None:
    busy = "import time; [0 for _ in iter(lambda: time.process_time() < 1.05, False)]"
    (checkout / "Makefile").write_text(f"busy:\n\t@{sys.executable} -c '{busy}'\n")
    assert re.search(r"busy +ok +\d+ s; CPU [12] s\n", bash(checkout, "tools/phases.sh", "busy").stdout)


def test_joined_phases_run_at_the_same_time_and_one_that_fails_stops_the_rest(checkout: Path) -> None:
    wait = "@touch {0}; for i in $$(seq 100); do [ -e {1} ] && exit 0; sleep .1; done; exit 1"
    rules = {
        "one": wait.format("1", "2"),
        "two": wait.format("2", "1"),
        "bad": "@echo why; false",
        "never": "@touch ran",
    }
    (checkout / "Makefile").write_text("".join(f"{name}:\n\t{rule}\n" for name, rule in rules.items()))
    done = bash(checkout, "tools/phases.sh", "one+two", "one+bad", "never")
    assert done.returncode == 1
    assert "\n--- bad\nwhy\n" in done.stdout
    assert re.search(r"one +ok .*\ntwo +ok .*\none +ok .*\nbad +FAILED .*\nall +FAILED", done.stdout)
    assert not (checkout / "ran").exists()


def test_every_phase_of_make_test_has_a_budget() -> None:
    (line,) = re.findall(r"tools/phases\.sh ([a-z+ ]+)\n", (ROOT / "Makefile").read_text())
    (budgets,) = re.findall(r'budgets="(.*)"', (ROOT / "tools" / "phases.sh").read_text())
    assert re.findall(r"(\w+)=\d+", budgets) == re.split(r"[+ ]", line)


def test_make_lists_its_targets() -> None:
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True, stdin=subprocess.DEVNULL
    )
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert {"env", "book", "test", "lint", "lock", "records", "campaign", "gpu", "clean", "help"} <= listed


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """hatch_build.py, without hatchling, which only a build has."""
    for part, name in (("metadata", "MetadataHookInterface"), ("builders.hooks", "BuildHookInterface")):
        interface = ModuleType(f"hatchling.{part}.plugin.interface")
        setattr(interface, name, object)
        monkeypatch.setitem(sys.modules, interface.__name__, interface)
    for name in ("ANATOLAB_REPOSITORY", "ANATOLAB_SITE"):
        monkeypatch.delenv(name, raising=False)
    return script("hatch_build.py")


def test_addresses_of_the_package_are_those_of_the_book(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "_config.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    stated = {"Documentation": config["html"]["baseurl"], "Repository": config["repository"]["url"]}
    assert {k: v for k, v in hook.urls(text).items() if k in stated} == {k: v for k, v in stated.items() if v}
    config["repository"]["url"], config["html"]["baseurl"] = "https://forge.example/a/b", "https://a.example/b/"
    named = {
        "Documentation": "https://a.example/b/",
        "Repository": "https://forge.example/a/b",
        "Issues": "https://forge.example/a/b/issues",
        "Releases": "https://forge.example/a/b/releases",
    }
    assert hook.urls(yaml.safe_dump(config)) == named
    assert (
        hook.urls(
            text.replace('  url: ""', "  url: https://forge.example/a/b").replace(
                'baseurl: ""', 'baseurl: "https://a.example/b/"'
            )
        )
        == named
    )
    monkeypatch.setenv("ANATOLAB_REPOSITORY", "https://other.example/c")
    assert hook.urls(text)["Issues"] == "https://other.example/c/issues"


def test_the_package_knows_the_commit_that_it_was_built_at(hook: ModuleType, tmp_path: Path) -> None:
    assert hook.commit(tmp_path) is None
    if (ROOT / ".git").exists():
        assert hook.commit(ROOT) == records.git_state()
    build = hook.Commit()
    for root, version, count in ((tmp_path, "standard", 0), (ROOT, "editable", 0), (ROOT, "standard", 1)):
        build.root, data = str(root), {"force_include": {}}
        build.initialize(version, data)
        assert len(data["force_include"]) == (count if (ROOT / ".git").exists() else 0)


def test_the_package_takes_its_records_along_and_no_picture() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["sources"] == {"book/records": "anatolab/book_records"}
    assert wheel["only-include"] == ["anatolab", "book/records"]
    pictures = {p.parent for p in (ROOT / "book" / "records").rglob("*.png")}
    assert {str(p.relative_to(ROOT)) for p in pictures} <= set(wheel["exclude"])
    assert PROJECT["dynamic"] == ["urls"]

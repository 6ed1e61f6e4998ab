"""The house rules that a machine can read."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The project's rooms and papers, then what a repository cannot do without.
AT_THE_TOP = {
    *("api", "worker", "shared", "tests", "pyproject.toml", "docker-compose.yml", "README.md"),
    *("deploy", "Dockerfile", ".dockerignore", "Makefile", ".env.example"),
    *("requirements.txt", "requirements-run.txt", "requirements-dev.txt"),
    *(".ci", ".github", ".gitignore", ".gitattributes", ".editorconfig"),
    *("LICENSE", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md"),
}
LONGEST_FILE = 300
TIERS = ("tests/unit/", "tests/contract/", "tests/integration/", "tests/chaos/", "tests/browser/")

# Left by tools beside the sources; only needed where git cannot say so.
LEFT_BY_TOOLS = re.compile(r"\.git|\.venv|\.run|\.env|\.hypothesis|__pycache__|\..*_cache|results")


def project_files() -> list[str]:
    """Paths of the project's files: what git has or would take, or, without git, what is there."""
    git = shutil.which("git")
    if git is not None:
        listing = subprocess.run(
            [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if listing.returncode == 0:
            names = listing.stdout.split("\0")
            return sorted({name for name in names if name and (ROOT / name).is_file()})
    return sorted(path.relative_to(ROOT).as_posix() for path in walk(ROOT))


def walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, but for what tools left there."""
    for path in folder.iterdir():
        if LEFT_BY_TOOLS.fullmatch(path.name):
            continue
        if path.is_dir():
            yield from walk(path)
        else:
            yield path


def lines_with(pattern: str, *, under: tuple[str, ...] = ("",)) -> list[str]:
    """Places, as `path:line`, where Python sources hold the pattern."""
    return [
        f"{name}:{number}"
        for name in project_files()
        if name.startswith(under) and name.endswith(".py")
        for number, line in enumerate((ROOT / name).read_text().splitlines(), start=1)
        if re.search(pattern, line)
    ]


def test_the_files_are_found() -> None:
    """The rules below look at something: this very file is among what they read."""
    assert "tests/unit/test_layout.py" in project_files()


def test_the_top_level_holds_only_what_is_given() -> None:
    """A newcomer finds four rooms and the papers of every repository, nothing else."""
    assert {name.split("/")[0] for name in project_files()} - AT_THE_TOP == set()


def test_no_source_file_is_longer_than_one_noun() -> None:
    """A Python file that passes 300 lines probably holds two nouns."""
    long = [
        name
        for name in project_files()
        if name.endswith(".py") and len((ROOT / name).read_text().splitlines()) > LONGEST_FILE
    ]
    assert long == []


def test_no_test_sleeps() -> None:
    """Tests wait for conditions, by `wait_until`; only the bench lets real time pass."""
    assert lines_with(r"\bsleep\(|\bwait_for_timeout\(", under=TIERS) == []


def test_no_test_uses_a_mock() -> None:
    """Fakes speak the real protocol; nothing of ours is replaced behind its back."""
    assert lines_with(r"unittest\.mock|import moc[k]|monkeypatch\.setattr", under=("tests/",)) == []


def test_no_test_is_skipped() -> None:
    """A tier without its server fails; what a platform cannot have is deselected by name."""
    assert lines_with(r"pytest\.(skip|importorskip)|mark\.(skip|xfail)", under=("tests/",)) == []


def test_nothing_is_left_for_later() -> None:
    """What is not done is not hidden in a comment."""
    assert lines_with(r"TO[D]O|FIX[M]E|NotImplemented[E]rror") == []


def test_the_lock_files_hold_no_address() -> None:
    """A lock says what is installed, by hash, not where one machine fetched it."""
    with_address = [
        name
        for name in project_files()
        if re.fullmatch(r"requirements.*\.txt", name) and "://" in (ROOT / name).read_text()
    ]
    assert with_address == []

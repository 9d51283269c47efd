"""Examples in Markdown: the fenced blocks of a page, and running them in its order."""

import doctest
import io
import re
import shlex
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner

from tunelater.cli import app
from tunelater.problems import DoubtfulInputWarning

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r"(?:^<!-- (?:not run: (?P<reason>.+?)|exit code (?P<code>\d+)) -->\n)?"
    r"^```(?P<language>python|console)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of a page: Python, or commands of the command line."""

    language: str
    text: str
    line: int
    reason: str | None
    """Why it is not run, as the comment `<!-- not run: ... -->` before it says."""
    exit_code: int
    """Of its last command: 0, or what the comment `<!-- exit code N -->` before it says."""


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            found["text"],
            text.count("\n", 0, found.start("text")) + 1,
            found["reason"],
            int(found["code"] or 0),
        )
        for found in FENCE.finditer(text)
    ]


@dataclass
class Reader:
    """Somebody who does what a page says, in the current folder, from its top to its bottom.

    A fit that another page has had done, by the same command on the same files, is copied instead of repeated.
    """

    fits: dict[tuple[str, ...], Path] = field(default_factory=dict)
    namespace: dict[str, object] = field(default_factory=lambda: {"__name__": "page"})

    def run(self, block: Block, page: Path) -> None:
        where = f"{page.name}, line {block.line}"
        if block.language == "console":
            self._commands(block, where)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DoubtfulInputWarning)  # what the page's data are warned of
            if block.text.startswith(">>>"):
                self._doctest(block.text, where)
            else:
                exec(compile("\n" * block.line + block.text, str(page), "exec"), self.namespace)

    def _doctest(self, text: str, where: str) -> None:
        test = doctest.DocTestParser().get_doctest(text, self.namespace, where, None, 0)
        told = io.StringIO()
        failed = doctest.DocTestRunner(verbose=False).run(test, out=told.write, clear_globs=False).failed
        self.namespace.update(test.globs)
        assert not failed, told.getvalue()

    def _commands(self, block: Block, where: str) -> None:
        commands = [shlex.split(line, comments=True) for line in block.text.replace("\\\n", " ").splitlines()]
        commands = [command for command in commands if command]
        for i, (program, *arguments) in enumerate(commands):
            assert program == "tunelater", f"{where}: {program} is not run here: mark the block with a reason"
            expected = block.exit_code if i == len(commands) - 1 else 0
            if not (arguments[0] == "fit" and expected == 0 and self._fitted_before(arguments)):
                result = CliRunner().invoke(app, arguments)
                assert result.exit_code == expected, f"{where}: {result.exit_code}\n{result.output}"
                if arguments[0] == "fit" and expected == 0:
                    self._keep(arguments)

    def _fitted_before(self, arguments: list[str]) -> bool:
        known = self.fits.get(self._key(arguments))
        if known is not None:
            shutil.copytree(known, arguments[arguments.index("--out") + 1])
        return known is not None

    def _keep(self, arguments: list[str]) -> None:
        self.fits[self._key(arguments)] = Path(arguments[arguments.index("--out") + 1]).resolve()

    @staticmethod
    def _key(arguments: list[str]) -> tuple[str, ...]:
        data = Path(arguments[1])
        files = sorted(data.rglob("*")) if data.is_dir() else [data]
        return (*arguments, *(f"{file}: {hash(file.read_bytes())}" for file in files if file.is_file()))

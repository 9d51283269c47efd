"""The site (`make docs`): the pages of this folder, pages of the repository, and the reference from docstrings.

What Sphinx writes needs no network: no fonts, scripts or formulas from elsewhere. Warnings are errors, so a page that
no table of contents names, or a link that leads nowhere, stops the build.
"""

from __future__ import annotations

import inspect
import re
import runpy
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pygments.lexers.shell import BashLexer
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

import tunelater
from tunelater import look
from tunelater.cli import app as command_line

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SCHEMAS = ROOT / "src" / "tunelater" / "schemas"
"""Of what the library writes for other programs; they are on the site as they are in the package."""
EXAMPLE = ROOT / "benchmarks" / "page.py"
"""Writes a page to choose on, of made-up scores: what links to it leads to that page on the site."""

project = "tunelater"
release = version = tunelater.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["results"]  # figures and numbers that pages show
# Python's search for a name that several classes have says so, and links none of them: harmless in a list of arguments.
suppress_warnings = ["ref.python"]
default_role = "py:obj"
smartquotes = False  # they make a dash of --option

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_typehints_format = "short"
# What optional packages would give is stood in for where they are not installed.
autodoc_mock_imports = [name for name in ("mlflow", "ray", "transformers", "wandb") if find_spec(name) is None]
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "pydata_sphinx_theme"
html_title = "tunelater"
html_static_path = ["_static"]
html_css_files = ["look.css", "site.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options: dict[str, Any] = {
    "logo": {"text": "tunelater"},
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {page: [] for page in ("index", "alternatives")}

# --- Pages that lie elsewhere in the repository, and links that leave this folder

BORROWED = {
    "repository/benchmarks": "benchmarks/README.md",
    "repository/contributing": "CONTRIBUTING.md",
    "repository/changelog": "CHANGELOG.md",
    "repository/study-tables": "docs/results/study/tables",
}
MARKUP = re.compile(
    r"^(?P<fence>`{3,}).*?^(?P=fence)$"  # neither in a block of code
    r"|(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)"
    r"|`[^`\n]+`",  # nor in code
    re.MULTILINE | re.DOTALL,
)


def rewritten(text: str, source: str) -> str:
    """Markdown of the repository's file `source` as a page of the site: links that hold there become links that hold
    here. What is in the repository but not on the site keeps its words and loses its link.
    """
    pages = {path: name for name, path in BORROWED.items()} | {"README.md": "index"}
    folder = Path(ROOT, source).parent
    page = pages.get(source, source.removeprefix("docs/"))

    def moved(found: re.Match[str]) -> str:
        target, _, anchor = (found["target"] or "").partition("#")
        if not target or re.match(r"\w+:", target):
            return found[0]
        path = folder.joinpath(target).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            return found[0]  # Sphinx tells it
        inside = path.relative_to(ROOT).as_posix()
        if inside in pages:
            place = f"/{pages[inside]}.md"
        elif path.is_file() and path.is_relative_to(DOCS) and (found["image"] or path.suffix in (".md", ".rst")):
            place = f"/{path.relative_to(DOCS).as_posix()}"
        elif path.parent == SCHEMAS or path == EXAMPLE:
            published = f"{SCHEMAS.name}/{path.name}" if path.parent == SCHEMAS else "example-report.html"
            return f'<a href="{"../" * page.count("/")}{published}">{found["text"]}</a>'
        else:
            return found["text"]
        return f"{found['image']}[{found['text']}]({place}{'#' + anchor if anchor else ''})"

    return MARKUP.sub(moved, text)


NO_GUIDES = {"index", "alternatives", "citing", "study"}


def with_all_guides(text: str) -> str:
    """The list of guides, with the pages of this folder that it does not name at its end: a new page is a guide."""
    new = sorted(page.stem for page in DOCS.glob("*.md") if f"../{page.stem}\n" not in text)
    head, fence, tail = text.rpartition("```")
    return head + "".join(f"../{name}\n" for name in new if name not in NO_GUIDES) + fence + tail


def source_read(app: Sphinx, page: str, source: list[str]) -> None:
    path = Path(app.env.doc2path(page))
    if path.suffix == ".md":
        source[0] = rewritten(source[0], BORROWED.get(page, path.relative_to(ROOT).as_posix()))
    if page == "guides/index":
        source[0] = with_all_guides(source[0])


# --- The reference: README's map of the code says which modules there are, in which order, and what is in them

ROW = re.compile(r"^\| (?P<names>`[^|]*`) \| (?P<told>.*) \|$", re.MULTILINE)


def modules() -> Iterator[tuple[list[str], str]]:
    """The modules of each row of the map, as dotted names, and what it says of them; those of a folder one by one.

    What the map leaves out comes last.
    """
    source = Path(tunelater.__file__).parent
    left = {".".join(path.relative_to(source.parent).with_suffix("").parts) for path in source.rglob("[!_]*.py")}
    for row in ROW.finditer((ROOT / "README.md").read_text(encoding="utf-8")):
        folder = re.fullmatch(r"`(\w+)/`", row["names"])
        entries = row["told"].split("; ") if folder else [f"{row['names']}: {row['told']}"]
        for entry in entries:
            names, _, told = entry.partition(": ")
            package = f"tunelater.{folder[1]}" if folder else "tunelater"
            if found := [f"{package}.{name}" for name in re.findall(r"`(\w+)\.py`", names)]:
                left -= set(found)
                yield found, told
    yield from (([name], "") for name in sorted(left))


def generated() -> dict[str, str]:
    """Pages by name, with the ending of their file."""
    homes = {name: f"tunelater.{home}" for name, home in tunelater._HOMES.items()}
    pages = {f"{page}.md": text_of(ROOT / path) for page, path in BORROWED.items()}
    public = [f"{title('Public names', '=')}\n.. py:module:: tunelater\n\n{inspect.getdoc(tunelater)}\n"]
    for name in tunelater.__all__:
        kind = "class" if inspect.isclass(getattr(tunelater, name)) else "function"
        public.append(f"{title(name)}\n.. auto{kind}:: tunelater.{name}\n")
    pages["reference/public.rst"] = "\n".join(public)
    pages["reference/command-line.md"] = told_commands()
    rows, entries = [], []
    for names, told in modules():
        for name in names:
            here = [public for public, home in homes.items() if home == name]
            seen = f"Public names: {', '.join(f':py:obj:`tunelater.{n}`' for n in here)}.\n\n" if here else ""
            left_out = f"   :exclude-members: {', '.join(here)}\n" if here else ""
            pages[f"reference/{name}.rst"] = f"{title(name, '=')}\n{seen}.. automodule:: {name}\n{left_out}"
            entries.append(name)
        links = ", ".join(f"[`{name.removeprefix('tunelater.')}`]({name}.rst)" for name in names)
        rows.append(f"| {links} | {told} |")
    listed = "\n".join(["public", "command-line", *(f"{name.removeprefix('tunelater.')} <{name}>" for name in entries)])
    pages["_static/look.css"] = look_of_site()
    pages["reference/index.md"] = REFERENCE.format(rows="\n".join(rows), listed=listed)
    return pages


REFERENCE = """# Reference

[Public names](public.rst) are what `import tunelater` offers; [the command line](command-line.md) does the same from
a shell. Read the modules in this order: losses → distributions → film → training → scoring → needs → tuning.

| module | what is in it |
|---|---|
{rows}

```{{toctree}}
:hidden:

{listed}
```
"""


COMMANDS = """# Command line

{help}

`tunelater COMMAND --help` tells the same. Exit codes: 0 done; 2 something is wrong with the input, and nothing was
written; others where a command says so.
"""


def title(text: str, line: str = "-") -> str:
    return f"{text}\n{line * len(text)}\n"


def told_commands() -> str:
    """Every command with its arguments and options, as its help has them."""
    group: Any = typer.main.get_command(command_line)
    parts = [COMMANDS.format(help=group.help)]
    for name, command in group.commands.items():
        parts.append(f"## {name}\n\n{inspect.cleandoc(command.help)}\n\n| argument, option | |\n|---|---|")
        for option in command.params:
            names = [*option.opts, *option.secondary_opts] if option.opts[0].startswith("-") else []
            metavar = option.metavar if option.metavar or names else option.name.upper()
            told = ", ".join(f"`{n}`" for n in names) + (f" `{metavar}`" if metavar else "")
            value = option.default
            shown = getattr(option, "show_default", False) and value not in (None, False, (), [])
            default = f" Default: `{value}`." if shown and not callable(value) and value is not ... else ""
            cells = (told.strip().replace("|", "\\|"), ((option.help or "") + default).replace("|", "\\|"))
            parts.append(f"| {cells[0]} | {cells[1]} |")
        parts.append("")
    return "\n".join(parts)


def text_of(path: Path) -> str:
    """A Markdown file; or the tables of a folder, one below the other."""
    if path.is_file():
        return path.read_text(encoding="utf-8")
    tables = [f"## {p.stem}\n\n{p.read_text(encoding='utf-8')}" for p in sorted(path.glob("*.md"))]
    return "\n\n".join(["# The study's tables", *tables])


def write_generated(app: Sphinx) -> None:
    """Write what is generated, where it differs, so that a second build reads only what has changed."""
    for page, text in generated().items():
        path = DOCS / page
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def look_of_site() -> str:
    """CSS that gives the theme the colours and the typeface of all that tunelater draws."""
    typeface = ", ".join(f'"{name}"' if " " in name else name for name in look.TYPEFACE)
    names = {"primary": "accent", "link": "accent", "text-base": "ink", "text-muted": "muted", "background": "ground"}
    rules = [f"html {{ --pst-font-family-base: {typeface}; --pst-font-family-heading: {typeface}; }}"]
    for scheme, palette in (("light", look.LIGHT), ("dark", look.DARK)):
        told = " ".join(f"--pst-color-{name}: {palette[of]};" for name, of in names.items())
        rules.append(f'html[data-theme="{scheme}"] {{ {told} }}')
    return "\n".join(rules) + "\n"


# --- Docstrings are prose with `code`, not reStructuredText


def as_restructured(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape what only reStructuredText takes for markup (`n_-`, `|x|`, `a * b`), and make fences literal blocks."""
    out: list[str] = []
    fenced = False
    for line in lines:
        if line.strip().startswith("```"):
            out += ["" if fenced else "::", ""]
            fenced = not fenced
        elif fenced:
            out.append("    " + line)
        elif line.lstrip().startswith((">>>", "...")):
            out.append(line)
        else:
            out.append(escaped(line))
    lines[:] = out


def escaped(line: str) -> str:
    bullet = re.match(r"\s*\* |", line)
    assert bullet is not None
    parts = re.split(r"(`[^`]*`)", line[bullet.end() :])
    for i in range(0, len(parts), 2):  # what is not code
        parts[i] = re.sub(r"(?<=\w)_(?!\w)|[|*]", r"\\\g<0>", parts[i])
        if i and parts[i][:1].isalnum():
            parts[i] = "\\ " + parts[i]  # code ends where a word does: `Scores`s
    return bullet[0] + "".join(parts)


def skip_what_is_of_no_use(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Methods that another library's base class makes, with docstrings for its own site; checks that modules share."""
    foreign = inspect.isfunction(thing) and not thing.__module__.startswith("tunelater")
    return True if foreign or name.startswith("problems_of") else None


def linked_by_last_name(app: Sphinx, env: BuildEnvironment, node: Any, content: nodes.Node) -> nodes.Node | None:
    """A name in a docstring (`Scores`, `OperatingGrid.select`) leads to the one object whose full name ends in it."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not (target[:1].isupper() or "." in target):
        return None
    domain: Any = env.domains["py"]
    found = [name for name in domain.objects if name.endswith("." + target)]
    if len(found) != 1:
        return None
    entry = domain.objects[found[0]]
    uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
    return nodes.reference("", "", content.deepcopy(), internal=True, refuri=f"{uri}#{entry.node_id}")


# --- Schemas, for programs to load; a page to choose on, to try


def publish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        shutil.copytree(SCHEMAS, Path(app.outdir, SCHEMAS.name), dirs_exist_ok=True)
        html = runpy.run_path(str(EXAMPLE))["made_up"](rows=4_000, positives=160, side=10)
        Path(app.outdir, "example-report.html").write_text(html, encoding="utf-8")


# --- No page asks another server for anything


def check_that_nothing_is_loaded_from_elsewhere(app: Sphinx, error: Exception | None) -> None:
    elsewhere = re.compile(r"""(?:src=|<link[^>]*href=|@import\s*|url\()["']?(?:https?:)?//[^"')>]+""")
    if error is None and app.builder.format == "html":
        for path in sorted(Path(app.outdir).rglob("*")):
            if path.suffix in (".html", ".css") and (found := elsewhere.search(path.read_text(encoding="utf-8"))):
                raise ExtensionError(f"{path.relative_to(app.outdir)} loads from another server: {found[0]}")


# --- Formulas as MathML, which browsers draw themselves


def visit_math(self: Any, node: nodes.Element) -> None:
    block = isinstance(node, nodes.math_block)
    self.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.add_lexer("console", BashLexer)
    app.connect("builder-inited", write_generated)
    app.connect("source-read", source_read)
    app.connect("env-get-outdated", lambda *_: ["guides/index"])  # a page may be new
    app.connect("autodoc-process-docstring", as_restructured, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_what_is_of_no_use)
    app.connect("missing-reference", linked_by_last_name)
    app.connect("build-finished", publish)
    app.connect("build-finished", check_that_nothing_is_loaded_from_elsewhere)

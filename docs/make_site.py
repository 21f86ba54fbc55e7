"""What the documentation site has beside docs/*.md, as a hook of MkDocs (mkdocs.yml).

README.md is its first page. Whatever a page links to outside docs/ comes along: results, figures, and notebooks, which
become pages. The pages of commands and of public names are made from the program.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

import roadmap
from roadmap.cli.main import cli

PROJECT = Path(__file__).parents[1]
#: Classes that public functions return, or hand over.
RETURNED = (
    "roadmap.results.study.Study",
    "roadmap.explaining.explanation.Explanation",
    "roadmap.ladders.ladder.Ladder",
    "roadmap.network.layers.Site",
)
#: A link to a file, and where its target begins.
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")
#: Something that a browser would fetch from another host.
FETCHED = re.compile(r"""<(?:script|img|iframe|link rel="stylesheet")[^>]*(?:src|href)="?(?:https?:)?//[^>]*>""")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of commands into the navigation."""
    (reference,) = (part["Reference"] for part in config.nav or [] if "Reference" in part)
    reference.insert(0, {"Command line": ["commands/index.md", *(f"commands/{name}.md" for name in cli.commands)]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all pages, and what they link to."""
    pages = {f"commands/{name}.md": command_page(f"roadmap {name}", command) for name, command in cli.commands.items()}
    pages |= {"commands/index.md": command_page("roadmap", cli), "python.md": python_page()}
    waiting = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    waiting += [PROJECT / "docs" / page.src_uri for page in files.documentation_pages()]
    known = set(waiting)
    for source in waiting:  # grows while it is gone through
        if source.suffix in (".md", ".ipynb"):
            text, outputs = as_markdown(source)
            pages[place(source)] = moved(text, source)
            new = linked(text, source) - known
            waiting += sorted(new)
            known |= new
            for name, content in outputs.items():
                files.append(File.generated(config, str(PurePosixPath(place(source)).parent / name), content=content))
        elif PROJECT / "docs" not in source.parents:
            files.append(File.generated(config, place(source), abs_src_path=str(source)))
    for uri, text in pages.items():
        if (old := files.get_file_from_path(uri)) is not None:
            files.remove(old)
        files.append(File.generated(config, uri, content=text))
    return files


def on_post_page(output: str, page: Any, config: MkDocsConfig) -> str:
    """Refuse a page that would fetch anything from another host."""
    if (found := FETCHED.search(output)) is not None:
        raise PluginError(f"{page.file.src_uri} fetches from another host: {found[0]}")
    return output


# --- pages of the repository


def place(source: Path) -> str:
    """Where the site has a file of the repository."""
    path = source.relative_to(PROJECT)
    path = path.relative_to("docs") if path.parts[0] == "docs" else path
    if path.suffix == ".ipynb":
        path = path.with_suffix(".md")
    return "index.md" if str(path) == "README.md" else path.as_posix()


def linked(text: str, source: Path) -> set[Path]:
    """Files of the repository that a page links to."""
    targets = {Path(os.path.normpath(source.parent / link)) for link in LINK.findall(text)}
    return {target for target in targets if target.is_file()}


def moved(text: str, source: Path) -> str:
    """A page as the site has it: its links from its place there, and Markdown within <details>."""
    here = PurePosixPath(place(source)).parent

    def link(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / found[0]))
        return os.path.relpath(place(target), here) if target.is_file() else found[0]

    return re.sub(r"^<details><summary>", "<details markdown><summary markdown>", LINK.sub(link, text), flags=re.M)


def as_markdown(source: Path) -> tuple[str, dict[str, bytes]]:
    """A page or a notebook, and the pictures in its outputs."""
    if source.suffix == ".md":
        return source.read_text(encoding="utf-8"), {}
    names = {"unique_key": source.stem, "output_files_dir": "."}
    text, resources = MarkdownExporter().from_filename(str(source), resources=names)
    return text, {os.path.normpath(name): content for name, content in resources["outputs"].items()}


# --- pages of the program


class Markdown(click.HelpFormatter):
    """A command's help as Markdown: options are definitions, in the sections that the terminal has."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        self.write(f"# {prog}\n\n```text\n{prog} {args}\n```\n\n")

    def write_heading(self, heading: str) -> None:
        self.write(f"## {heading}\n\n")

    def write_text(self, text: str) -> None:
        for paragraph in text.split("\n\n"):
            kept = paragraph.startswith("\b\n")
            self.write(f"```text\n{paragraph[2:]}\n```\n\n" if kept else f"{paragraph}\n\n")

    def write_dl(self, rows: Any, *_: Any, **__: Any) -> None:
        for name, text in rows:
            if not text:  # an argument
                continue
            link = f"[`{name}`]({name}.md)" if name in cli.commands else f"`{name}`"
            self.write(f"{link}\n:   {text}\n\n")


def command_page(name: str, command: click.Command) -> str:
    """The help of a command."""
    formatter = Markdown()
    command.format_help(click.Context(command, info_name=name, **command.context_settings), formatter)
    return formatter.getvalue()


def python_page() -> str:
    """The public names of `roadmap`, and the classes of what they return."""
    names = [f"::: {roadmap._HOMES[name]}.{name}" for name in roadmap.__all__]
    returned = [f"::: {name}\n    options: {{heading_level: 3}}" for name in RETURNED]
    head = "# Python\n\n`import roadmap` has these names; torch is imported when one that needs it is used."
    timm = "::: roadmap.timm\n    options: {members: false, heading_level: 3}"
    return "\n\n".join([head, *names, "## Classes of results", *returned, "## With timm", timm])

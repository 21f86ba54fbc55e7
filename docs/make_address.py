"""Writes the project's address, `Repository` of pyproject.toml, wherever pages and notebooks have to repeat it.

python docs/make_address.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def addressed(project: Path = PROJECT) -> Iterator[tuple[Path, str]]:
    """Files that repeat the address, with their text as it must be.

    The one that they have now is that of the badge in README.md.
    """
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    (wanted,) = re.findall(r'^Repository = "https://github\.com/([^/"]+/[^/"]+)"$', text, re.M)
    badge = r"colab\.research\.google\.com/github/([^/]+/[^/]+)/blob"
    (known,) = set(re.findall(badge, (project / "README.md").read_text(encoding="utf-8")))
    for path in (project / "pyproject.toml", project / "README.md", *sorted((project / "notebooks").glob("*.ipynb"))):
        before = path.read_text(encoding="utf-8")
        yield path, re.sub(rf"(github(?:\.com)?)/{re.escape(known)}(?![\w.-])", rf"\1/{wanted}", before)


if __name__ == "__main__":
    for place, content in [*addressed()]:
        if content != place.read_text(encoding="utf-8"):
            place.write_text(content, encoding="utf-8")
            print(place.relative_to(PROJECT))

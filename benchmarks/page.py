"""A page of tables and plots: printed, and written as Markdown for the documentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Table:
    """Rows under columns; all but the first are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown has it."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def text(self) -> str:
        """As a terminal has it."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if at == 0 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


@dataclass(frozen=True)
class Plot:
    """A drawing that stands beside the page."""

    file: str
    says: str

    def markdown(self) -> str:
        """As Markdown has it."""
        return f"![{self.says}]({self.file})"

    def text(self) -> str:
        """Nothing: a terminal has no pictures."""
        return ""


@dataclass(frozen=True)
class Printed:
    """What another benchmark has printed, as it is."""

    output: str

    def markdown(self) -> str:
        """As Markdown has it."""
        return f"```text\n{self.output.rstrip()}\n```"

    def text(self) -> str:
        """As it is."""
        return self.output


@dataclass
class Section:
    """A part of the page.

    Args:
        title: Its heading.
        words: What stands above its tables.
        parts: Its tables and plots.
        when: When it was measured, and on how busy a machine, if it was by itself.
    """

    title: str
    words: str
    parts: list[Table | Plot | Printed] = field(default_factory=list)
    when: str = ""

    def markdown(self) -> str:
        """As Markdown has it."""
        return "\n\n".join(
            [
                f"## {self.title}",
                f"{self.words.strip()}\n{self.when}".strip(),
                *(part.markdown() for part in self.parts),
            ]
        )

    def show(self) -> None:
        """Print it."""
        print(f"\n== {self.title} ==")
        for part in self.parts:
            if part.text():
                print(f"\n{part.text()}")


def write(path: Path, head: str, sections: Sequence[Section]) -> None:
    """Write the page."""
    text = "\n\n".join([head.strip(), *(section.markdown() for section in sections)])
    path.write_text(f"{text}\n", encoding="utf-8")


def rewrite(path: Path, sections: Sequence[Section]) -> None:
    """Write some sections of a page anew, where they were."""
    head, *old = path.read_text(encoding="utf-8").rstrip().split("\n\n## ")
    new = {section.title: section.markdown().removeprefix("## ") for section in sections}
    kept = [new.pop(one.partition("\n")[0], one) for one in old]
    path.write_text("\n\n## ".join([head, *kept, *new.values()]) + "\n", encoding="utf-8")

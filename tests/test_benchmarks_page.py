"""The page of benchmarks: a section that is measured again stands where it stood, and the others stay."""

from pathlib import Path

from benchmarks.page import Printed, Section, rewrite, write


def test_a_section_is_measured_again_by_itself(tmp_path: Path) -> None:
    """Minutes of measuring would be lost, or another section with them."""
    page = tmp_path / "page.md"
    sections = [Section(name, f"About {name}.", [Printed(f"{name} 1\n")]) for name in ("one", "two", "three")]
    write(page, "# Page", sections)
    before = page.read_text("utf-8")
    rewrite(page, [Section("two", "About two.", [Printed("two 2\n")], when="(Measured today.)")])
    after = page.read_text("utf-8")
    assert after == before.replace("About two.", "About two.\n(Measured today.)").replace("two 1", "two 2")

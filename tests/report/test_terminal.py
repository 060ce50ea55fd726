"""The board as text."""

from boards import Fleet, incident

from snapvault.report.terminal import draw


def test_the_incident() -> None:
    lines = draw(incident(60, 20, 17, 3).board(), 80)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert lines[0].startswith("3 of 60 can be brought back within their objectives; 40 never backed up")
    for step, number in (("declared", 60), ("backed up", 20), ("replicated", 0), ("intact", 17), ("alive", 3)):
        assert any(line.split("  ")[0].startswith(step) and f" {number} " in f"{line} " for line in lines), (step, text)
    assert "✗" * 57 + "!!!" in lines
    assert "snapvault backup --all --dataset archive-" in text
    assert "unanswered since 2026-04-02" in text.replace("\n  ", " ")


def test_ten_are_told_and_the_rest_counted() -> None:
    lines = draw(incident(60, 20, 17, 3).board(), 80)
    assert sum(line.startswith("  next: ") for line in lines) == 10
    assert "... and 50 more (--json and --html list them all)" in lines


def test_nothing_to_do() -> None:
    fleet = Fleet()
    fleet.attest("second", [fleet.thrive("orders")])
    text = "\n".join(draw(fleet.board(), 80))
    assert text.startswith("1 of 1 can be brought back within their objectives.\n")
    assert "next:" not in text


def test_what_it_rests_on_is_damaged() -> None:
    fleet = Fleet()
    fleet.declare("orders")
    fleet.back_up("strays")
    text = "\n".join(draw(fleet.board("evidence/00 is missing", conflicts=("revisions 1 and 2 differ",)), 80))
    assert "damaged: evidence/00 is missing" in text
    assert "revisions 1 and 2 differ" in text
    assert "1 dataset backed up, and declared nowhere" in text

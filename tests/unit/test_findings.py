"""What an audit says of what it found: every breach counts, and not all of them are shown."""

import json

from app.persistence.verifying.findings import BREACHES_KEPT, Breach, Findings, Report


def findings(breaches: int) -> Findings:
    found = Findings("BTC-USD", sequence=7, position=5, orders=2, digest="ab" * 32)
    for number in range(breaches):
        found.breach("book", f"thing {number}")
    return found


def test_without_a_breach_there_is_a_line_for_each_book_and_a_verdict() -> None:
    assert list(Report([findings(0), findings(0)]).lines()) == [
        f"BTC-USD sequence 7 position 5 orders 2 digest {'ab' * 32}",
        f"BTC-USD sequence 7 position 5 orders 2 digest {'ab' * 32}",
        "verified 2 instruments, 14 events: no breach",
    ]


def test_a_book_that_was_not_compared_has_no_digest() -> None:
    assert next(Findings("BTC-USD").lines()) == "BTC-USD sequence 0 position 0 orders 0 digest -"


def test_breaches_beyond_the_limit_are_counted() -> None:
    report = Report([findings(BREACHES_KEPT + 7)])
    _, *shown, more, verdict = report.lines()
    assert shown == [f"BTC-USD BREACH book: thing {n}" for n in range(BREACHES_KEPT)]
    assert more == "BTC-USD and 7 more breaches"
    assert verdict == f"verified 1 instruments, 7 events: {BREACHES_KEPT + 7} BREACHES"


def test_a_breach_of_no_single_instrument_counts_too() -> None:
    _, line, verdict = Report([findings(0)], [Breach("settlements", "odd")]).lines()
    assert line == "all BREACH settlements: odd"
    assert verdict == "verified 1 instruments, 7 events: 1 BREACHES"


def test_machines_are_told_the_same() -> None:
    document = json.loads(Report([findings(1)], [Breach("settlements", "odd")]).json())
    assert document["breaches_total"] == 2
    assert document["breaches"] == [{"code": "settlements", "detail": "odd"}]
    (book,) = document["instruments"]
    assert book["breaches"] == [{"code": "book", "detail": "thing 0"}]
    assert (book["sequence"], book["position"], book["orders"]) == (7, 5, 2)

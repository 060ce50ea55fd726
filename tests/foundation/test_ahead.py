"""Calls beside one another."""

import threading

import pytest

from snapvault.foundation.ahead import beside, both


def test_both_run_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=60)
    assert sorted(both(meeting.wait, meeting.wait)) == [0, 1]


def test_of_two_errors_the_first_is_told() -> None:
    with pytest.raises(KeyError):
        both(lambda: {}["no"], lambda: [][1])


def test_a_failure_beside_is_seen_before_the_body_ends() -> None:
    with pytest.raises(KeyError), beside(lambda: {}["no"]) as check:
        while True:
            check()


def test_a_failure_beside_is_told_at_the_end() -> None:
    with pytest.raises(KeyError), beside(lambda: {}["no"]):
        pass


def test_what_the_body_raises_comes_first() -> None:
    with pytest.raises(ValueError, match="body"), beside(lambda: {}["no"]):
        raise ValueError("body")

"""How the processes of a server ask each other, over a real pipe."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe

import pytest

from serve.errors import NoAnswerError
from serve.pipes import Asker, answer
from tests.serve.conftest import PATIENCE


def test_who_waits_for_another_question_has_the_whole_time_for_its_own() -> None:
    ours, theirs = Pipe()
    loading, loaded = threading.Event(), threading.Event()

    def load() -> str:
        loading.set()
        loaded.wait(PATIENCE)
        return "loaded"

    threading.Thread(target=answer, args=(theirs, {"load": load, "statistics": lambda: 7}), daemon=True).start()
    asker = Asker(ours)
    with ThreadPoolExecutor(2) as askers:
        first = askers.submit(asker.ask, "load", patience=PATIENCE)
        assert loading.wait(PATIENCE)
        second = askers.submit(asker.ask, "statistics", patience=0.5)
        assert not loaded.wait(1)  # longer than the second is patient
        loaded.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == ("loaded", 7)


@pytest.mark.timeout(60)
def test_a_process_that_does_not_read_is_asked_for_no_longer_than_one_is_patient() -> None:
    ours, theirs = Pipe()
    with theirs:
        asker = Asker(ours)
        for _ in range(2000):  # more than the pipe has room for
            with pytest.raises(NoAnswerError):
                asker.ask("statistics", patience=0)

"""Settings every test shares: no model hub, fixed seeds, and a line on how big the code is."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.pictured import Case, made

# Before anything imports huggingface_hub: a test that reaches for the hub fails at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# No test is timed: a busy machine is not a fault of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# Nothing looks for garbage while libraries are imported: all of it stays.
gc.disable()


def pytest_collection_finish() -> None:
    """The collector leaves alone what stands when the tests begin, torch and transformers for most
    of it: it looked through all of that again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # or libraries take what is left at the end for leaks


@pytest.fixture(autouse=True)
def _unheard() -> None:
    """pytest listens to what does not propagate. Of each size of a trace, torch would write there
    who asked for it, line by line: an eighth of what a trace takes."""
    records = logging.getLogger("torch.__trace")
    records.handlers.clear()
    records.propagate = True


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A model that sees pictures in tiles and writes, built to fp32."""
    return made("smolvlm", tmp_path_factory.mktemp("smolvlm"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from tests.sources import size_report

    terminalreporter.write_line(size_report())

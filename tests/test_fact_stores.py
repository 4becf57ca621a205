"""What every store promises, of each store that there is; and opening one by its URL."""

from __future__ import annotations

import subprocess
import sys

import pytest

from routilux.errors import DeclarationError, RoutiluxError
from routilux.store.memory import MemoryStore
from routilux.store.opening import open_store
from routilux.store.sqlite import SQLiteStore
from routilux.testing import StoreConformance


class TestMemoryStore(StoreConformance):
    def make_store(self):
        return MemoryStore()


class TestSQLiteStore(StoreConformance):
    synchronous = "FULL"

    @pytest.fixture(autouse=True)
    def _use_folder(self, tmp_path):
        self.path = tmp_path / "facts.db"

    def make_store(self):
        return SQLiteStore(self.path, synchronous=self.synchronous)

    def reopen(self, store):
        return self.make_store()


class TestSQLiteStoreThatDoesNotWaitForTheDisk(TestSQLiteStore):
    synchronous = "NORMAL"


# --- by its URL ---------------------------------------------------------------------------------------------------


def test_a_memory_store_is_opened_by_its_url():
    assert type(open_store("memory:")) is MemoryStore


def test_a_sqlite_store_is_opened_by_a_relative_or_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a%20store.db", f"sqlite:///{tmp_path}/absolute.db?synchronous=normal&busy_timeout=0.5"):
        store = open_store(url)
        assert type(store) is SQLiteStore
        store.close()
    assert {"a store.db", "absolute.db"} <= {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlit:///a.db", ["'sqlit:///a.db'", "did you mean 'sqlite'", "memory:"]),
        ("a.db", ["'a.db'", "memory:", "sqlite:///"]),
        ("", ["''", "memory:"]),
        (None, ["None", "memory:"]),
        ("memory:here", ["memory:here", "use 'memory:'"]),
        ("memory:?synchronous=FULL", ["'synchronous'", "no options"]),
        ("sqlite:a.db", ["sqlite:a.db", "sqlite:///relative.db"]),
        ("sqlite://a.db", ["sqlite://a.db", "sqlite:///relative.db"]),
        ("sqlite:///", ["sqlite:////absolute/path.db"]),
        ("sqlite:///:memory:", [":memory:", "use 'memory:'"]),
        ("sqlite:///a.db?synchronus=FULL", ["'synchronus'", "did you mean 'synchronous'", "busy_timeout"]),
        ("sqlite:///a.db?synchronous=OFF", ["'OFF'", "FULL, NORMAL"]),
        ("sqlite:///a.db?synchronous=", ["''", "FULL, NORMAL"]),
        ("sqlite:///a.db?synchronous", ["''", "FULL, NORMAL"]),
        ("sqlite:///a.db?busy_timeout=long", ["busy_timeout='long'", "number"]),
        ("sqlite:///a.db?busy_timeout=-1", ["busy_timeout=-1.0", "from 0 on"]),
        ("sqlite:///a.db?busy_timeout=nan", ["busy_timeout=nan", "from 0 on"]),
        ("sqlite:///a.db?busy_timeout=1&busy_timeout=2", ["'busy_timeout'", "twice"]),
    ],
)
def test_a_url_that_names_no_store_is_told_what_there_is(url, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeclarationError) as caught:
        open_store(url)
    assert [word for word in words if word not in str(caught.value)] == []
    assert isinstance(caught.value, RoutiluxError)
    assert list(tmp_path.iterdir()) == []


def test_sqlite3_and_pytest_are_not_imported_until_they_are_needed():
    code = (
        "import sys, routilux, routilux.testing, routilux.store.opening as opening; opening.open_store('memory:');"
        "print(sorted({'sqlite3', 'pytest'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "[]\n"

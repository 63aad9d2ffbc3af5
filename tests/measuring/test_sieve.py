"""What filters take is printed for each number of generations and of keys, with its share of the ceiling."""

import pytest
from bench import sieve


def test_each_case_has_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["bench.sieve", "--keys", "500"])
    sieve.main()
    filled, head, *lines = capsys.readouterr().out.splitlines()
    assert filled.startswith("filters of 500 keys, 1,280 bytes each")
    assert head.split()[0] == "generations"
    told = [line.split() for line in lines]
    asked = [(int(each[0]), int(each[3].replace(",", ""))) for each in told]
    assert asked == [(generations, keys) for generations in sieve.GENERATIONS for keys in sieve.AT_ONCE]
    assert [int(each[1]) for each in told[:: len(sieve.AT_ONCE)]] == [1, 1, 2, 6, 1], "shelves"
    assert all(float(each[4]) > 0 and each[5].endswith("%") for each in told)

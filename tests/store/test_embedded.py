"""The embedded PostgreSQL, with real processes: whoever is killed, the data stays and somebody tidies up."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tallystick.store import embedded_cluster, embedded_paths
from tallystick.store.embedded import (
    DEFAULT_SETTINGS,
    DataDirectoryInUse,
    Embedded,
    EmbeddedError,
    embedded_postgres,
    server_lock,
    shared_buffers,
)

USER = """
import sys
from pathlib import Path
from tallystick.store.embedded import embedded_postgres
with embedded_postgres(Path(sys.argv[1])) as postgres:
    print(postgres.pid(), postgres.conninfo, flush=True)
    sys.stdin.read()
"""
LOCKER = """
import sys
from pathlib import Path
from tallystick.store.embedded import server_lock
with server_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root lends PostgreSQL to another account")

Run = Callable[[str, Path], "subprocess.Popen[str]"]


@contextmanager
def a_room() -> Iterator[Path]:
    """A directory that `nobody` can walk through (pytest's own is private), empty of processes afterwards."""
    made = Path(tempfile.mkdtemp(prefix="tallystick-test-"))
    made.chmod(0o755)
    yield made
    for noted in made.glob("**/postmaster.pid"):
        pid, directory = noted.read_text().splitlines()[:2]
        if embedded_cluster.is_postmaster(int(pid), directory):
            os.kill(int(pid), signal.SIGQUIT)
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def room() -> Iterator[Path]:
    with a_room() as made:
        yield made


@pytest.fixture
def data_dir(room: Path) -> Path:
    """Not there yet."""
    return room / "data"


@pytest.fixture(scope="module")
def used_dir() -> Iterator[Path]:
    """One that has been used before, and is shared, to be spared the time of an initdb."""
    with a_room() as made:
        with embedded_postgres(made / "data"):
            pass
        yield made / "data"


@pytest.fixture
def run() -> Iterator[Run]:
    with ExitStack() as stack:

        def begin(code: str, data_dir: Path) -> subprocess.Popen[str]:
            child = subprocess.Popen(
                [sys.executable, "-c", code, str(data_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(child)
            stack.callback(child.kill)
            return child

        yield begin


def said(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def ask(conninfo: str, question: str) -> object:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        row = conn.execute(question.encode()).fetchone()
    return row and row[0]


def write(postgres: Embedded, word: str) -> None:
    with psycopg.connect(postgres.conninfo) as conn:
        conn.execute("DROP TABLE IF EXISTS kept")
        conn.execute("CREATE TABLE kept (word text)")
        conn.execute("INSERT INTO kept VALUES (%s)", (word,))


def words(postgres: Embedded) -> object:
    return ask(postgres.conninfo, "SELECT array_agg(word ORDER BY word) FROM kept")


def alive(pid: int) -> bool:
    """A zombie that nobody has waited for yet is not alive."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def pid_of(postgres: Embedded) -> int:
    pid = postgres.pid()
    assert pid is not None
    return pid


def test_an_empty_directory_becomes_a_database_that_keeps_its_data(data_dir: Path) -> None:
    with embedded_postgres(data_dir) as postgres:
        assert ask(postgres.conninfo, "SELECT current_database()") == "tallystick"
        assert ask(postgres.conninfo, "SHOW server_encoding") == "UTF8"
        assert ask(postgres.conninfo, "SHOW listen_addresses") == ""
        write(postgres, "one")
        first = pid_of(postgres)
        assert postgres.is_running()
    assert not alive(first)
    assert not postgres.is_running()

    with embedded_postgres(data_dir) as postgres:
        assert words(postgres) == ["one"]
        assert pid_of(postgres) != first


def test_settings_are_passed_on_and_a_wrong_one_is_reported_in_its_own_words(used_dir: Path) -> None:
    with embedded_postgres(used_dir, settings={"work_mem": "7MB"}) as postgres:
        assert ask(postgres.conninfo, "SHOW work_mem") == "7MB"
    with (
        pytest.raises(EmbeddedError, match="no_such_setting"),
        embedded_postgres(used_dir, settings={"no_such_setting": "1"}),
    ):
        pass


def test_a_stale_number_that_now_belongs_to_somebody_else_is_no_server(used_dir: Path) -> None:
    with embedded_postgres(used_dir) as postgres:
        write(postgres, "one")
        pidfile = postgres.home / "cluster" / "postmaster.pid"
        noted = pidfile.read_text().splitlines()
    for stranger in (os.getpid(), 1):
        pidfile.write_text("\n".join([str(stranger), *noted[1:]]) + "\n")
        pidfile.chmod(0o600)
        assert not postgres.is_running()
        with embedded_postgres(used_dir) as again:
            assert pid_of(again) != stranger
            assert words(again) == ["one"]


def test_a_killed_postgres_is_brought_back_at_the_same_address(used_dir: Path) -> None:
    with embedded_postgres(used_dir) as postgres:
        write(postgres, "one")
        address = postgres.conninfo
        os.kill(pid_of(postgres), signal.SIGKILL)
        while postgres.is_running():
            time.sleep(0.005)
        postgres.restart()
        second = pid_of(postgres)
        assert (postgres.conninfo, words(postgres)) == (address, ["one"])
        postgres.restart()  # it runs: nothing happens
        assert pid_of(postgres) == second
        os.kill(second, signal.SIGKILL)  # and now we leave without it
    with embedded_postgres(used_dir) as postgres:
        assert words(postgres) == ["one"]
    postgres.restart()  # we have left: nothing happens
    assert not postgres.is_running()


def test_a_busy_child_of_a_killed_postgres_is_ended_before_the_next_start(used_dir: Path) -> None:
    with embedded_postgres(used_dir) as postgres, closing(psycopg.connect(postgres.conninfo)) as conn:
        conn.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")  # never looks up
        child = conn.info.backend_pid
        os.kill(pid_of(postgres), signal.SIGKILL)
        postgres.restart()  # at once, while it is dying
        assert not alive(child)
        assert ask(postgres.conninfo, "SELECT 1") == 1


def test_a_server_whose_owner_was_killed_is_adopted_and_then_stopped(used_dir: Path, run: Run) -> None:
    owner = run(USER, used_dir)
    pid = int(said(owner).split()[0])
    owner.kill()
    owner.wait()
    assert alive(pid)
    with embedded_postgres(used_dir) as postgres:
        assert pid_of(postgres) == pid
        assert ask(postgres.conninfo, "SELECT 1") == 1
    assert not alive(pid)


def test_the_last_one_out_stops_it(used_dir: Path, run: Run) -> None:
    with ExitStack() as first_to_leave:
        first = first_to_leave.enter_context(embedded_postgres(used_dir))
        pid, second = pid_of(first), run(USER, used_dir)
        assert said(second) == f"{pid} {first.conninfo}"
    assert alive(pid)
    assert ask(first.conninfo, "SELECT 1") == 1
    second.communicate("")
    assert not alive(pid)


def test_two_processes_that_begin_at_once_share_one_server(data_dir: Path, run: Run) -> None:
    both = [run(USER, data_dir), run(USER, data_dir)]
    answers = {said(child) for child in both}
    assert len(answers) == 1
    pid, _, address = answers.pop().partition(" ")
    assert ask(address, "SELECT 1") == 1
    for child in both:
        child.communicate("")
    assert not alive(int(pid))
    assert [path.name for path in (data_dir / "postgres").glob("initdb-*")] == []


def test_an_interrupted_initdb_is_done_again(data_dir: Path, run: Run) -> None:
    half = run(USER, data_dir)
    while not list(data_dir.glob("postgres/initdb-*/base")):
        time.sleep(0.005)
    half.kill()
    half.wait()
    assert not (data_dir / "postgres" / "cluster").exists()
    with embedded_postgres(data_dir) as postgres:
        assert ask(postgres.conninfo, "SELECT 1") == 1


def test_a_lost_socket_directory_is_made_again(used_dir: Path, run: Run) -> None:
    owner = run(USER, used_dir)
    pid, _, address = said(owner).partition(" ")
    owner.kill()
    owner.wait()
    shutil.rmtree(str(psycopg.conninfo.conninfo_to_dict(address)["host"]))
    with embedded_postgres(used_dir) as postgres:
        assert ask(postgres.conninfo, "SELECT 1") == 1
        assert pid_of(postgres) != int(pid)


def test_a_second_server_is_told_who_the_first_is(data_dir: Path, run: Run) -> None:
    first = run(LOCKER, data_dir)
    assert said(first) == "locked"
    with pytest.raises(DataDirectoryInUse, match=rf"process {first.pid}\b"), server_lock(data_dir):
        pass
    first.kill()
    first.wait()
    with server_lock(data_dir):
        pass


def test_a_very_long_path_is_no_obstacle(room: Path) -> None:
    with embedded_postgres(room.joinpath(*["a-rather-long-name" * 4] * 3)) as postgres:
        assert ask(postgres.conninfo, "SELECT 1") == 1


def test_data_of_another_major_version_is_refused_with_the_way_out(used_dir: Path) -> None:
    with embedded_postgres(used_dir) as postgres:
        made_by = postgres.home / "cluster" / "PG_VERSION"
    ours = made_by.read_text()
    made_by.write_text("9\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 9.*dump"), embedded_postgres(used_dir):
        pass
    made_by.write_text(ours)


def test_a_place_that_cannot_be_a_directory_is_named(room: Path) -> None:
    (room / "file").write_text("")
    with (
        pytest.raises(EmbeddedError, match="file/data cannot be made"),
        embedded_postgres(room / "file/data"),
    ):
        pass


@as_root
def test_root_finds_a_place_for_what_nobody_can_reach(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    real = embedded_paths.binaries_for(embedded_paths.account_for(room)).parents[1]
    for name in (real.name, f"{real.name}.libs"):
        with suppress(FileNotFoundError):
            shutil.copytree(real.parent / name, closed / "site" / name)
    monkeypatch.syspath_prepend(str(closed / "site"))
    monkeypatch.setattr(embedded_paths, "OUTSIDE", room / "outside")
    before = closed.stat().st_mode, tmp_path.stat().st_mode

    with embedded_postgres(closed / "data") as postgres:
        write(postgres, "one")
        assert postgres.home.parent == room / "outside"
        assert (closed / "data" / "postgres").readlink() == postgres.home
        assert Path(f"/proc/{postgres.pid()}/exe").readlink().is_relative_to(room / "outside")
    with embedded_postgres(closed / "data") as postgres:
        assert words(postgres) == ["one"]
    assert (closed.stat().st_mode, tmp_path.stat().st_mode) == before

    shutil.rmtree(closed / "data")  # deleted means deleted
    with embedded_postgres(closed / "data") as fresh:
        assert fresh.home != postgres.home
        assert ask(fresh.conninfo, "SELECT to_regclass('kept')") is None


@as_root
def test_strangers_who_are_nobody_too_are_not_let_in(used_dir: Path) -> None:
    with embedded_postgres(used_dir) as postgres:
        account = embedded_paths.account_for(used_dir)
        psql = [str(embedded_paths.binaries_for(account) / "psql"), postgres.conninfo, "-c", "SELECT 1"]
        stranger = subprocess.run(psql, stderr=subprocess.PIPE, text=True, check=False, **account.popen())
    assert "Peer authentication failed" in stranger.stderr


def test_postgresql_takes_a_quarter_of_the_memory_that_we_may_use(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    assert shared_buffers(4 << 30, limit) == "1024MB", "there is no such file"
    for written, expected in (("max", "1024MB"), (str(2 << 30), "512MB"), (str(8 << 30), "1024MB")):
        limit.write_text(f"{written}\n")
        assert shared_buffers(4 << 30, limit) == expected
    assert shared_buffers(256 << 20, tmp_path / "none") == "128MB"
    assert shared_buffers(64 << 30, tmp_path / "none") == "8192MB"


def test_who_has_a_postgresql_of_their_own_is_told_what_the_embedded_one_is_set_to() -> None:
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    told = page.partition("# postgresql.conf\n")[2].partition("```")[0].splitlines()
    assert any(line.startswith("autovacuum_") for line in told)
    for line in told:
        name, value = line.split(" = ")
        assert DEFAULT_SETTINGS[name] == value

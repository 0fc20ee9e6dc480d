# SPDX-License-Identifier: Apache-2.0
"""HANDLERS_DIR: what lies in it is served, and what changes in it changes here."""
import os

import pytest

from conftest import nexus, publish_volume, wait_until


def names(server):
    return [handler["name"] for handler in server.get("/v1/handlers").json()["handlers"]]


def put_file(folder, name, text):
    """As editors do it: a whole new file in one step."""
    (folder / (name + ".tmp")).write_text(text)
    os.rename(folder / (name + ".tmp"), folder / name)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "handlers-here"
    path.mkdir()
    return path


def test_load_at_the_start(start, folder):
    (folder / "one.js").write_text("return 1")
    (folder / "two.js").write_text("export default () => 2")
    (folder / "two.grants.json").write_text('{"timeoutMs": 100}')
    (folder / "README.md").write_text("no handler")
    (folder / ".hidden.js").write_text("return 'hidden'")
    (folder / "bad name.js").write_text("return 'bad'")
    (folder / "sub").mkdir()
    (folder / "sub" / "inner.js").write_text("return 'inner'")
    (folder / "broken.js").write_text("return (")
    server = start({"HANDLERS_DIR": folder})
    assert names(server) == ["one", "two"]
    assert server.run("two").json() == 2
    assert server.get("/v1/handlers/two/grants").json()["timeoutMs"] == 100
    assert "broken" in server.log() and "COMPILATION_ERROR" in server.log()


@pytest.mark.parametrize("source, timeout_ms, why", [
    ("return " + "(" * 90000 + "1" + ")" * 90000, 20000, "nests too deep"),
    ("return [" + "1," * 450000 + "]", 20000, "of memory"),
    ("export const x = (() => { while (true); })(); export default () => 1", 500, "ran longer than")],
    ids=["deep", "large", "endless"])
def test_a_file_that_is_too_much_for_the_compiler(start, folder, source, timeout_ms, why):
    """Refused, and survived, at the start and later: another thread has it compiled then."""
    (folder / "first.js").write_text(source)
    server = start({"HANDLERS_DIR": folder, "TIMEOUT_MS": timeout_ms, "MEMORY_LIMIT_MB": 16})
    refused = lambda name: [row for row in server.log().splitlines() if name in row and why in row]  # noqa: E731
    assert refused("first"), server.log()
    put_file(folder, "later.js", source)
    wait_until(lambda: server.process.poll() is not None or refused("later"), what="the refusal")
    put_file(folder, "good.js", "return 1")
    wait_until(lambda: names(server) == ["good"], what="the good one")
    assert server.run("good").json() == 1


def test_changes_are_followed(start, folder):
    put_file(folder, "a.js", "return 'a1'")
    put_file(folder, "b.js", "return 'b1'")
    server = start({"HANDLERS_DIR": folder})
    put_file(folder, "a.js", "return 'a2'")
    wait_until(lambda: server.value(handler="a") == "a2", what="the new version")
    put_file(folder, "c.js", "return 'c1'")
    wait_until(lambda: "c" in names(server), what="the new handler")
    (folder / "b.js").unlink()
    wait_until(lambda: "b" not in names(server), what="the removal")
    server.run("b").problem(404, "HANDLER_NOT_FOUND")
    # In place, as `echo > file` does it.
    (folder / "a.js").write_text("return 'a3'")
    wait_until(lambda: server.value(handler="a") == "a3", what="the change in place")
    assert names(server) == ["a", "c"]


def test_broken_file_keeps_the_old_version(start, folder):
    put_file(folder, "a.js", "return 'good'")
    server = start({"HANDLERS_DIR": folder})
    put_file(folder, "a.js", "return (((")
    wait_until(lambda: "COMPILATION_ERROR" in server.log(), what="the complaint")
    assert server.value(handler="a") == "good"
    put_file(folder, "a.js", "return 'better'")
    wait_until(lambda: server.value(handler="a") == "better", what="the repair")


def test_grants_follow_their_file(start, folder):
    put_file(folder, "r.js", "return Object.keys($state)")
    server = start({"HANDLERS_DIR": folder})
    keys = lambda: server.value(handler="r", state={"a": 1, "b": 2})  # noqa: E731
    assert keys() == []
    put_file(folder, "r.grants.json", '{"capabilities": ["state:read:a"]}')
    wait_until(lambda: keys() == ["a"], what="the grants")
    put_file(folder, "r.grants.json", '{"capabilities": ["nonsense"]}')
    wait_until(lambda: "nonsense" in server.log(), what="the complaint")
    assert keys() == ["a"]
    put_file(folder, "r.grants.json", '{"capabilities": ["state:read:*"]}')
    wait_until(lambda: keys() == ["a", "b"], what="the new grants")
    (folder / "r.grants.json").unlink()
    wait_until(lambda: keys() == [], what="their removal")


def test_a_handler_of_the_api_is_not_removed_by_files(start, folder):
    server = start({"HANDLERS_DIR": folder})
    server.install("api", "return 'api'")
    put_file(folder, "file.js", "return 'file'")
    wait_until(lambda: "file" in names(server), what="the file")
    (folder / "file.js").unlink()
    wait_until(lambda: "file" not in names(server), what="the removal")
    assert server.value(handler="api") == "api"


def test_config_map(start, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    publish_volume(mount, {"a.js": "return 'a1'", "b.js": "return 'b1'"})
    server = start({"HANDLERS_DIR": mount})
    assert names(server) == ["a", "b"]
    publish_volume(mount, {"a.js": "return 'a2'", "c.js": "return 'c2'", "a.grants.json": '{"timeoutMs": 5000}'})
    wait_until(lambda: names(server) == ["a", "c"] and server.value(handler="a") == "a2", what="the new map")
    wait_until(lambda: server.get("/v1/handlers/a/grants").status == 200, what="the grants")


def test_clients_see_whole_versions_while_files_change(start, folder):
    put_file(folder, "a.js", "return [0, 0]")
    server = start({"HANDLERS_DIR": folder})
    for version in range(1, 6):
        put_file(folder, "a.js", f"return [{version}, {version}]")

        def changed():
            first, second = server.value(handler="a")
            assert first == second
            return first == version
        wait_until(changed, what=f"version {version}")


def test_missing_directory_stops_the_start(tmp_path):
    run = nexus("serve", settings={"PORT": 0, "HANDLERS_DIR": tmp_path / "nowhere", "CACHE_DIR": tmp_path / "cache"})
    assert run.returncode == 2, run.stderr
    assert "HANDLERS_DIR" in run.stderr and "nowhere" in run.stderr


def test_a_file_instead_of_a_directory_stops_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    run = nexus("serve", settings={"PORT": 0, "HANDLERS_DIR": tmp_path / "file", "CACHE_DIR": tmp_path / "cache"})
    assert run.returncode == 2 and "HANDLERS_DIR" in run.stderr


def test_directory_that_goes_away_and_comes_back(start, folder):
    put_file(folder, "a.js", "return 1")
    server = start({"HANDLERS_DIR": folder})
    os.rename(folder, folder.with_name("away"))
    wait_until(lambda: "cannot be read" in server.log(), what="the warning")
    assert server.value(handler="a") == 1
    put_file(folder.with_name("away"), "a.js", "return 2")
    os.rename(folder.with_name("away"), folder)
    wait_until(lambda: server.value(handler="a") == 2, what="the return")

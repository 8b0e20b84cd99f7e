"""A lesion that came as another node's SEG and SR is decided of by page, JSON and command."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from results_elsewhere import bring
from small_results import make_case
from typer.testing import CliRunner
from web_site import WebSite

from node.cli import app
from store import accounts
from store.objects import ObjectStore


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Give a node that has two lesions of another one."""
    folder = tmp_path_factory.mktemp("decided")
    made, case = WebSite(folder / "home"), make_case(folder)
    objects = ObjectStore(made.settings.home / "store", sync=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 4)
        made.account("ANNA", "physicist")
        seg = case.seg()
        with made.database.transaction() as session:
            for one in (seg, case.planar(seg), case.volumetric(seg)):
                bring(session, objects, one)
        yield made
    made.stop()


def test_a_lesion_that_is_listed_is_decided_of_by_json_and_by_command(site: WebSite) -> None:
    client, home = site.signed_in("ANNA"), str(site.settings.home)

    def command(*words: str) -> str:
        said = CliRunner().invoke(app, ["lesions", *words, "--patient", "P1", "--home", home])
        assert said.exit_code == 0, said.output
        return said.output

    course = client.get("/api/patients/1/course").json()
    first, second = (one["tracking_uid"] for one in course["lesions"])
    study = course["lesions"][0]["cells"][0]["place"]["study_instance_uid"]
    made = client.post(
        f"/api/studies/{study}/choices", json={"lesion": first, "kind": "reject", "value": "true"}
    )
    assert (made.status_code, made.json()["author"]) == (201, "ANNA")
    assert second in command("list", "--json")
    command("mark", "--lesion", second, "--role", "non-target", "--author", "Dr. Grey")
    relinked = json.loads(
        command(
            "relink", "--lesion", second, "--study", study, "--to", "new", "--author", "Dr. Grey", "--json"
        )
    )
    roles = {
        one["tracking_uid"]: one["role"] for one in client.get("/api/patients/1/course").json()["lesions"]
    }
    assert set(roles) == {first, relinked[0]["value"]} and roles[first] == ""

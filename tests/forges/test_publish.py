"""The report in the merge request, on a stand-in of each server: one comment, ours alone, up to date, whatever happens."""

from __future__ import annotations

import re

import pytest

from pipeline.bootstrap.forges import forge_of, post, request_in
from pipeline.config import ForgeSettings
from pipeline.errors import Unreachable, UsageError
from pipeline.reports.comment import Page, Target, comment, marker, shorten
from tests.forges.servers import OTHER, REQUEST, TOKEN, Bitbucket, Gitea, GitHub, GitLab
from tests.unit.test_evidence_page import HOSTILE, evidence

SERVERS = [GitLab, GitHub, Bitbucket, Gitea]
PICTURES = {"roc": b"\x89PNG roc", "calibration": b"\x89PNG calibration"}
RULES = [{"passed": True, "rule": "auc", "value": 0.7, "threshold": 0.6, "reason": ""}]
REFUSED = [{"passed": False, "rule": "auc", "value": 0.5, "threshold": 0.6, "reason": "too low"}]


@pytest.fixture(params=SERVERS, ids=lambda server: server.kind)
def server(request):
    with request.param() as server:
        yield server


@pytest.fixture
def forge(server, tmp_path):
    return adapter(server, tmp_path)


def adapter(server, folder, token=TOKEN, request=REQUEST):
    file = folder / "token"
    file.write_text(f"{token}\n")
    about = {"kind": server.kind, "url": f"{server.url}/", "repository": server.repository, "token_file": file}
    return forge_of(ForgeSettings(**about), request)


def report(headline="the policy passes", **more):
    def write(urls):
        return comment(evidence(), Page(headline, RULES, pictures=urls, **more))

    return write


def ours(server):
    return [note["body"] for note in server.notes.values() if note["author"] != OTHER]


def test_a_report_is_posted_once_and_kept_up_to_date(server, forge):
    assert post(forge, "flights", PICTURES, report()) == "posted"
    (body,) = ours(server)
    assert "### flights: the policy passes" in body
    assert len(server.pictures) == 2
    assert [alt for alt, url in re.findall(r"!\[(\w+)\]\((\S+)\)", body) if any(n in url for n in server.pictures)] == [
        "roc",
        "calibration",
    ]
    before = server.writes()
    assert post(forge, "flights", PICTURES, report()) == "already there"
    assert server.writes() == before
    assert post(forge, "flights", PICTURES, report("approved by grace")) == "brought up to date"
    (body,) = ours(server)
    assert "approved by grace" in body
    assert len(server.pictures) == 2
    assert len(server.writes()) == len(before) + 1


def test_every_model_has_a_comment_of_its_own(server, forge):
    post(forge, "flights", {}, report())
    post(forge, "trains", {}, report())
    assert post(forge, "flights", {}, report("refused")) == "brought up to date"
    assert ["refused" in body for body in ours(server)] == [True, False]


def test_it_is_found_on_a_later_page_and_anothers_quotation_is_left_alone(server, forge):
    quoted = f"{marker('flights', {})}\nI do not agree"
    server.say(quoted, OTHER)
    for number in range(4):
        server.say(f"comment {number}", OTHER)
    post(forge, "flights", {}, report())
    for number in range(3):
        server.say(f"later {number}", OTHER)
    assert post(forge, "flights", {}, report("refused")) == "brought up to date"
    assert len(ours(server)) == 1
    assert next(iter(server.notes.values()))["body"] == quoted


def test_an_answer_that_was_lost_does_not_make_a_second_comment(server, forge):
    server.lose = True
    with pytest.raises(Unreachable):
        post(forge, "flights", PICTURES, report())
    assert post(forge, "flights", PICTURES, report()) == "already there"
    assert len(ours(server)) == 1


def test_of_two_that_were_posted_at_once_the_older_stays(server, forge):
    post(forge, "flights", {}, report())
    first = ours(server)[0]
    server.say(first)
    assert post(forge, "flights", {}, report()) == "already there"
    assert ours(server) == [first]


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (401, UsageError, "refuses this token"),
        (403, UsageError, "refuses this token"),
        (500, Unreachable, "answers 500"),
    ],
)
def test_what_a_server_refuses_is_said_without_the_token(server, forge, status, error, says):
    server.instead += [(status, {"message": "no", "errors": [{"message": "no"}]})] * 8
    with pytest.raises(error) as refused:
        post(forge, "flights", {}, report())
    assert says in refused.value.what
    assert TOKEN not in f"{refused.value.what} {refused.value.where} {refused.value.fix} {refused.value.__cause__}"


def test_a_wrong_token_and_a_request_that_is_not_there(server, tmp_path):
    with pytest.raises(UsageError, match="refuses this token"):
        adapter(server, tmp_path, token="wrong").user()
    with pytest.raises(UsageError, match="no such merge request"):
        adapter(server, tmp_path, request=99).comments()
    with pytest.raises(UsageError, match="no such merge request"):
        adapter(server, tmp_path, request=99).create("hello")


def test_a_server_that_is_away_is_unreachable(server, forge):
    server.__exit__()
    with pytest.raises(Unreachable):
        forge.user()


def test_bitbucket_tells_of_a_comment_that_somebody_else_changed(tmp_path):
    with Bitbucket() as server:
        forge = adapter(server, tmp_path)
        post(forge, "flights", {}, report())
        (mine,) = forge.comments()
        server.edit(mine.id, "quicker")
        with pytest.raises(Unreachable, match="meanwhile"):
            forge.update(mine, "slower")


def test_a_bitbucket_that_takes_no_pictures_gets_a_report_without(tmp_path):
    with Bitbucket() as server:
        forge = adapter(server, tmp_path)
        plain = server.answer
        server.answer = lambda method, path, *more: (
            (404, {"errors": [{"message": "no"}]}) if path.endswith("/attachments") else plain(method, path, *more)
        )
        assert post(forge, "flights", PICTURES, report()) == "posted"
        assert "![" not in ours(server)[0]


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({"CI_MERGE_REQUEST_IID": "7"}, 7),
        ({"CHANGE_ID": "8"}, 8),
        ({"GITHUB_REF": "refs/pull/9/merge"}, 9),
        ({"GITHUB_REF": "refs/heads/main"}, None),
    ],
)
def test_the_ci_names_the_merge_request(environment, number):
    if number is None:
        with pytest.raises(UsageError, match="of which merge request"):
            request_in(environment)
    else:
        assert request_in(environment) == number


# --- the text -----------------------------------------------------------------------------------------------


def test_it_compares_with_the_champion_and_with_the_target_branch():
    known = evidence()
    target = Target("main-7", "2013-06", {"auc": 0.5})
    text = comment(known, Page("the policy refuses", REFUSED, ("grace", "hedy"), target, link="https://ci/x y)"))
    own = known["candidate"]["intervals"]["auc"]["value"]
    theirs = known["champion"]["intervals"]["auc"]["value"]
    assert re.search(
        rf"\| auc \| {own:.4f} \| {theirs:.4f} \| [^|]+ \| 0\.5000 \| {re.escape(f'{own - 0.5:+.4f}')} \|", text
    )
    assert "another hold-out (2013-06)" in text
    assert "| auc | 0.5000 | 0.6000 | too low |" in text
    assert "**May decide:** grace, hedy" in text
    assert "[Evidence](https://ci/x%20y%29)" in text


def test_without_champion_and_target_it_says_so():
    text = comment(evidence(champion=False), Page("the policy passes", RULES))
    assert "No champion serves yet." in text
    assert "The target branch has no run to compare with." in text
    assert "| champion |" not in text.partition("**Weakest")[0]


def test_nothing_in_the_data_becomes_markup_a_mention_or_a_link():
    text = comment(evidence(slice_value=HOSTILE + " @grace http://evil.example"), Page("by @hedy", RULES))
    assert "<img" not in text.replace("\\<img", "")
    assert "@grace" not in text and "@hedy" not in text and "://evil" not in text


def test_a_comment_is_no_longer_than_the_server_takes():
    text = "".join(f"line {number}\n" for number in range(500))
    short = shorten(text, 800)
    assert len(short) <= 800 and "Cut here" in short
    assert shorten(text, 10_000) == text

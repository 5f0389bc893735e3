"""Stand-ins for four servers with merge requests, each with its own paths, fields, status codes, pages and tokens.

After docs.gitlab.com/api (notes, projects), docs.github.com/en/rest (issues/comments, git, repos/contents), Atlassian's
REST documentation for Bitbucket Data Center (pull-requests, activities), and the Swagger file that Gitea serves.
"""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import parse_qs, unquote, urlsplit

from tests.stand_in import JsonHandler, Site

TOKEN = "a-token-of-the-server"
ME, OTHER = "gatehouse-bot", "eve"
REQUEST = 12
PAGE = 2


class Handler(JsonHandler):
    def handle_one(self):
        server = self.server.site
        split = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.headers.get("Content-Type", "")
        body = json.loads(data) if data and kind.startswith("application/json") else data
        server.asked.append((self.command, unquote(split.path)))
        if server.instead:
            self.send(*server.instead.pop(0))
            return
        if not server.knows(self.headers):
            self.send(401, {"message": "401 Unauthorized"})
            return
        found = server.answer(self.command, unquote(split.path), parse_qs(split.query), body)
        if server.lose and self.command == "POST" and server.is_comment(split.path):
            server.lose = False
            self.close_connection = True  # it was written, and nobody learns of it
            return
        self.send(*found)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815


class Forge(Site):
    """One server, with one merge request. `instead` are answers given before anything is looked at."""

    handler = Handler

    def __init__(self):
        self.notes, self.asked, self.instead, self.lose = {}, [], [], False
        self.pictures, self.branch, self.number = {}, False, 100

    def say(self, body, author=ME):
        """Write a comment; answers its number."""
        self.number += 1
        self.notes[self.number] = {"author": author, "body": body, "version": 0}
        return self.number

    def writes(self):
        return [one for one in self.asked if one[0] != "GET"]

    def edit(self, number, body):
        """Only who wrote a comment edits it."""
        if number not in self.notes:
            return 404
        if self.notes[number]["author"] != ME:
            return 403
        self.notes[number]["body"] = body
        self.notes[number]["version"] += 1
        return None

    def changed(self, method, number, body, deleted):
        """The answer to a comment's PUT, PATCH or DELETE."""
        if method == "DELETE":
            self.notes.pop(number)
            return 204, None
        refused = self.edit(number, body)
        return (refused, {"message": "refused"}) if refused else (200, deleted(number))

    def page(self, query, values):
        number = int(query.get("page", ["1"])[0])
        return values[(number - 1) * PAGE : number * PAGE], number, -(-len(values) // PAGE)


class GitLab(Forge):
    kind, repository = "gitlab", "group/sub/flights"

    def knows(self, headers):
        return headers.get("PRIVATE-TOKEN") == TOKEN

    def is_comment(self, path):
        return path.endswith("/notes")

    def note(self, number):
        about = self.notes[number]
        return {"id": number, "body": about["body"], "system": False, "author": {"username": about["author"]}}

    def answer(self, method, path, query, body):
        base = f"/api/v4/projects/{self.repository}"
        if path == "/api/v4/user":
            return 200, {"id": 1, "username": ME}
        if path == base:
            return 200, {"id": 1, "path_with_namespace": self.repository}
        if path == "/api/v4/projects/1/uploads":
            name = re.search(rb'filename="([^"]+)"', body)[1].decode()
            self.pictures[name] = body
            return 201, {"alt": name, "url": f"/uploads/5f/{name}", "full_path": f"/-/project/1/uploads/5f/{name}"}
        notes = f"{base}/merge_requests/{REQUEST}/notes"
        if path == notes and method == "POST":
            return 201, self.note(self.say(body["body"]))
        if path == notes:
            system = {"id": 1, "body": "added 1 commit", "system": True, "author": {"username": OTHER}}
            found, number, pages = self.page(query, [system, *map(self.note, self.notes)])
            more = {"X-Page": str(number), "X-Total-Pages": str(pages), "X-Per-Page": str(PAGE)}
            if number < pages:
                more["Link"] = f'<{self.url}{notes}?page={number + 1}>; rel="next"'.replace(
                    self.repository, self.repository.replace("/", "%2F")
                )
                more["X-Next-Page"] = str(number + 1)
            return 200, found, more.items()
        if path.startswith(f"{notes}/"):
            return self.changed(method, int(path.rpartition("/")[2]), (body or {}).get("body"), self.note)
        return 404, {"message": "404 Not found"}


class GitHub(Forge):
    kind, repository = "github", "mlops/flights"

    def knows(self, headers):
        return headers.get("Authorization") in (f"token {TOKEN}", f"Bearer {TOKEN}")

    def is_comment(self, path):
        return path.endswith("/comments")

    def note(self, number):
        about = self.notes[number]
        url = f"{self.url}/api/v3/repos/{self.repository}/issues/comments/{number}"
        return {"id": number, "url": url, "body": about["body"], "user": {"login": about["author"]}}

    def answer(self, method, path, query, body):
        base = f"/api/v3/repos/{self.repository}"
        issue = f"{base}/issues/{REQUEST}"
        if path == "/api/v3/user":
            return 200, {"login": ME, "id": 1}
        if path == issue:
            return 200, {"number": REQUEST, "url": f"{self.url}{issue}", "title": "a change"}
        if path == f"{issue}/comments" and method == "POST":
            return 201, self.note(self.say(body["body"]))
        if path == f"{issue}/comments":
            found, number, pages = self.page(query, list(map(self.note, self.notes)))
            more = [("Link", f'<{self.url}{path}?page={number + 1}>; rel="next"')] if number < pages else []
            return 200, found, more
        if path.startswith(f"{base}/issues/comments/"):
            number = int(path.rpartition("/")[2])
            if method == "GET":
                return 200, self.note(number)
            return self.changed(method, number, (body or {}).get("body"), self.note)
        return self.git(method, path.removeprefix(base), body)

    def git(self, method, path, body):
        sha = "a" * 40
        if path == "/git/matching-refs/heads/gatehouse-reports":
            about = {"ref": "refs/heads/gatehouse-reports", "object": {"sha": sha, "type": "commit"}}
            return 200, [about] if self.branch else []
        if path == "/git/trees":
            return 201, {"sha": sha, "tree": []}
        if path == "/git/commits":
            assert body["parents"] == []
            return 201, {"sha": sha}
        if path == "/git/refs":
            self.branch = True
            return 201, {"ref": body["ref"], "object": {"sha": sha, "type": "commit"}}
        if path.startswith("/contents/") and method == "PUT":
            name = path.removeprefix("/contents/")
            assert self.branch and body["branch"] == "gatehouse-reports"
            if name in self.pictures:
                return 422, {"message": 'Invalid request.\n\n"sha" wasn\'t supplied.'}
            self.pictures[name] = base64.b64decode(body["content"])
            return 201, {"content": {"name": name, "path": name, "sha": sha}, "commit": {"sha": sha}}
        return 404, {"message": "Not Found"}


class Bitbucket(Forge):
    kind, repository = "bitbucket", "ML/flights"

    def knows(self, headers):
        return headers.get("Authorization") == f"Bearer {TOKEN}"

    def is_comment(self, path):
        return path.endswith("/comments")

    def note(self, number):
        about = self.notes[number]
        return {
            "id": number,
            "version": about["version"],
            "text": about["body"],
            "author": {"name": about["author"], "slug": about["author"]},
        }

    def answer(self, method, path, query, body):
        base = "/rest/api/1.0/projects/ML/repos/flights"
        request = f"{base}/pull-requests/{REQUEST}"
        if path == base:
            return 200, {"slug": "flights"}, [("X-AUSERNAME", ME)]
        if path == f"{request}/activities":
            start = int(query.get("start", ["0"])[0])
            said = [{"id": 7, "action": "OPENED"}]
            said += [
                {"id": n, "action": "COMMENTED", "commentAction": "ADDED", "comment": self.note(n)}
                for n in sorted(self.notes, reverse=True)
            ]
            last = start + PAGE >= len(said)
            answer = {"values": said[start : start + PAGE], "isLastPage": last, "start": start, "size": PAGE}
            return 200, answer | ({} if last else {"nextPageStart": start + PAGE})
        if path == f"{request}/comments" and method == "POST":
            return 201, self.note(self.say(body["text"]))
        if path.startswith(f"{request}/comments/"):
            number = int(path.rpartition("/")[2])
            version = int(query["version"][0]) if method == "DELETE" else body["version"]
            if number in self.notes and version != self.notes[number]["version"]:
                return 409, {
                    "errors": [{"message": "You are attempting to modify a comment based on out-of-date information."}]
                }
            return self.changed(method, number, (body or {}).get("text"), self.note)
        if path == f"{base}/attachments":
            name = re.search(rb'filename="([^"]+)"', body)[1].decode()
            self.pictures[name] = body
            link = {"attachment": {"href": f"attachment:1/5f%2F{name}"}}
            return 201, {"attachments": [{"id": "1", "url": f"{self.url}/x/{name}", "links": link}]}
        return 404, {"errors": [{"message": "There is no such thing."}]}


class Gitea(Forge):
    kind, repository = "gitea", "mlops/flights"

    def knows(self, headers):
        return headers.get("Authorization") == f"token {TOKEN}"

    def is_comment(self, path):
        return path.endswith("/comments")

    def note(self, number):
        about = self.notes[number]
        return {"id": number, "body": about["body"], "user": {"login": about["author"]}}

    def answer(self, method, path, query, body):
        base = f"/api/v1/repos/{self.repository}/issues"
        if path == "/api/v1/user":
            return 200, {"login": ME}
        if path == f"{base}/{REQUEST}/comments":
            if method == "POST":
                return 201, self.note(self.say(body["body"]))
            return 200, list(map(self.note, self.notes))
        if path.startswith(f"{base}/comments/"):
            return self.changed(method, int(path.rpartition("/")[2]), (body or {}).get("body"), self.note)
        if path == f"{base}/{REQUEST}/assets":
            name = re.search(rb'filename="([^"]+)"', body)[1].decode()
            self.pictures[name] = body
            return 201, {"id": 1, "name": name, "browser_download_url": f"{self.url}/attachments/{name}"}
        return 404, {"message": "not found"}

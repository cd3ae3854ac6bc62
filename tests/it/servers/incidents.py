"""The MCP server `incidents` over stdio: logs and runbooks to read, services to mend, people to call.
One argument: a file that each call is appended to."""

import sys

sys.dont_write_bytecode = True

from served import ADDS, CHANGES, FLAG, READS, TEXT, WHOLE, Failed, Server, closed

RUNBOOKS = {
    "api/latency": "Look at the pool of connections first. A restart helps for an hour.",
    "api/deploys": "Roll back when errors begin with a deploy.",
    "restricted/failover": "Only two people know when to do this. Ask one of them.",
}
# Who has a pager. `network` has none yet.
ON_CALL = {"platform": "ada", "database": "grace"}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}

server = Server("incidents")
pages = []


@server.tool(READS, "The newest lines of a service's log", optional=["lines"], service=TEXT, lines={**WHOLE, "minimum": 1, "maximum": 1000})
def read_logs(service, lines=3):
    told = ["connected", "slow: 2100 ms", "slow: 2300 ms"]
    return {"service": service, "lines": told[-lines:]}


@server.tool(READS, "What to do, as somebody wrote it down: api/latency, api/deploys, restricted/failover", name=TEXT)
def read_runbook(name):
    if name not in RUNBOOKS:
        raise Failed("no such runbook")
    return {"name": name, "text": RUNBOOKS[name]}


@server.tool(
    ADDS,
    "Says what is believed to be the cause, and how sure that is",
    optional=["confidence_rationale"],
    cause=TEXT,
    confidence=SHARE,
    confidence_rationale=TEXT,
)
def submit_hypothesis(cause, confidence, confidence_rationale=""):
    return {"kept": True, "cause": cause}


@server.tool(
    ADDS,
    "Changes what is known of the incident",
    patch=closed(
        {
            "summary": TEXT,
            "confidence": SHARE,
            "confidence_rationale": TEXT,
            "signal": {"type": "string", "enum": ["success", "failed", "needs_input"]},
        },
        [],
    ),
)
def update_incident(patch):
    return {"changed": sorted(patch)}


@server.tool(CHANGES, "Starts a service anew", service=TEXT)
def restart_service(service):
    return {"service": service, "state": "running"}


@server.tool(CHANGES, "Puts an older version of a service in place", optional=["fail"], service=TEXT, to_version=TEXT, fail=FLAG)
def rollback(service, to_version, fail=False):
    if fail:
        raise Failed("the older version did not start")
    return {"service": service, "version": to_version}


@server.tool(ADDS, "Pages whoever of a team is on call", optional=["summary", "session"], team=TEXT, summary=TEXT, session=TEXT)
def notify_oncall(team, summary="", session=""):
    if team not in ON_CALL:
        raise Failed("nobody of that team has a pager")
    pages.append(team)
    return {"page": f"PAGE-{len(pages)}", "who": ON_CALL[team]}


@server.tool(CHANGES, "Closes the incident", resolution=TEXT)
def mark_resolved(resolution):
    return {"closed_as": "resolved"}


server.run()

"""The MCP server `reviews` over stdio: a change to read, notes on its lines, and one verdict.
One argument: a file that each call is appended to."""

import sys

sys.dont_write_bytecode = True

from served import ADDS, CHANGES, FLAG, READS, TEXT, WHOLE, Failed, Server, closed

DIFFS = {
    "src/pool.rs": "-    let most = 8;\n+    let most = 64;\n",
    "src/lib.rs": "+//! A pool of connections.\n",
    "README.md": "-eight connections\n+sixty-four connections\n",
}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}

server = Server("reviews")
notes = []


@server.tool(READS, "The files that the change touches")
def list_files():
    return {"files": sorted(DIFFS)}


@server.tool(READS, "What the change does to a file", path=TEXT)
def read_diff(path):
    if path not in DIFFS:
        raise Failed("the change does not touch that file")
    return {"path": path, "diff": DIFFS[path]}


@server.tool(ADDS, "Notes something on a line", path=TEXT, line={**WHOLE, "minimum": 1}, text=TEXT)
def add_note(path, line, text):
    notes.append((path, line, text))
    return {"note": len(notes)}


@server.tool(
    ADDS,
    "Notes what was found in the change as a whole, and how sure that is",
    patch=closed(
        {
            "finding": TEXT,
            "confidence": SHARE,
            "confidence_rationale": TEXT,
            "signal": {"type": "string", "enum": ["success", "failed", "needs_input"]},
        },
        [],
    ),
)
def note_finding(patch):
    return {"changed": sorted(patch)}


@server.tool(
    CHANGES,
    "Gives the verdict on the change",
    optional=["fail"],
    verdict={"type": "string", "enum": ["approve", "request_changes", "comment"]},
    summary=TEXT,
    fail=FLAG,
)
def submit_review(verdict, summary, fail=False):
    if fail:
        raise Failed("the verdict was not taken")
    return {"review": f"R-{verdict}", "notes": len(notes)}


server.run()

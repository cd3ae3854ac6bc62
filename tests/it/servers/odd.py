"""An MCP server over stdio that does whatever a test needs, well or badly. One argument: a file that each effect is appended to."""

import json
import os
import sys
import time

effects = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def tool(name, **properties):
    schema = {"type": "object", "properties": properties, "required": [p for p in properties if not p.startswith("opt")]}
    return {"name": name, "description": name, "inputSchema": schema}


text = {"type": "string"}
TOOLS = [
    tool("mark", marker=text), tool("echo", text=text), tool("die"), tool("garbage"), tool("never"), tool("twice_named"),
    tool("leak"), tool("long", bytes={"type": "integer"}), tool("ask", method=text), tool("wait", seconds={"type": "number"}),
    tool("number", n={"type": "integer"}, opt_f={"type": "number"}), tool("free", opt_data={"type": "object"}),
    tool("fail"), tool("environment"), tool("told"),
]
if len(sys.argv) > 2 and sys.argv[2] == "changed":
    TOOLS[1]["description"] = "echo, and now a little more"
    TOOLS.append(tool("late"))


if len(sys.argv) > 2 and sys.argv[2] == "notes":
    patch = {"type": "object", "properties": {"confidence": {"type": "number"}, "signal": text}, "additionalProperties": False}
    TOOLS.append(tool("note", patch=patch))


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def result(asked, said, **more):
    send({"jsonrpc": "2.0", "id": asked["id"], "result": {"content": [{"type": "text", "text": said}], **more}})


def call(asked):
    name, given = asked["params"]["name"], asked["params"].get("arguments", {})
    os.write(effects, (name + " " + json.dumps(given.get("marker", "")) + "\n").encode())
    if name == "die":
        os._exit(3)
    elif name == "garbage":
        sys.stdout.write("this is no message\n" + '{"jsonrpc":"2.0","id":%s,"result":{"a":1,"a":2}}\n' % json.dumps(asked["id"]))
        sys.stdout.flush()
    elif name == "never":
        pass
    elif name == "leak":
        result(asked, "the token is " + "ghp_" + "aB3dE5gH7j" * 3 + "kL8mN2")
    elif name == "long":
        result(asked, "x" * given["bytes"])
    elif name == "ask":
        send({"jsonrpc": "2.0", "id": "s1", "method": given["method"], "params": {}})
        answer = json.loads(sys.stdin.readline())
        result(asked, json.dumps(answer.get("result", answer.get("error"))))
    elif name == "wait":
        time.sleep(given["seconds"])
        result(asked, "waited")
    elif name == "fail":
        result(asked, "it failed", isError=True)
    elif name == "told":
        with open(sys.argv[1] + ".told") as told:
            send({"jsonrpc": "2.0", "id": asked["id"], "result": json.load(told)})
    elif name == "environment":
        result(asked, " ".join(sorted(os.environ)))
    else:
        result(asked, given.get("text", "done"), **{"x-vendor": {"kept": None}})


for line in sys.stdin:
    asked = json.loads(line)
    method = asked.get("method")
    if method == "initialize":
        send({"jsonrpc": "2.0", "id": asked["id"], "result": {"protocolVersion": asked["params"]["protocolVersion"],
              "capabilities": {"tools": {}}, "serverInfo": {"name": "odd", "version": "1"}}})
    elif method == "tools/list":
        send({"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": TOOLS}})
    elif method == "tools/call":
        call(asked)
    elif method == "ping":
        send({"jsonrpc": "2.0", "id": asked["id"], "result": {}})
    elif "id" in asked and method:
        send({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no such method"}})

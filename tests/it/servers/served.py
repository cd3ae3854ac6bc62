"""Tools over stdio, for servers that are what their tools are: schemas checked, each call written down, results with structure."""

import json
import os
import sys

TEXT, WHOLE, FLAG = {"type": "string", "minLength": 1}, {"type": "integer"}, {"type": "boolean"}
READS = {"readOnlyHint": True, "openWorldHint": False}
ADDS = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": False}
CHANGES = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": False}


class Failed(Exception):
    """A tool that could not do what it is for."""


class Server:
    """Appends each call to the file that the first argument names, before it does anything."""

    def __init__(self, name):
        self.name, self.tools = name, {}
        self.effects = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def tool(self, hints, description, optional=(), **properties):
        def take(run):
            schema = closed(properties, [name for name in properties if name not in optional])
            shown = {"name": run.__name__, "description": description, "inputSchema": schema, "annotations": hints}
            self.tools[run.__name__] = (shown, run)
            return run

        return take

    def run(self):
        for line in sys.stdin:
            asked = json.loads(line)
            if "id" in asked and "method" in asked:
                send({"jsonrpc": "2.0", "id": asked["id"], **self.answer(asked["method"], asked.get("params") or {})})

    def answer(self, method, params):
        if method == "initialize":
            about = {"name": self.name, "version": "1"}
            version = params["protocolVersion"]
            return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}}
        if method == "tools/list":
            return {"result": {"tools": [shown for shown, _ in self.tools.values()]}}
        if method == "tools/call":
            if params.get("name") not in self.tools:
                return {"error": {"code": -32602, "message": "no such tool"}}
            return {"result": self.call(params["name"], params.get("arguments") or {})}
        if method == "ping":
            return {"result": {}}
        return {"error": {"code": -32601, "message": "no such method"}}

    def call(self, name, arguments):
        shown, run = self.tools[name]
        wrong = fault(shown["inputSchema"], arguments, "arguments")
        if wrong:
            return said({"error": wrong}, True)
        os.write(self.effects, f"{name} {json.dumps(arguments, sort_keys=True)}\n".encode())
        try:
            return said(run(**arguments), False)
        except Failed as failed:
            return said({"error": str(failed)}, True)


def closed(properties, required):
    """The schema of an object with these members and no others."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def said(result, failed):
    text = {"type": "text", "text": json.dumps(result)}
    return {"content": [text], "structuredContent": result, "isError": failed}


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def fault(schema, value, at):
    """What is wrong with a value, of as much of JSON Schema as the tools here use."""
    kinds = {"object": dict, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    kind = schema["type"]
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"{at} is no {kind}"
    if kind == "string" and len(value) < schema.get("minLength", 0):
        return f"{at} is empty"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at} is none of {', '.join(schema['enum'])}"
    if kind in ("integer", "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return f"{at} is out of bounds"
    if kind == "object":
        for name in schema["required"]:
            if name not in value:
                return f"{at}.{name} is missing"
        for name, inner in value.items():
            if name not in schema["properties"]:
                return f"{at}.{name} is not known"
            wrong = fault(schema["properties"][name], inner, f"{at}.{name}")
            if wrong:
                return wrong
    return None

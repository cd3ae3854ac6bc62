"""A hop in front of the provider that keeps each request as it came, headers and bytes, and hands the answer on as it comes."""

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

OF_THE_HOP = {"connection", "keep-alive", "transfer-encoding"}


def open_tap(port, provider):
    """Listens, and returns the list that grows by one (method, path, headers, body) with each request."""
    seen = []

    class Hop(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def body(self):
            if "chunked" not in self.headers.get("transfer-encoding", ""):
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            whole = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return whole

        def pass_on(self):
            raw, headers = self.body(), [(name.lower(), value) for name, value in self.headers.items()]
            seen.append((self.command, self.path, headers, json.loads(raw) if raw else None))
            upstream = http.client.HTTPConnection(urlsplit(provider).netloc, timeout=60)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name not in OF_THE_HOP | {"content-length"}:
                    upstream.putheader(name, value)
            upstream.putheader("content-length", str(len(raw)))
            upstream.endheaders(raw)
            answer = upstream.getresponse()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in OF_THE_HOP:
                    self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            while piece := answer.read1():
                self.wfile.write(piece)
            upstream.close()

        do_GET = do_POST = pass_on

    server = ThreadingHTTPServer(("127.0.0.1", port), Hop)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return seen

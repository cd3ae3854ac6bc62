"""Tests of warden_engine. In this folder: ``python3 -m unittest -v test_warden_engine``

The first four classes are the 20 cases of the convention. The rest is what Warden adds:
leases, and the call over HTTP.
"""

import contextlib
import json
import os
import pickle
import socket
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from unittest import mock

import warden_engine
from warden_engine import (
    ENGINE_FACTORY_KEY,
    RESERVED_KEYS,
    BudgetExceeded,
    Completion,
    Engine,
    EngineError,
    extract_engine_factory,
    extract_engine_id,
    has_engine_context,
    resolve_engine,
)

LEASE = "wdl_" + "0123456789abcdef" * 4


def lease(**changes):
    """A good lease, with changes. Its end is far off, so no test depends on the day."""
    return {
        "kind": "warden.engine_lease/1",
        "lease": LEASE,
        "task": "task-1",
        "engine": None,
        "base_url": "http://127.0.0.1:7171",
        "expires": "9999-01-01T00:00:00Z",
        **changes,
    }


def state_with(value):
    return {ENGINE_FACTORY_KEY: value}


def host(engine_id=None):
    """A host in the same process. It knows two engines, and the first is its default."""
    return {None: "engine one", "one": "engine one", "two": "engine two"}.get(engine_id)


def broken_host(engine_id=None):
    raise RuntimeError("sk-secret")


# ---- The 20 cases of the convention ----


class ExtractEngineFactory(unittest.TestCase):
    def test_gives_the_callable_that_the_host_put_there(self):
        self.assertIs(extract_engine_factory(state_with(host)), host)

    def test_gives_none_when_the_key_is_missing(self):
        self.assertIsNone(extract_engine_factory({"other": 1}))

    def test_gives_none_when_the_state_is_none(self):
        self.assertIsNone(extract_engine_factory(None))

    def test_gives_none_when_the_state_is_no_dict(self):
        for state in ("text", [ENGINE_FACTORY_KEY], 42):
            with self.subTest(state=state):
                self.assertIsNone(extract_engine_factory(state))

    def test_gives_none_when_the_value_is_neither_callable_nor_lease(self):
        for value in ("text", 42, None, [], {}, True):
            with self.subTest(value=value):
                self.assertIsNone(extract_engine_factory(state_with(value)))


class ExtractEngineId(unittest.TestCase):
    def test_gives_the_id_that_stands_in_meta(self):
        self.assertEqual(extract_engine_id({"meta": {"engine_id": "two"}}, "one"), "two")

    def test_gives_the_default_when_meta_is_missing(self):
        self.assertEqual(extract_engine_id({}, "one"), "one")
        self.assertIsNone(extract_engine_id({}))

    def test_gives_the_default_when_meta_or_the_state_is_no_dict(self):
        for state in ({"meta": "text"}, {"meta": ["engine_id"]}, {"meta": None}, None, "text", []):
            with self.subTest(state=state):
                self.assertEqual(extract_engine_id(state, "one"), "one")

    def test_gives_the_default_when_the_id_is_no_text_or_empty(self):
        for engine_id in (42, None, ["two"], True, ""):
            with self.subTest(engine_id=engine_id):
                self.assertEqual(extract_engine_id({"meta": {"engine_id": engine_id}}, "one"), "one")
                self.assertIsNone(extract_engine_id({"meta": {"engine_id": engine_id}}))

    def test_gives_an_id_of_blanks_as_it_is(self):
        self.assertEqual(extract_engine_id({"meta": {"engine_id": "  "}}, "one"), "  ")


class ResolveEngine(unittest.TestCase):
    def test_gives_the_engine_of_the_id(self):
        self.assertEqual(resolve_engine(state_with(host), "two"), "engine two")

    def test_gives_the_default_of_the_host_without_an_id(self):
        self.assertEqual(resolve_engine(state_with(host)), "engine one")

    def test_takes_an_empty_id_for_no_id(self):
        asked = []
        resolve_engine(state_with(lambda *names: asked.append(names)), "")
        self.assertEqual(asked, [()])

    def test_gives_none_for_an_id_that_the_host_does_not_know(self):
        self.assertIsNone(resolve_engine(state_with(host), "three"))

    def test_gives_none_without_a_factory(self):
        for state in ({}, None, "text", state_with("text")):
            with self.subTest(state=state):
                self.assertIsNone(resolve_engine(state, "two"))

    def test_gives_none_when_the_factory_raises_and_logs_the_class_only(self):
        for engine_id in (None, "two"):
            with self.subTest(engine_id=engine_id), self.assertLogs("warden_engine", "WARNING") as logs:
                self.assertIsNone(resolve_engine(state_with(broken_host), engine_id))
            self.assertEqual(len(logs.output), 1)
            self.assertIn("RuntimeError", logs.output[0])
            self.assertNotIn("sk-secret", logs.output[0])


class HasEngineContext(unittest.TestCase):
    def test_is_true_with_a_factory_and_does_not_call_it(self):
        self.assertIs(has_engine_context(state_with(broken_host)), True)

    def test_is_false_when_the_key_is_missing(self):
        self.assertIs(has_engine_context({}), False)

    def test_is_false_when_the_value_cannot_be_called(self):
        self.assertIs(has_engine_context(state_with("text")), False)

    def test_is_false_for_none_and_for_a_list(self):
        self.assertIs(has_engine_context(None), False)
        self.assertIs(has_engine_context([ENGINE_FACTORY_KEY]), False)


# ---- What Warden adds ----


class Keys(unittest.TestCase):
    def test_the_names_of_the_keys_stay_as_they_are(self):
        self.assertEqual(ENGINE_FACTORY_KEY, "worker_engine_factory")
        self.assertEqual(
            RESERVED_KEYS, {"worker_engine_factory", "meta", "_meta", "_errors", "_trace", "_workflow"}
        )


class Leases(unittest.TestCase):
    def test_a_lease_resolves_to_an_engine_without_any_connection(self):
        with mock.patch.object(socket, "socket", side_effect=AssertionError("network")):
            state = state_with(lease())
            self.assertTrue(has_engine_context(state))
            engine = resolve_engine(state)
        self.assertEqual(engine, Engine("http://127.0.0.1:7171", "task-1", LEASE, None))

    def test_the_asked_id_comes_before_the_engine_of_the_lease(self):
        state = state_with(lease(engine="one"))
        self.assertEqual(resolve_engine(state, "two").engine, "two")
        self.assertEqual(resolve_engine(state, "").engine, "one")

    def test_an_id_that_is_no_text_gives_none(self):
        for engine_id in (42, ["one"]):
            with self.subTest(engine_id=engine_id):
                self.assertIsNone(resolve_engine(state_with(lease()), engine_id))

    def test_a_malformed_lease_gives_none(self):
        changes = [
            {"kind": "warden.engine_lease/2"},
            {"kind": None},
            {"lease": "wdl_" + "0" * 63},
            {"lease": "wdl_" + "g" * 64},
            {"lease": LEASE + "\n"},
            {"lease": 42},
            {"task": None},
            {"task": ""},
            {"task": "task-1\r\nx-other: 1"},
            {"engine": 42},
            {"base_url": None},
            {"base_url": "127.0.0.1:7171"},
            {"base_url": "file:///etc/passwd"},
            {"base_url": "http://"},
            {"base_url": "http://["},
            {"base_url": "http://127.0.0.1:99999"},
        ]
        for change in changes:
            with self.subTest(**change):
                self.assertIsNone(extract_engine_factory(state_with(lease(**change))))
        for name in ("kind", "lease", "task", "base_url"):
            broken = lease()
            del broken[name]
            with self.subTest(missing=name):
                self.assertIsNone(extract_engine_factory(state_with(broken)))

    def test_a_lease_that_is_over_has_a_factory_that_gives_none(self):
        for expires in ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00.123456789+02:00"):
            with self.subTest(expires=expires):
                factory = extract_engine_factory(state_with(lease(expires=expires)))
                self.assertIsNone(factory())
                self.assertIsNone(factory("two"))

    def test_a_lease_whose_end_cannot_be_read_counts_as_over(self):
        for expires in (None, 42, "", "soon", "9999-01-01", "9999-13-01T00:00:00Z", "9999-01-01T00:00:00"):
            with self.subTest(expires=expires):
                self.assertIsNone(resolve_engine(state_with(lease(expires=expires))))

    def test_every_way_to_write_the_end_is_read(self):
        for expires in ("9998-12-31T23:59:59.123456789Z", "9998-12-31t23:59:59z", "9998-12-31T23:59:59-11:30"):
            with self.subTest(expires=expires):
                self.assertIsNotNone(resolve_engine(state_with(lease(expires=expires))))

    def test_a_kept_factory_does_not_follow_changes_of_the_state(self):
        state = state_with(lease())
        factory = extract_engine_factory(state)
        state[ENGINE_FACTORY_KEY]["base_url"] = "http://elsewhere.example"
        self.assertEqual(factory().base_url, "http://127.0.0.1:7171")

    def test_an_engine_does_not_show_its_lease(self):
        self.assertNotIn("wdl_", repr(resolve_engine(state_with(lease()))))


@contextlib.contextmanager
def gateway(status, answer, headers=()):
    """Stand in for Warden: give this answer to each POST. Yields its address and what it was sent."""
    seen = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self):
            sent = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, self.headers, json.loads(sent)))
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Door)
    # The poll is how long shutdown() may take. The default of half a second adds up.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Execute(unittest.TestCase):
    def setUp(self):
        patch = mock.patch.dict(os.environ, {"WARDEN_TOKEN": "the-token"})
        patch.start()
        self.addCleanup(patch.stop)

    def engine(self, base_url, engine_id=None):
        return resolve_engine(state_with(lease(base_url=base_url)), engine_id)

    def refused(self, status, answer, headers=()):
        """Run a prompt against a gateway that refuses it, and give the error."""
        with gateway(status, answer, headers) as (url, seen):
            with self.assertRaises(EngineError) as caught:
                self.engine(url).execute("hello")
        self.assertEqual(len(seen), 1)
        return caught.exception

    def test_success_gives_the_completion(self):
        usage = {"input_tokens": 3, "output_tokens": 5}
        answer = {"content": "hi", "engine": "two", "model": "m", "usage": usage, "task": "task-1", "decision": "d-1"}
        with gateway(200, answer) as (url, _):
            got = self.engine(url).execute("hello")
        self.assertEqual(got, Completion("hi", "two", "m", usage, "task-1", "d-1"))

    def test_the_call_carries_token_task_lease_and_options(self):
        with gateway(200, {"content": "hi"}) as (url, seen):
            self.engine(url + "/", "two").execute("hello", model="m", max_tokens=9, system=None, timeout_s=30)
        path, headers, body = seen[0]
        self.assertEqual(path, "/execute")
        self.assertEqual(headers["authorization"], "Bearer the-token")
        self.assertEqual(headers["x-warden-task"], "task-1")
        self.assertEqual(headers["x-warden-lease"], LEASE)
        self.assertEqual(headers["x-warden-timeout-ms"], "30000")
        self.assertEqual(body, {"prompt": "hello", "engine": "two", "model": "m", "max_tokens": 9})

    def test_without_an_id_the_choice_is_left_to_warden(self):
        with gateway(200, {"content": "hi"}) as (url, seen):
            self.engine(url).execute("hello")
        self.assertEqual(seen[0][2], {"prompt": "hello"})

    def test_402_is_budget_exceeded(self):
        answer = {"error": {"code": "budget_exceeded", "message": "nothing left"}}
        error = self.refused(402, answer, [("x-warden-decision", "d-2")])
        self.assertIsInstance(error, BudgetExceeded)
        self.assertEqual((error.code, error.status, error.retryable), ("budget_exceeded", 402, False))
        self.assertEqual(error.decision, "d-2")
        self.assertEqual(str(error), "budget_exceeded: nothing left")

    def test_a_refusal_keeps_its_code(self):
        error = self.refused(404, {"error": {"code": "unknown_model", "message": "no such model"}})
        self.assertNotIsInstance(error, BudgetExceeded)
        self.assertEqual((error.code, error.status, error.retryable), ("unknown_model", 404, False))

    def test_an_error_survives_the_way_to_another_process(self):
        error = BudgetExceeded("budget_exceeded", "nothing left", 402, decision="d-2")
        again = pickle.loads(pickle.dumps(error))
        self.assertIsInstance(again, BudgetExceeded)
        self.assertEqual((str(again), vars(again)), (str(error), vars(error)))

    def test_an_overload_may_be_tried_again_even_if_its_body_is_no_json(self):
        error = self.refused(503, b"<html>")
        self.assertEqual((error.code, error.status, error.retryable), ("http_503", 503, True))

    def test_a_success_without_content_is_an_error(self):
        for answer in (b"", b"[]", {"content": None}):
            with self.subTest(answer=answer):
                error = self.refused(200, answer)
                self.assertEqual((error.code, error.status), ("bad_answer", 200))

    def test_the_token_does_not_follow_a_redirect(self):
        with gateway(200, {"content": "stolen"}) as (elsewhere, seen):
            error = self.refused(307, b"", [("location", elsewhere + "/execute")])
        self.assertEqual(error.code, "http_307")
        self.assertEqual(seen, [])

    def test_the_token_does_not_go_to_a_proxy(self):
        with gateway(200, {"content": "proxy"}) as (proxy, seen), gateway(200, {"content": "hi"}) as (url, _):
            with mock.patch.dict(os.environ, {"http_proxy": proxy, "no_proxy": ""}):
                self.assertEqual(self.engine(url).execute("hello").content, "hi")
        self.assertEqual(seen, [])

    def test_a_refused_connection_is_an_error_that_may_pass(self):
        # Bound but not listening: the port is ours, and nobody answers on it.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with self.assertRaises(EngineError) as caught:
                self.engine(f"http://127.0.0.1:{taken.getsockname()[1]}").execute("hello")
        error = caught.exception
        self.assertEqual((error.code, error.status, error.retryable), ("unreachable", None, True))

    def test_a_timeout_is_an_error_that_may_pass(self):
        with mock.patch.object(socket, "create_connection", side_effect=socket.timeout("timed out")):
            with self.assertRaises(EngineError) as caught:
                self.engine("http://127.0.0.1:7171").execute("hello")
        error = caught.exception
        self.assertEqual((error.code, error.status, error.retryable), ("timeout", None, True))

    def test_without_a_usable_token_nothing_is_sent(self):
        for token in ("", "  ", "two\nlines"):
            with self.subTest(token=token), mock.patch.dict(os.environ, {"WARDEN_TOKEN": token}):
                with gateway(200, {"content": "hi"}) as (url, seen):
                    with self.assertRaises(EngineError) as caught:
                        self.engine(url).execute("hello")
                self.assertEqual(caught.exception.code, "no_token")
                self.assertNotIn("lines", str(caught.exception))
                self.assertEqual(seen, [])


class Exports(unittest.TestCase):
    def test_everything_that_is_exported_is_there(self):
        for name in warden_engine.__all__:
            self.assertTrue(hasattr(warden_engine, name), name)


if __name__ == "__main__":
    unittest.main()

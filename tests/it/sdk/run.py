"""Makes the same calls with the official SDKs, to a provider directly and through Warden, and compares what comes back and
what the provider was sent.

    run.py --direct URL --through URL --token-file FILE [--tap PORT] [--group refusals] [--only PART]
    run.py --direct URL --self                          direct against direct: shows that the comparison itself is right

The provider is aimock with fixtures.json. Its journal blanks out credentials, and retells bodies of three of the APIs in the
terms of OpenAI's chat, without what has no place there. With --tap, this listens on PORT, hands everything on to --direct and
compares what went over the wire as well; Warden's engines then have to point at PORT.
"""

import argparse
import asyncio
import copy
import json
import pathlib
import secrets
import string
import sys
import urllib.request
import warnings

import anthropic
import openai
from google import genai
from google.genai import errors, types

sys.dont_write_bytecode = True
from tap import open_tap

GPT, CLAUDE, GEMINI = "gpt-4o-mini", "claude-sonnet-5-5", "gemini-2.5-flash"
SECONDS = 30
# aimock ends Gemini's function calls with FUNCTION_CALL, which is no reason that Gemini knows.
warnings.filterwarnings("ignore", "FUNCTION_CALL is not a valid FinishReason")


class Sdk:
    """The clients, all pointed at one place."""

    def __init__(self, base, key):
        self.base, self.key = base, key
        more = {"api_key": key, "max_retries": 0, "timeout": SECONDS}
        self.openai = openai.OpenAI(base_url=f"{base}/v1", **more)
        self.anthropic = anthropic.Anthropic(base_url=base, **more)
        # Left to itself this SDK asks for /v1/models/…, which neither aimock nor Warden serves.
        once = types.HttpRetryOptions(attempts=1)
        at = types.HttpOptions(base_url=base, api_version="v1beta", timeout=SECONDS * 1000, retry_options=once)
        self.gemini = genai.Client(api_key=key, http_options=at)
        self.async_openai = lambda: openai.AsyncOpenAI(base_url=f"{base}/v1", **more)
        self.async_anthropic = lambda: anthropic.AsyncAnthropic(base_url=base, **more)
        self.async_gemini = lambda: genai.Client(api_key=key, http_options=at).aio


# --- What is asked

SCHEMAS = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["hPa", "mmHg"]}},
        "required": ["city"],
    },
    "get_time": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
}
CHAT_TOOLS = [{"type": "function", "function": {"name": n, "parameters": s}} for n, s in SCHEMAS.items()]
RESPONSES_TOOLS = [{"type": "function", "name": n, "parameters": s, "strict": False} for n, s in SCHEMAS.items()]
ANTHROPIC_TOOLS = [{"name": n, "description": n, "input_schema": s} for n, s in SCHEMAS.items()]
GEMINI_TOOLS = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[
    types.FunctionDeclaration(name=n, description=n, parameters_json_schema=s) for n, s in SCHEMAS.items()
])])


def user(text):
    return [{"role": "user", "content": text}]


def about(word):
    return f"Tell me about the {word}, s'il vous plaît."


def chat(client, word, **more):
    return client.chat.completions.create(**{"model": GPT, "messages": user(about(word)), **more})


def responses(client, word, **more):
    return client.responses.create(**{"model": GPT, "input": about(word), **more})


def message(word, **more):
    return {"model": CLAUDE, "max_tokens": 400, "messages": user(about(word)), **more}


def gemini(client, word, **more):
    return client.models.generate_content(**{"model": GEMINI, "contents": about(word), **more})


def gemini_stream(client, word, **more):
    return client.models.generate_content_stream(**{"model": GEMINI, "contents": about(word), **more})


CASES = []
THROUGH_ONLY = []


def case(name, cases=CASES):
    return lambda call: cases.append((name, call)) or call


@case("openai chat")
def _(sdk):
    return chat(sdk.openai, "pelican", messages=[{"role": "system", "content": "Be brief."}, *user("A pelican?")])


@case("openai chat, many parameters")
def _(sdk):
    odd = {"not_in_any_document": {"a": [1, None, 2.5, 1e-7], "z": "", "b": {}}}
    return chat(sdk.openai, "pelican", temperature=0.1, seed=9007199254740993, stop=["\n\n"], max_tokens=64, user="ü",
                logit_bias={"50256": -100}, metadata={"k": "v"}, extra_body=odd)


@case("openai chat stream")
def _(sdk):
    chunks = list(chat(sdk.openai, "lighthouse", stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks), "a chunk with usage that nobody asked for"
    return chunks


@case("openai chat stream, usage asked for")
def _(sdk):
    chunks = list(chat(sdk.openai, "lighthouse", stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens == 88 and not chunks[-1].choices, "no chunk with the usage at the end"
    return chunks


@case("openai chat stream, usage not wanted")
def _(sdk):
    chunks = list(chat(sdk.openai, "pelican", stream=True, stream_options={"include_usage": False}))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks), "a chunk with usage that nobody asked for"
    return chunks


@case("openai chat stream helper")
def _(sdk):
    with sdk.openai.chat.completions.stream(model=GPT, messages=user(about("lighthouse"))) as stream:
        return [*stream, stream.get_final_completion()]


@case("openai chat tool call")
def _(sdk):
    return chat(sdk.openai, "barometer", tools=CHAT_TOOLS, tool_choice="auto")


@case("openai chat tool call stream")
def _(sdk):
    return list(chat(sdk.openai, "barometer", tools=CHAT_TOOLS, stream=True))


@case("openai chat two tool calls")
def _(sdk):
    answer = chat(sdk.openai, "sextant", tools=CHAT_TOOLS, parallel_tool_calls=True)
    assert len(answer.choices[0].message.tool_calls) == 2
    return answer


@case("openai chat two tool calls stream")
def _(sdk):
    chunks = list(chat(sdk.openai, "sextant", tools=CHAT_TOOLS, stream=True))
    deltas = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert {call.index for call in deltas} == {0, 1}
    return chunks


@case("openai chat tool result")
def _(sdk):
    asked = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Kraków"}'}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [asked]},
             {"role": "tool", "tool_call_id": "call_1", "content": '{"pressure": 1013.0}'}]
    return chat(sdk.openai, "", messages=user(about("barometer")) + turns, tools=CHAT_TOOLS)


@case("openai chat async stream")
def _(sdk):
    async def call():
        async with sdk.async_openai() as client:
            return [chunk async for chunk in await chat(client, "lighthouse", stream=True)]
    return asyncio.run(call())


@case("openai responses")
def _(sdk):
    return responses(sdk.openai, "pelican", instructions="Be brief.", store=False, metadata={"k": "v"})


@case("openai responses stream")
def _(sdk):
    return list(responses(sdk.openai, "lighthouse", stream=True, max_output_tokens=500))


@case("openai responses tool call")
def _(sdk):
    return responses(sdk.openai, "barometer", tools=RESPONSES_TOOLS)


@case("openai responses tool call stream")
def _(sdk):
    return list(responses(sdk.openai, "barometer", tools=RESPONSES_TOOLS, stream=True))


@case("openai responses two tool calls stream")
def _(sdk):
    return list(responses(sdk.openai, "sextant", tools=RESPONSES_TOOLS, stream=True))


@case("openai responses tool result")
def _(sdk):
    asked = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Kraków"}'}
    told = {"type": "function_call_output", "call_id": "call_1", "output": "1013"}
    return responses(sdk.openai, "", input=[*user(about("barometer")), asked, told], tools=RESPONSES_TOOLS)


@case("openai responses async stream")
def _(sdk):
    async def call():
        async with sdk.async_openai() as client:
            return [event async for event in await responses(client, "lighthouse", stream=True)]
    return asyncio.run(call())


@case("openai models", THROUGH_ONLY)
def _(sdk):
    models = list(sdk.openai.models.list())
    assert models and all(model.id and model.object == "model" for model in models), models


@case("anthropic messages")
def _(sdk):
    more = {"system": "Be brief.", "metadata": {"user_id": "u"}, "stop_sequences": ["\n\n"], "extra_body": {"top_k": 5}}
    return sdk.anthropic.messages.create(**message("pelican"), **more)


@case("anthropic messages, x-api-key")
def _(sdk):
    headers = {"x-api-key": sdk.key, "authorization": anthropic.Omit()}
    return sdk.anthropic.messages.create(**message("pelican"), extra_headers=headers)


@case("anthropic messages, beta")
def _(sdk):
    return sdk.anthropic.beta.messages.create(**message("pelican"), betas=["a-beta-2025-01-01"])


@case("anthropic stream helper")
def _(sdk):
    with sdk.anthropic.messages.stream(**message("lighthouse")) as stream:
        return [*stream, stream.get_final_message()]


@case("anthropic stream")
def _(sdk):
    return list(sdk.anthropic.messages.create(**message("lighthouse"), stream=True))


@case("anthropic tool use")
def _(sdk):
    return sdk.anthropic.messages.create(**message("barometer"), tools=ANTHROPIC_TOOLS)


@case("anthropic tool use stream")
def _(sdk):
    with sdk.anthropic.messages.stream(**message("barometer"), tools=ANTHROPIC_TOOLS) as stream:
        return [*stream, stream.get_final_message()]


@case("anthropic two tool uses stream")
def _(sdk):
    return list(sdk.anthropic.messages.create(**message("sextant"), tools=ANTHROPIC_TOOLS, stream=True))


@case("anthropic tool result")
def _(sdk):
    asked = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Kraków"}}
    told = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1013"}
    turns = [{"role": "assistant", "content": [asked]}, {"role": "user", "content": [told]}]
    return sdk.anthropic.messages.create(**message("", messages=user(about("barometer")) + turns), tools=ANTHROPIC_TOOLS)


@case("anthropic async stream")
def _(sdk):
    async def call():
        async with sdk.async_anthropic() as client, client.messages.stream(**message("lighthouse")) as stream:
            return [event async for event in stream] + [await stream.get_final_message()]
    return asyncio.run(call())


@case("gemini")
def _(sdk):
    config = types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.1, top_k=5)
    return gemini(sdk.gemini, "pelican", config=config)


@case("gemini stream")
def _(sdk):
    return list(gemini_stream(sdk.gemini, "lighthouse", config=types.GenerateContentConfig(max_output_tokens=500)))


@case("gemini function call")
def _(sdk):
    return gemini(sdk.gemini, "barometer", config=GEMINI_TOOLS)


@case("gemini two function calls stream")
def _(sdk):
    return list(gemini_stream(sdk.gemini, "sextant", config=GEMINI_TOOLS))


@case("gemini async stream")
def _(sdk):
    async def call():
        async with sdk.async_gemini() as client:
            return [chunk async for chunk in await gemini_stream(client, "lighthouse")]
    return asyncio.run(call())


# --- What came back

IDS = {"id", "item_id", "call_id", "tool_call_id", "tool_use_id", "request_id", "response_id", "system_fingerprint"}
TIMES = {"created", "created_at", "completed_at", "create_time"}


def plain(value):
    """What an SDK returned, as JSON. Headers of the answer are not part of it."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.model_dump(mode="json", exclude={"sdk_http_response"}, warnings=False)


def masked(value, names):
    """Ids become their order of appearance, so that it still shows which are the same; times become one word."""
    if isinstance(value, list):
        return [masked(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for name, inner in value.items():
        if name in IDS and isinstance(inner, str):
            out[name] = names.setdefault(inner, f"id {len(names)}")
        elif name in TIMES and inner is not None:
            out[name] = "a time"
        else:
            out[name] = masked(inner, names)
    return out


def difference(a, b, at=""):
    """The first place where they differ, or None."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in [*a, *(name for name in b if name not in a)]:
            if name not in a or name not in b:
                return f"{at}.{name}: only {'directly' if name in a else 'through Warden'}"
            if found := difference(a[name], b[name], f"{at}.{name}"):
                return found
    elif isinstance(a, list) and isinstance(b, list):
        for i, (one, other) in enumerate(zip(a, b)):
            if found := difference(one, other, f"{at}[{i}]"):
                return found
        if len(a) != len(b):
            return f"{at}: {len(a)} and {len(b)} items"
    elif a != b or type(a) is not type(b):
        return f"{at}: {a!r} directly, {b!r} through Warden"
    return None


# --- What the provider was sent

# What Warden may add where a client leaves it out.
MAY_ADD = {
    "/v1/chat/completions": [("stream_options", "include_usage"), ("max_completion_tokens",)],
    "/v1/responses": [("max_output_tokens",)],
    "/v1beta/": [("generationConfig", "maxOutputTokens")],
    "/v1/messages": [],
}
# What the journal calls the last two.
RETOLD = {"/v1/responses": [("max_tokens",)], "/v1beta/": [("max_tokens",)]}


def without_additions(source, path, asked, passed):
    passed = copy.deepcopy(passed)
    may_add = MAY_ADD | RETOLD if source == "the journal" else MAY_ADD
    for place in next(places for prefix, places in may_add.items() if path.startswith(prefix)):
        if place[0] == "stream_options" and not asked.get("stream"):
            continue
        if place == ("max_completion_tokens",) and "max_tokens" in asked:
            continue
        theirs, ours = (body if len(place) == 1 else body.get(place[0], {}) for body in (asked, passed))
        leaf = place[-1]
        if ours.get(leaf) and not theirs.get(leaf):
            del ours[leaf]
            if leaf in theirs:
                ours[leaf] = theirs[leaf]
            if ours == {} and place[0] not in asked:
                del passed[place[0]]
    return passed


class Provider:
    def __init__(self, url, key, wire):
        self.wire, self.known = wire, set()
        self.journal = urllib.request.Request(f"{url}/__aimock/journal", headers={"authorization": f"Bearer {key}"})
        self.news()

    def news(self):
        """The calls since the last time, as the journal and as the tap tell them: path, headers, body."""
        with urllib.request.urlopen(self.journal) as answer:
            entries = [entry for entry in json.load(answer) if entry["id"] not in self.known]
        self.known |= {entry["id"] for entry in entries}
        told = {"the journal": [(entry["path"], list(entry["headers"].items()), entry["body"]) for entry in entries]}
        if self.wire is not None:
            told["the wire"] = [(path, headers, body) for method, path, headers, body in self.wire if method == "POST"]
            self.wire.clear()
        return told


def upstream_differs(direct, through, token):
    for source in direct:
        asked, passed = direct[source], through[source]
        if len(asked) != 1 or len(passed) != 1:
            return f"{source} has {len(asked)} direct requests and {len(passed)} through Warden, not one of each"
        (path, headers, body), (its_path, its_headers, its_body) = asked[0], passed[0]
        if path != its_path:
            return f"{source}: path {path} directly, {its_path} through Warden"
        if token and token in json.dumps(passed):
            return f"{source}: the worker's token went to the provider"
        for name in ("content-type", "anthropic-version", "anthropic-beta"):
            one, other = dict(headers).get(name), dict(its_headers).get(name)
            if one != other:
                return f"{source}: {name} {one} directly, {other} through Warden"
        if found := difference(body, without_additions(source, path, body, its_body)):
            return f"{source}: body{found}"
    return None


def compare(call, direct, through, provider, token):
    provider.news()
    there = masked(plain(call(direct)), {})
    asked = provider.news()
    here = masked(plain(call(through)), {})
    found = difference(there, here, "answer") or upstream_differs(asked, provider.news(), token)
    assert not found, found


# --- Refusals, through Warden only

def ask_chat(sdk, prompt, model=GPT, stream=False):
    return sdk.openai.chat.completions.create(model=model, messages=user(prompt), stream=stream)


def ask_responses(sdk, prompt, model=GPT, stream=False):
    return sdk.openai.responses.create(model=model, input=prompt, stream=stream)


def ask_messages(sdk, prompt, model=CLAUDE, stream=False):
    return sdk.anthropic.messages.create(model=model, max_tokens=400, messages=user(prompt), stream=stream)


def ask_gemini(sdk, prompt, model=GEMINI, stream=False):
    ask = sdk.gemini.models.generate_content_stream if stream else sdk.gemini.models.generate_content
    return ask(model=model, contents=prompt)


def openai_shape(error, status):
    return error.status_code == status and error.body["message"] and error.body["type"]


def anthropic_shape(error, status):
    inner = error.body["error"]
    return error.status_code == status and error.body["type"] == "error" and inner["type"] and inner["message"]


def gemini_shape(error, status):
    return error.code == status == error.details["error"]["code"] and error.status and error.message


STATUS = {401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError"}
GEMINI_CLASSES = {name: errors.ClientError for name in STATUS.values()} | {"APIError": errors.APIError}
# API: the call, the SDK's error classes, whether an error has the API's shape, the text that a streamed event adds
APIS = {
    "openai chat": (ask_chat, vars(openai), openai_shape,
                    lambda chunk: "".join(choice.delta.content or "" for choice in chunk.choices)),
    "openai responses": (ask_responses, vars(openai), openai_shape,
                         lambda event: event.delta if event.type == "response.output_text.delta" else ""),
    "anthropic": (ask_messages, vars(anthropic), anthropic_shape,
                  lambda event: getattr(event.delta, "text", "") if event.type == "content_block_delta" else ""),
    "gemini": (ask_gemini, GEMINI_CLASSES, gemini_shape, lambda chunk: chunk.text or ""),
}


def count(provider):
    return len(provider.news()["the journal"])


def refused(api, status, sdk, provider, prompt, **more):
    ask, classes, shape, _ = APIS[api]
    provider.news()
    try:
        answer = ask(sdk, prompt, **more)
        answer = list(answer) if more.get("stream") else answer
    except classes[STATUS[status]] as error:
        try:
            assert shape(error, status)
        except (AssertionError, KeyError, TypeError):
            raise AssertionError(f"not in the API's shape: {error!r}") from error
        assert prompt not in str(error), "the refusal repeats what was refused"
        assert (reached := count(provider)) == 0, f"the provider was asked {reached} times"
        return
    raise AssertionError(f"not refused: {plain(answer)}")


def passes(api, sdk, provider):
    provider.news()
    APIS[api][0](sdk, about("pelican"))
    assert (reached := count(provider)) == 1, f"the journal shows {reached} requests where one was made"


def secret_stays_away(api, sdk, provider):
    """A provider's answer says a secret: the client never sees it, and the stream comes to an end that the SDK understands."""
    ask, classes, _, text = APIS[api]
    timeout = classes.get("APITimeoutError", ())
    provider.news()
    events, end = [], ""
    try:
        events.extend(ask(sdk, "Open the strongbox.", stream=True))
    except timeout:
        raise AssertionError("the stream never ended")
    except classes["APIError"] as error:
        end = str(error)
    assert (reached := count(provider)) == 1, f"the provider was asked {reached} times"
    seen = "".join(text(event) for event in events) + json.dumps(plain(events)) + end
    assert "ghp_aB3d" not in seen, f"the client saw the secret: {seen[:200]}"


def refusals(through, provider):
    """Name and call of each case, to be made before the next is asked for."""
    token = "ghp_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(36))
    stranger = Sdk(through.base, "wdt_" + secrets.token_hex(32))
    for api in APIS:
        # First: without it, a Warden that refuses everything would pass the rest.
        yield f"{api} passes", lambda: passes(api, through, provider)
        for stream in (False, True):
            how = " stream" if stream else ""
            secret = f"Remember {token} for me."
            yield f"{api}{how}, secret asked", lambda: refused(api, 403, through, provider, secret, stream=stream)
        yield f"{api}, unknown token", lambda: refused(api, 401, stranger, provider, about("pelican"))
        yield f"{api}, unknown model", lambda: refused(api, 404, through, provider, about("pelican"), model="no-such-model")
        yield f"{api} stream, secret answered", lambda: secret_stays_away(api, through, provider)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--direct", required=True, metavar="URL", help="the provider")
    options.add_argument("--key", default="provider-key", help="what the provider takes as a key")
    options.add_argument("--through", metavar="URL", help="Warden's worker plane")
    options.add_argument("--token-file", type=pathlib.Path, metavar="FILE", help="the worker's token")
    options.add_argument("--tap", type=int, metavar="PORT", help="compare what went over the wire; engines point at PORT")
    options.add_argument("--group", choices=["same", "refusals"], default="same")
    options.add_argument("--only", default="", metavar="PART", help="only cases with PART in their name")
    options.add_argument("--self", action="store_true", help="compare direct with direct")
    asked = options.parse_args()
    if not asked.self and not (asked.through and asked.token_file):
        options.error("--through and --token-file, or --self")
    if asked.self and asked.group == "refusals":
        options.error("a provider alone refuses nothing")

    provider = Provider(asked.direct, asked.key, open_tap(asked.tap, asked.direct) if asked.tap else None)
    direct = Sdk(f"http://127.0.0.1:{asked.tap}" if asked.tap else asked.direct, asked.key)
    token = None if asked.self else asked.token_file.read_text().strip()
    through = direct if asked.self else Sdk(asked.through, token)

    if asked.group == "same" and not asked.tap:
        print("without --tap, credentials are not seen and most bodies only in part", file=sys.stderr)
    if asked.group == "refusals":
        cases = refusals(through, provider)
    else:
        cases = [(name, lambda call=call: compare(call, direct, through, provider, token)) for name, call in CASES]
        cases += [(name, lambda call=call: call(through)) for name, call in THROUGH_ONLY]
    passed = failed = 0
    for name, run in cases:
        if asked.only not in name:
            continue
        try:
            run()
            passed += 1
            print(f"ok {name}", flush=True)
        except Exception as error:
            why = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            failed += 1
            print(f"FAILED {name}: {' '.join(why.split())[:600]}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())

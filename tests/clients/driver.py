"""HTTP clients for the tests, driven by lines of JSON on stdin, one command a line; answers come on stdout, each with
the `id` of its command, in any order. Ends when stdin does.

open     client, protocol, target            → session, resumed
request  session, ask                        → status, headers, body
hold     session, ask                        → as request; the body does not end before `release`
release  request, bytes                      → the rest of that body is sent
raw      session, bytes                      → as request; h1 only
pour     session, ask, bytes, times, ends, on → h3 only: status, stopped, reset, closed; bytes as they are on a
                                             stream (`request`, `uni`, `control`), and how the gateway ends it
churn    session, ask, times                 → h3 only: as closed, and begun; requests that are given up at once
told     session                             → h3 only: what the gateway allows
move     session                             → h3 only: packets come from another port from now on
vanish   session                             → h3 only: no packets come any more
stop_critical session, code                  → h3 only: the gateway's control stream is not wanted
closed   session                             → how: waits until the gateway ends the connection
close    session
load     sessions, name, pad, roams          → load: one sender for each session, as fast as answers come; one that
                                               roams connects anew when it is told to go or the connection ends
progress load                                → how often each outcome has been seen
stop     load                                → outcomes of each sender, in its order

A command that fails is answered with `error`. Bytes are base64."""

import asyncio
import base64
import collections
import itertools
import json
import sys

from libraries import CurlCffi, Httpx
from wire import Ask, NotSent, Target
from wire_h1 import H1
from wire_h2 import H2
from wire_h3 import H3

WIRE = {"h1": H1, "h2": H2, "h3": H3}
LIBRARIES = {"httpx": Httpx, "curl_cffi": CurlCffi}

# A refused sender does not come back at once.
PAUSE_SECONDS = 0.02

# A line of JSON holds a body of some MiB.
LINE_BYTES_MAX = 64 << 20


class Load:
    """Senders that post `{name}-{sender}-{number}` one after another, each on a connection of its own."""

    def __init__(self, sessions, name, pad, roams):
        self.name, self.pad, self.roams = name, pad, roams
        self.outcomes = [[] for _ in sessions]
        self.stopping = False
        self.tasks = [asyncio.create_task(self.send(n, session)) for n, session in enumerate(sessions)]

    async def send(self, sender, session):
        while not self.stopping:
            number = len(self.outcomes[sender])
            body = f"{self.name}-{sender}-{number}".encode().ljust(self.pad)
            ask = Ask("POST", "/v1/telemetry", session.authority, [], body, str(len(body)))
            try:
                reply = await session.request(ask)
            except Exception as error:
                if not (self.roams and isinstance(error, NotSent)):
                    self.outcomes[sender].append(f"{type(error).__name__}: {error}")
                if not self.roams:
                    return
                session = await self.move(session)
                continue
            outcome = reply["status"]
            self.outcomes[sender].append(outcome)
            if self.roams and ["connection", "close"] in map(list, reply["headers"]):
                session = await self.move(session)
            if outcome != 204:
                await asyncio.sleep(PAUSE_SECONDS)

    async def move(self, session):
        await session.close()
        return await session.again()

    def progress(self):
        return collections.Counter(str(outcome) for sender in self.outcomes for outcome in sender)

    async def stop(self):
        self.stopping = True
        await asyncio.gather(*self.tasks)
        return self.outcomes


class Driver:
    def __init__(self):
        self.things = {}
        self.held = {}
        self.numbers = itertools.count(1)

    def keep(self, thing):
        number = next(self.numbers)
        self.things[number] = thing
        return number

    def ask(self, session, fields, held=None):
        body = base64.b64decode(fields["body"])
        authority = fields.get("authority") or session.authority
        return Ask(fields["method"], fields["path"], authority, fields["headers"], body, fields["length"], held)

    async def run(self, command):
        do = getattr(self, "do_" + command["do"])
        return await do(command)

    async def do_open(self, command):
        target = Target(**command["target"])
        target.resumes = self.things.get(target.resumes)
        session = await self.connect(command["client"], command["protocol"], target)
        return {"session": self.keep(session), "resumed": getattr(session, "resumed", False)}

    async def connect(self, client, protocol, target):
        if client == "wire":
            session = await WIRE[protocol].open(target)
        else:
            session = await LIBRARIES[client].open(target, protocol)
        session.authority = f"{target.host}:{target.port}"
        session.again = lambda: self.connect(client, protocol, target)
        return session

    async def do_request(self, command):
        session = self.things[command["session"]]
        return await session.request(self.ask(session, command["ask"]))

    async def do_hold(self, command):
        session = self.things[command["session"]]
        held = self.held[command["id"]] = asyncio.get_running_loop().create_future()
        return await session.request(self.ask(session, command["ask"], held))

    async def do_release(self, command):
        self.held.pop(command["request"]).set_result(base64.b64decode(command["bytes"]))
        return {}

    async def do_raw(self, command):
        return await self.things[command["session"]].raw(base64.b64decode(command["bytes"]))

    async def do_pour(self, command):
        session = self.things[command["session"]]
        ask = command["ask"] and self.ask(session, command["ask"])
        data = base64.b64decode(command["bytes"])
        return await session.pour(ask, data, command["times"], command["ends"], command["on"])

    async def do_churn(self, command):
        session = self.things[command["session"]]
        begun, how = await session.churn(self.ask(session, command["ask"]), command["times"])
        return {"how": how, "begun": begun}

    async def do_told(self, command):
        return self.things[command["session"]].told()

    async def do_move(self, command):
        await self.things[command["session"]].move()
        return {}

    async def do_vanish(self, command):
        self.things[command["session"]].vanish()
        return {}

    async def do_stop_critical(self, command):
        await self.things[command["session"]].stop_critical(command["code"])
        return {}

    async def do_closed(self, command):
        return {"how": await self.things[command["session"]].closed()}

    async def do_close(self, command):
        await self.things.pop(command["session"]).close()
        return {}

    async def do_load(self, command):
        sessions = [self.things[session] for session in command["sessions"]]
        return {"load": self.keep(Load(sessions, command["name"], command["pad"], command["roams"]))}

    async def do_progress(self, command):
        return {"seen": self.things[command["load"]].progress()}

    async def do_stop(self, command):
        return {"outcomes": await self.things.pop(command["load"]).stop()}


async def answer(driver, command):
    try:
        result = await driver.run(command)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps({"id": command["id"], **result}) + "\n")
    sys.stdout.flush()


async def main():
    stdin = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    driver, tasks = Driver(), set()
    while line := await stdin.readline():
        task = asyncio.create_task(answer(driver, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())

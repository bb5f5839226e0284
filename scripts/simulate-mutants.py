#!/usr/bin/env python3
"""Breaks the gateway in each of the ways below and runs the simulator: each must be found within CI's seeds.

All mutants are built into one test binary, in which FOREBAY_MUTANT names the one that lives, from a copy of the last
commit under target/. `scripts/simulate-mutants.py [NAME…]` prints one row a mutant and fails where one is not found. Needs Python.
"""

import json
import os
import re
import shutil
import subprocess
import sys

# Name, file, what is there, and what takes its place; MUTANT stands for "this mutant lives".
MUTANTS = [
    ("an answer before the sync", "src/spool/commit/segment_writer.rs",
     "        self.file.sync()?;\n        if self.file.is_linked",
     "        if !MUTANT { self.file.sync()?; }\n        if self.file.is_linked"),
    ("a wake that is forgotten at the hand-over", "src/handover.rs",
     "        self.0.queue.push(item)?;\n        self.0.receiver.wake();",
     "        self.0.queue.push(item)?;\n        if !MUTANT { self.0.receiver.wake(); }"),
    ("a permit that is leaked", "src/record/permit.rs",
     "        self.shrink_to(0);",
     "        if !(MUTANT && self.bytes % 64 == 7) { self.shrink_to(0); }"),
    ("a slot that is never free again", "src/batcher/waiters.rs",
     "        Some(Slot::Abandoned) => free(&mut slots, key),",
     "        Some(Slot::Abandoned) => if !MUTANT { free(&mut slots, key) },"),
    ("a record that goes again behind its device's others", "src/delivery/window.rs",
     "            line.records.push_front(placed);",
     "            if MUTANT { line.records.push_back(placed) } else { line.records.push_front(placed) }"),
    ("a device that is let go by its last record", "src/delivery/backlog/devices.rs",
     "        if stretch.waiting == 0 {",
     "        if stretch.waiting == 0 || (MUTANT && place == stretch.last) {"),
    ("a copy on disk that is delivered although the sink had it", "src/delivery/overflow.rs",
     "            if *outcomes.get(*position) == Outcome::Delivered {",
     "            if *outcomes.get(*position) == Outcome::Delivered && !MUTANT {"),
    ("a copy on disk that does not wait for the sink's answer", "src/delivery/backlog.rs",
     "        self.doubts.borrow().contain(place)",
     "        !MUTANT && self.doubts.borrow().contain(place)"),
    ("records that a process before left and nobody holds back", "src/delivery/backlog.rs",
     "        let unknown_before = Cell::new(spool.backlog.places().end);",
     "        let unknown_before = Cell::new(if MUTANT { 0 } else { spool.backlog.places().end });"),
    ("a breaker that never closes", "src/delivery/watch/stream.rs",
     "        self.refusal = None;\n        self.has_trial = false;",
     "        if !MUTANT { self.refusal = None; }\n        self.has_trial = false;"),
    ("a request that waits past its time-out", "src/batcher.rs",
     "                self.waiters.expire(now);",
     "                if !MUTANT { self.waiters.expire(now); }"),
    ("an unknown outcome that is told as a refusal", "src/ingest.rs",
     "        Outcome::Unknown => Err(Refusal::AckTimeout),",
     "        Outcome::Unknown => Err(if MUTANT { Refusal::SinkUnavailable } else { Refusal::AckTimeout }),"),
    ("a refusal that is told as a success", "src/ingest.rs",
     "        Outcome::Retryable(_) | Outcome::Barred(_) => Err(Refusal::SinkUnavailable),",
     "        Outcome::Retryable(_) | Outcome::Barred(_) => if MUTANT { Ok(()) } else { Err(Refusal::SinkUnavailable) },"),
    ("a retry of what was delivered", "src/delivery/drain/errand.rs",
     "            Outcome::Delivered => Self::Done,",
     "            Outcome::Delivered => if MUTANT { Self::Again } else { Self::Done },"),
    ("an exit code that lies", "src/delivery/queued.rs",
     "            promised.made(records.len());",
     "            if !MUTANT { promised.made(records.len()); }"),
    ("a drain that sends nothing on", "src/batcher.rs",
     "        self.is_emptying.set(true);",
     "        self.is_emptying.set(!MUTANT);"),
    ("a batch that is counted at the sink for good", "src/delivery/watch/stream.rs",
     "        debug_assert!(self.in_flight > 0, \"a batch leaves once\");\n        self.in_flight -= 1;",
     "        if !(MUTANT && self.failing_since.is_some()) { self.in_flight -= 1; }"),
    ("records that are lost, and exit code 0", "src/gateway/threads.rs",
     "        if records > 0 {",
     "        if records > 0 && !MUTANT {"),
    ("a second signal that nobody hears", "src/gateway/shutdown.rs",
     "        () = second_signal => tracing",
     "        () = async { second_signal.await; if MUTANT { std::future::pending().await } } => tracing"),
    ("a drain without a deadline", "src/gateway/shutdown.rs",
     "        () = sleep(drain_timeout) => tracing",
     "        () = sleep(if MUTANT { drain_timeout * 1000 } else { drain_timeout }) => tracing"),
    ("a phase that is left out", "src/gateway/shutdown.rs",
     "            self.lifecycle.advance(Phase::Hurrying);",
     "            if !MUTANT { self.lifecycle.advance(Phase::Hurrying); }"),
    ("expired credentials that are told as a refusal for good", "src/sink/kinesis/failure.rs",
     "        \"ExpiredTokenException\" | \"ExpiredToken\" | \"RequestExpired\" => {\n            Failure::Expired(code.into())",
     "        \"ExpiredTokenException\" | \"ExpiredToken\" | \"RequestExpired\" => {\n            if MUTANT { Failure::Refused(code.into()) } else { Failure::Expired(code.into()) }"),
    ("credentials that are never renewed", "src/sink/kinesis/service.rs",
     "        if matches!(failure, Failure::Expired(_)) {",
     "        if matches!(failure, Failure::Expired(_)) && !MUTANT {"),
    ("an aggregate split that loses its second half", "src/sink/kinesis/call.rs",
     "    parts.extend([second, std::mem::take(part)]);",
     "    if !MUTANT { parts.push(second); }\n    parts.push(std::mem::take(part));"),
    ("an aggregate that is written without its second half", "src/sink/kinesis/entry.rs",
     "            .iter()\n            .zip(&mut ids)",
     "            .iter()\n            .take(if MUTANT { self.entries.len().div_ceil(2) } else { usize::MAX })\n            .zip(&mut ids)"),
    ("an entry that has failed and is told as written", "src/sink/kinesis/call.rs",
     "            (_, Some(code)) => self.settle_failed(put, code),",
     "            (_, Some(code)) => if MUTANT { self.settle(put, &Verdict::Written) } else { self.settle_failed(put, code) },"),
    ("a lost answer that is told as nothing written", "src/sink/kinesis/call.rs",
     "        Failure::NoAnswer(_) => Verdict::Failed {\n            reason,\n            maybe_written: true,",
     "        Failure::NoAnswer(_) => Verdict::Failed {\n            reason,\n            maybe_written: !MUTANT,"),
    ("a flipped record that is delivered", "src/spool/store/opened.rs",
     "        if !header.fits(&self.header.salt, &body) {",
     "        if !header.fits(&self.header.salt, &body) && !MUTANT {"),
    ("a damaged header that costs the rest of its segment", "src/spool/store/reader.rs",
     "            Some((offset, header)) if header.first < segment.end => {",
     "            Some((offset, header)) if header.first < segment.end && !MUTANT => {"),
    ("damage that nobody is told of", "src/spool/store/reader.rs",
     "        self.metrics.frames_damaged(1);",
     "        if !MUTANT { self.metrics.frames_damaged(1); }"),
    ("a record that finds no room among the dead letters, and is dropped", "src/delivery/drain/errand.rs",
     "                self.0[index].1 = if is_safe { Fate::Done }",
     "                self.0[index].1 = if is_safe || MUTANT { Fate::Done }"),
    ("a devices file that open connections do not hear of", "src/ingest/caller.rs",
     "        if self.edition.replace(devices.edition()) == devices.edition() {",
     "        if self.edition.replace(devices.edition()) == devices.edition() || MUTANT {"),
    ("a limit of the devices file that outlives its line", "src/limits.rs",
     "        limits.requests.set(requests);",
     "        if !(MUTANT && settings.requests.is_none()) { limits.requests.set(requests); }"),
    ("a line of the devices file that no device is held to", "src/limits.rs",
     "            Some(quota) => Rule::new(quota),\n            None => self.class_of(device),",
     "            Some(quota) => if MUTANT { self.class_of(device) } else { Rule::new(quota) },\n            None => self.class_of(device),"),
]

SWITCH = """
#[allow(dead_code)]
pub(crate) fn mutant(name: &str) -> bool {
    static LIVES: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    LIVES.get_or_init(|| std::env::var("FOREBAY_MUTANT").ok()).as_deref() == Some(name)
}
"""

TEST = "tests::simulator::what_was_promised_is_kept_whatever_happens"


def main():
    os.chdir(subprocess.check_output(["git", "rev-parse", "--show-toplevel"], text=True).strip())
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", "target"))
    tree = os.path.join(target, "mutants")
    export(tree)
    for mutant in MUTANTS:
        mutate(tree, *mutant)
    with open(f"{tree}/src/jitter.rs", "a", encoding="utf-8") as jitter:
        jitter.write(SWITCH)
    binary = build(tree, target)
    wanted = sys.argv[1:] or [name for name, *_ in MUTANTS]
    assert run(binary, "none") is None, "the gateway itself fails"
    missed = [name for name in wanted if not report(name, run(binary, name))]
    sys.exit(f"not found: {missed}" if missed else 0)


def export(tree):
    """Puts the tree of the last commit beside what is built of it: nobody's work is touched."""
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(tree)
    archive = subprocess.Popen(["git", "archive", "HEAD"], stdout=subprocess.PIPE)
    subprocess.check_call(["tar", "--extract", "--directory", tree], stdin=archive.stdout)
    assert archive.wait() == 0, "the tree could not be read"


def mutate(tree, name, path, old, new):
    path = os.path.join(tree, path)
    with open(path, encoding="utf-8") as file:
        source = file.read()
    assert source.count(old) == 1, f"{name}: {path} has changed, and this list must follow"
    switch = f'crate::jitter::mutant("{name}")'
    with open(path, "w", encoding="utf-8") as file:
        file.write(source.replace(old, new.replace("MUTANT", switch)))


def build(tree, target):
    command = ["cargo", "test", "--lib", "--no-run", "--message-format=json", "--target-dir", target]
    for line in subprocess.check_output(command, text=True, cwd=tree).splitlines():
        message = json.loads(line)
        if message.get("executable"):
            return taken_out(message["executable"], tree)
    sys.exit("cargo has built no test")


def taken_out(executable, tree):
    """Copies the binary, and has cargo forget it: it would take it for that of the tree that is worked on, unchanged."""
    copy = shutil.copy(executable, tree)
    profile, name = os.path.dirname(os.path.dirname(executable)), os.path.basename(executable)
    shutil.rmtree(os.path.join(profile, ".fingerprint", name))
    return copy


def run(binary, name):
    """What the first seed that failed has found, None where none has."""
    environment = os.environ | {"FOREBAY_MUTANT": name, "FOREBAY_SIMULATE_STOPS": "1", "RUST_BACKTRACE": "0"}
    ran = subprocess.run([binary, TEST, "--exact", "--nocapture"], env=environment, capture_output=True, text=True)
    found = re.search(r"^seed (\d+): (.*)$", ran.stdout, re.MULTILINE)
    if ran.returncode == 0:
        return None
    return found.groups() if found else ("?", "the test ended otherwise")


def report(name, found):
    seed, what = found or ("-", "not found")
    print(f"| {name} | {seed} | {what[:100]} |", flush=True)
    return found is not None


if __name__ == "__main__":
    main()

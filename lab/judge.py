#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Judge what a VM run left behind: did it end well, and what did the tests say?

    lab/judge.py [--tests FILE] [--name NAME] DIR

DIR is what lab/vm.sh filled: console.log, out.log, status, ended.  The verdict
is TAP.  Each kernel splat (lab/splats) is a failure, as is a VM that did not power
off by itself or a command whose status never came.  With --tests, a file of
"collection:name seconds" lines, out.log is KTAP: every expected test must have a
result, and its subtests count one by one; the kernel's own parser reads them.
Without it the command's exit status is judge's own when all else is well.
"""

import argparse
import pathlib
import re
import sys

LAB = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(LAB.parent / 'build/tree/tools/testing/kunit'))
sys.dont_write_bytecode = True

LINE_MAX = 2000		# some tests print megabytes on one line
SPLAT_LINES = 25	# how much of a splat to show
KTAP = re.compile(r'^# ( *)((?:K?TAP version 1[0-9]?|1\.\.[0-9]+|(?:not )?ok [0-9]+).*)$')
RESULT = re.compile(r'^(not )?ok [0-9]+ selftests: ([^:]+): (\S+)')


class Verdict:
    """Prints TAP lines and remembers whether one was bad."""

    def __init__(self):
        self.failed = 0

    def ok(self, what, skip=None):
        print(f'ok - {what}' + (f' # SKIP {skip}' if skip is not None else ''))

    def bad(self, what, details=()):
        self.failed += 1
        print(f'not ok - {what}')
        for line in details:
            print(f'#   {line}')


def read_lines(path):
    if not path.exists():
        return []
    text = path.read_bytes().decode(errors='replace').replace('\r', '')
    return [line[:LINE_MAX] for line in text.split('\n')]


def splat_patterns():
    lines = (LAB / 'splats').read_text().splitlines()
    return re.compile('|'.join(f'(?:{l})' for l in lines if l and not l.startswith('#')))


def find_splats(console):
    """The first line of each splat, with the lines after it."""
    pattern = splat_patterns()
    splats = []
    end = 0
    for i, line in enumerate(console):
        if pattern.search(line) and i >= end:
            end = i + SPLAT_LINES
            splats.append((line, console[i + 1:end]))
    return splats


def judge_end(verdict, run, name, console):
    ended = (run / 'ended').read_text().strip() if (run / 'ended').exists() else 'nothing'
    status = read_lines(run / 'status')
    if ended != 'poweroff' or 'end' not in status:
        verdict.bad(f'{name}: the VM powered off by itself (it ended by: {ended})', console[-10:])
    else:
        verdict.ok(f'{name}: the VM powered off by itself')
    for line in status:
        if line.startswith('exit '):
            return int(line.split()[1])
    verdict.bad(f'{name}: the command ended and gave its status')
    return None


def judge_console(verdict, name, console):
    splats = find_splats(console)
    for line, after in splats:
        verdict.bad(f'{name}: kernel splat: {line}', after)
    if not splats:
        verdict.ok(f'{name}: the console shows no splat')


def segments(lines):
    """One KTAP document per run of the kselftest runner, by test name."""
    docs = []
    for line in lines:
        if line.startswith('TAP version 13'):
            docs.append([])
        if docs:
            docs[-1].append(line)
    found = {}
    for doc in docs:
        for line in doc:
            match = RESULT.match(line)
            if match:
                found[f'{match.group(2)}:{match.group(3)}'] = doc
    return found


def unindent(lines):
    """Nested KTAP is a comment to the runner; make it KTAP again."""
    return [KTAP.sub(lambda m: '  ' + m.group(1) + m.group(2), line) for line in lines]


def skip_reasons(doc):
    """KVM's tests give the reason in an empty plan, not in the result line."""
    return [m.group(1) for m in (re.search(r'# SKIP[ :-]*(.+)', l) for l in doc) if m]


def leaves(test):
    """What counts: a test without subtests, or the subtests."""
    if not test.subtests:
        return [test]
    return [leaf for sub in test.subtests for leaf in leaves(sub)]


def judge_test(verdict, kunit_parser, name, doc, took):
    printer = kunit_parser.Printer(print=False)
    root = kunit_parser.parse_run_tests(unindent(doc), printer)
    status = kunit_parser.TestStatus
    reasons = skip_reasons(doc)
    log = [line for line in doc if not line.startswith('TAP version')][-SPLAT_LINES:]
    failed = 0
    for leaf in leaves(root):
        what = name if leaf.name.startswith('selftests:') else f'{name}: {leaf.name}'
        if leaf.status == status.SUCCESS:
            verdict.ok(what)
        elif leaf.status == status.SKIPPED:
            verdict.ok(what, leaf.skip_reason or '; '.join(reasons) or 'no reason given')
        else:
            failed += 1
            verdict.bad(f'{what} ({leaf.status.name})', log)
    if not failed and (root.counts.errors or not root.ok_status() or
                       any(line.startswith('not ok') for line in doc)):
        verdict.bad(f'{name}: results do not match the plan or the exit status', log)
    print(f'# {name}: {took}')


def judge_tests(verdict, run, tests):
    import kunit_parser
    lines = read_lines(run / 'out.log')
    docs = segments(lines)
    took = dict(re.findall(r'^# lab: (\S+) took (.*)$', '\n'.join(lines), re.M))
    for name in tests:
        if name in docs:
            judge_test(verdict, kunit_parser, name, docs[name], took.get(name, 'no time'))
        else:
            verdict.bad(f'{name}: printed a result')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--tests', type=pathlib.Path)
    parser.add_argument('--name', default='run')
    parser.add_argument('run', type=pathlib.Path, metavar='DIR')
    args = parser.parse_args()

    verdict = Verdict()
    console = read_lines(args.run / 'console.log')
    if args.tests:
        names = [line.split()[0] for line in args.tests.read_text().splitlines() if line.strip()]
        judge_tests(verdict, args.run, names)
    status = judge_end(verdict, args.run, args.name, console)
    judge_console(verdict, args.name, console)
    if verdict.failed:
        return 1
    return 0 if args.tests else status


if __name__ == '__main__':
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Are our kernel files short enough to be read?

    lab/sizes.py FILE.c...

Prints a table (lines, share of comment lines, functions, the median and the
longest of them) and fails above the limits.  Functions are found by the kernel's
style: a body begins and ends with a brace in the first column.
"""

import re
import statistics
import sys

FILE_MAX = 450
FUNCTION_MAX = 80


def functions(lines):
    """(name, lines of the body) of each function."""
    start = None
    for i, line in enumerate(lines):
        if line == '{':
            start = i
        elif line == '}' and start is not None:
            head = ' '.join(lines[max(0, start - 6):start])
            names = re.findall(r'(\w+)\([^()]*(?:\([^()]*\)[^()]*)*\)\s*$', head)
            yield (names[-1] if names else f'line {start}'), i - start - 1
            start = None


def comment_lines(text):
    return sum(c.count('\n') + 1 for c in re.findall(r'/\*.*?\*/|//[^\n]*', text, re.S))


def main():
    bad = []
    print(f'# {"file":44} lines  cmt  fns  med  max')
    for name in sys.argv[1:]:
        with open(name, encoding='utf-8') as f:
            text = f.read()
        lines = text.splitlines()
        sizes = dict(functions(lines))
        bodies = list(sizes.values()) or [0]
        print(f'# {name:44} {len(lines):5} {100 * comment_lines(text) // max(1, len(lines)):3}% '
              f'{len(sizes):4} {statistics.median(bodies):4.0f} {max(bodies):4}')
        if len(lines) > FILE_MAX:
            bad.append(f'{name}: {len(lines)} lines, wanted: at most {FILE_MAX}')
        bad += [f'{name}: {f}() has {n} lines, wanted: at most {FUNCTION_MAX}'
                for f, n in sizes.items() if n > FUNCTION_MAX]
    print('\n'.join(bad), end='\n' if bad else '')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())

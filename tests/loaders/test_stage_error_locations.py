"""Each fault in a file with stages is found at the very key or value, with its line and its column."""

from __future__ import annotations

import pytest

from airflow_provider_sewer import SewerError, load_workflow

#: A file in which ``⟦`` stands before the fault, and the message about it.
MARKED = {
    # --- arguments
    "a parameter with spaces": ("a: {module: m, parameters_and_flags: {ok: 1, ⟦a b: 1}}", "parameter 'a b': write"),
    "a truth in a list": ("a: {module: m, parameters_and_flags: {x: [1, ⟦true]}}", "parameter 'x[1]': a value of type"),
    "a NUL": ('a: {module: m, parameters_and_flags: {x: ["y", ⟦"\\0"]}}', "parameter 'x[1]': the text contains a NUL"),
    "nothing in a list": ("a: {module: m, parameters_and_flags: {x: [⟦null]}}", "parameter 'x[0]': a value of type"),
    "an argument": ("a: {module: m, args: [run, ⟦[x]]}", "args[1]: a value of type list"),
    "arguments as text": ("a: {module: m, args: ⟦run}", "args must be a list of arguments, got 'run'"),
    "arguments of a result": (
        "a: {module: m, args: ⟦!result b}\nb: {module: m}",
        "args must be a list of arguments",
    ),
    "a keyword": ("a: {function: 'm:f', kwargs: {n: 1, ⟦a-b: 1}}", "kwargs: 'a-b' is not a valid name of an argument"),
    "a large number": ("a: {function: 'm:f', kwargs: {n: {deep: [1, ⟦1e999]}}}", "number '1e999' is too large"),
    "half a character": ('a: {function: "m:f", kwargs: {n: [⟦"\\uD83D"]}}', "'\\ud83d' is half of a character"),
    "no arguments": ("a: {function: 'm:f', kwargs: ⟦[1]}", "kwargs must be a mapping, got list"),
    "parameters of a function": (
        "a: {function: 'm:f', args: [], ⟦parameters_and_flags: {x: 1}}",
        "parameters_and_flags and args require a module",
    ),
    "args of a function": ("a: {function: 'm:f', ⟦args: [x]}", "parameters_and_flags and args require a module"),
    "kwargs of a module": ("a: {module: m, ⟦kwargs: {x: 1}}", "kwargs require a function"),
    "two things to run": (
        "a: {module: m, ⟦function: 'm:f'}",
        "a task must have either a module or a function",
    ),
    "no function": ("a: {function: ⟦'m:f g'}", "function must be a name such as"),
    # --- paths
    "a path in a list": ("a: {products: [x, ⟦'..']}", "Product must name a file or directory, got '..'"),
    "a single path": ("a: {products: ⟦'..'}", "Product must name a file or directory, got '..'"),
    "a dependency as product": ("a: {products: [x, ⟦!dependency y]}", "products must not contain Dependency('y')"),
    "a dependency as stdout": ("a: {module: m, stdout: ⟦!dependency y}", "stdout must be a Product, got Dependency"),
    "a directory as stdin": ("a: {module: m, stdin: ⟦y/}", "stdin must be a file, got the directory 'y/'"),
    "two files as stdout": ("a: {module: m, stdout: ⟦[x, y]}", "stdout: Product must be a path, got ['x', 'y']"),
    "stdout as a product": ("a: {module: m, products: [x], stdout: ⟦x}", "stdout must be a file of its own"),
    "stdout of another stage": (
        "a: {module: m, products: [x]}\nb: {module: m, stdout: ⟦x}",
        "two tasks produce 'x'",
    ),
    "stdin that a stage writes": (
        "a: {module: m, products: [x]}\nb: {module: m, stdin: ⟦!external x}",
        "External('x') is produced by task 'a'",
    ),
    "no option": ("a: {kwargs: {x: !product {path: y, atomic: ⟦yes}}}", "Product('y'): atomic must be a bool"),
    "no way to fail": (
        "a: {kwargs: {x: !product {path: y, on_failure: ⟦stay}}}",
        "Product('y'): on_failure must be 'keep' or",
    ),
    "no seconds": ("a: {dependencies: !external {path: y, timeout: ⟦-1}}", "External('y'): timeout must be seconds"),
    "no path": ("a: {kwargs: {x: !product {atomic: true, path: ⟦''}}}", "Product must be a path, got ''"),
    "no truth": ("a: {kwargs: {x: !product {path: y, ignored: ⟦1}}}", "!product: ignored must be true or false"),
    # --- results
    "a stage of a result": ("a: {kwargs: {x: !result {stage: ⟦b}}}", "!result: unknown stage 'b'"),
    "a key of a result": ("a: []\nb: {kwargs: {x: !result {stage: a, keys: [x, ⟦1.5]}}}", "!result: each key must"),
    "no stage of a result": ("a: []\nb: {kwargs: {x: ⟦!result {keys: [x]}}}", "!result: the stage is missing; write"),
    "a result elsewhere": ("a: []\nb: {env: {X: ⟦!result a}}", "!result is not allowed in env, only in parameters"),
    "a duration elsewhere": ("a: {kwargs: {x: [⟦!timedelta {hours: 1}]}}", "!timedelta is not allowed in kwargs, only"),
    "a path in a path": ("a: {products: !product {path: ⟦!product x}}", "!product is not allowed in !product, only in"),
    "an hour": ("a: {operator_kwargs: {x: !timedelta {hours: ⟦one}}}", "!timedelta: hours must be a number"),
    "a century": ("a: {operator_kwargs: {x: !timedelta {days: ⟦1000000000}}}", "!timedelta: days must be a number"),
    "a unit": ("a: {operator_kwargs: {x: !timedelta {⟦hour: 1}}}", "unknown option of !timedelta 'hour'; did you mean"),
    # --- where and when
    "a variable": ("a: {env: {ok: 1, ⟦A=B: 1}}", "env: 'A=B' is not a valid name of an environment variable"),
    "its value": ("a: {env: {int: 1, A: ⟦[]}}", "env: the value of 'A' must be text or a number, got list"),
    "a name to inherit": ("a: {inherit_env: [A, ⟦'']}", "inherit_env must be True, False or a list of names"),
    "an interpreter": ("a: {python: ⟦''}", "python must be a path, got ''"),
    "a folder": ("a: {workdir: ⟦[x]}", "workdir must be a path, got ['x']"),
    "underscores": ("a: {use_underscores: ⟦yes}", "use_underscores must be a bool, got 'yes'"),
    "a tag": ("a: {tags: [a, ⟦b c]}", "tags must be words without spaces"),
    "a group": (
        "a: {group: ⟦a..b}",
        "group must be a name such as 'training', or 'training.svm' for a group in it, got 'a..b'",
    ),
    "a place": ("a: {run_on: ⟦moon}", "run_on must be 'local' or 'slurm', got 'moon'"),
    "a text": ("a: {doc: ⟦7}", "doc must be text, got int"),
    "how to compare": (
        "a: {products: x, run_when: stale, compare: ⟦size}",
        "compare must be one of 'mtime',",
    ),
    "causes of staleness": (
        "a: {products: x, run_when: stale, stale_with: [code, ⟦x]}",
        "stale_with must be one of 'co",
    ),
    "stale by itself": ("a: {products: x, ⟦stale_with: code}", "stale_with requires run_when='stale'"),
    "nothing to look at": ("a: {run_when: ⟦missing}", "run_when='missing' requires a product"),
    "an amount": ("a: {resources: {none: 1, gpu: ⟦none}}", "resources: 'gpu' must be a whole number of at least 1"),
    "a resource": ("a: {resources: {⟦'': 1}}", "resources: a name must be text, such as 'gpu', got ''"),
    "a Slurm name": ("a: {slurm: {qos: x, ⟦mem-gb: 1}}", "slurm: unknown Slurm parameter 'mem-gb'"),
    "a Slurm value": ("a: {slurm: {comment: nodes, nodes: ⟦none}}", "slurm: nodes must be a number, got 'none'"),
    "a line of shell": (
        "a: {slurm: {setup: [a, ⟦'#SBATCH -n 2']}}",
        "slurm: setup must be commands, got '#SB",
    ),
    "an option of srun": ("a: {slurm: {srun_args: [a, ⟦2]}}", "slurm: srun_args must be text, got 2"),
    "an option of sbatch": (
        "a: {slurm: {additional_parameters: {x: 1, ⟦output: y}}}",
        "slurm: additional_parameters must not contain 'output'",
    ),
    "its text": ("a: {slurm: {additional_parameters: {x: ⟦null}}}", "slurm: additional_parameters: x must be text"),
    "two times": ("a: {slurm: {timeout_min: 1, ⟦time: 1:00}}", "slurm: 'timeout_min' and 'time' exclude each other"),
    # --- loops
    "no loop": ("a: {map: ⟦[1, 2]}", "map must be a mapping, got a list"),
    "an empty loop": ("a: {map: ⟦{}}", "map needs at least one keyword argument, e.g. map(n=[10, 20])"),
    "no values": ("a: {map_product: {n: [1], m: ⟦[]}}", "map: m must not be an empty list"),
    "a single value": ("a: {map: {n: ⟦5}}", "map: n must be a list of values, got 5"),
    "lists of two lengths": (
        "a: {map: {n: [1, 2], m: ⟦[1]}}",
        "map: lists must be of equal length, but n has 2, m h",
    ),
    "two loops": (
        "a: {map: {n: [1]}, ⟦map_product: {n: [1]}}",
        "'map' and 'map_product' exclude each other; remove one",
    ),
    "a loop over no name": ("a: {map: {⟦a-b: [1]}}", "map: kwargs: 'a-b' is not a valid name of an argument"),
    "no value for a path": (
        "a: {products: 'x/{n}', map_product: {m: [1], n: [2, ⟦[3]]}}",
        "map: Product('x/{n}'): n must have a text for a path, got [3]",
    ),
    "a value that makes no path": (
        "a: {products: 'x/{n}', map: {n: [2, ⟦..]}}",
        "map: Product must name a file or",
    ),
    "no value for a parameter": (
        "a: {module: m, map: {n: [a, [1, ⟦true]]}}",
        "map: parameter 'n[1]': a value of type bool has no plain text",
    ),
    "one path of two": ("a: {kwargs: {x: !product {path: ⟦x}}, map: {n: [1, 2]}}", "map: 'a[n=1]' and 'a[n=2]' would"),
    "a position": (
        "a: {map: {n: [1, 2]}}\nb: {kwargs: {x: ⟦!result a.2}}",
        "!result: stage 'a' is mapped and has a list of 2 ",
    ),
    "a position in a list": (
        "a: {map: {n: [1, 2]}}\nb: {kwargs: {x: !result {stage: a, keys: [⟦n]}}}",
        "!result: stage 'a' is mapped and",
    ),
    "a task of a loop": (
        "a: {map: {n: [1, 2]}}\nb: [a, ⟦'a[n=3]']",
        "stage 'b' depends on an unknown task 'a[n=3]'; did you mean 'a[n=",
    ),
    "a loop after itself": (
        "a: {map: {n: [1]}, depends_on: [⟦a]}",
        "cyclic dependency of stages: 'a'",
    ),
    "a circle of loops": (
        "a: {map: {n: [1]}, depends_on: b}\nb: {map: {n: !result ⟦a}}".replace("!result ⟦", "⟦!result "),
        "cyclic dependency of stages: 'b' → 'a' → 'b'; remove one",
    ),
    # --- among others
    "two makers": ("a: {products: x}\nb: {kwargs: {y: ⟦!product x}}", "two tasks produce 'x': 'a' ({f}:1:1) and 'b'"),
    "two makers in loops": (
        "a: {products: '{n}', map: {n: [1]}}\nb: {products: [y, ⟦'{m}'], map: {m: [1]}}",
        "two tasks produce '1': 'a[n=1]'",
    ),
    "a product in another": (
        "a: {products: x}\nb: {kwargs: {y: !product {path: ⟦x/y}}}",
        "product 'x/y' of task 'b'",
    ),
    "the rest of a product": ("a: {products: [⟦x]}\nb: {products: x.failed}", "task 'b' ({f}:2:1) produces 'x.failed'"),
    "two things of a product": (
        "a: {products: [x, ⟦!product {path: x, temporary: true}]}".replace("⟦!product {path: ", "!product {path: ⟦"),
        "task 'a' declares product 'x' twice with different options",
    ),
    "made and needed": ("a: {products: x, dependencies: [y, ⟦x]}", "task 'a' has 'x' as a product and as a dependency"),
    "external inputs": (
        "a: {products: x}\nb: {kwargs: {y: ⟦!external x}}",
        "External('x') is produced by task 'a'",
    ),
    "itself": ("a: [⟦a]", "task 'a' depends on itself"),
    "a circle of paths": (
        "a: {dependencies: y, products: x}\nb: {kwargs: {i: [⟦!dependency x], o: !product y}}",
        "Cyclic dependency",
    ),
    "a circle by a result": (
        "a: {kwargs: {s: !result b}, products: x}\nb: {dependencies: [z, ⟦x]}",
        "Cyclic dependency:",
    ),
    # --- the file as a whole
    "a wrong default beside": (
        "defaults: {env: {A: ⟦[]}}\nstages:\n  a: {env: {B: 1}}",
        "env: the value of 'A' must be text or a number, got list",
    ),
    "a path as default": (
        "defaults: {env: {A: ⟦!dependency x}}\nstages: {a: []}",
        "!dependency is not allowed in env, only in parameters_and",
    ),
    "no name": ("name: ⟦[x]\nstages: {a: []}", "name must be a string, got a list"),
    "workflows beside stages": (
        "stages: {a: []}\n⟦workflows: {b: {stages: {}}}",
        "'workflows' is not allowed next to 'stages'",
    ),
    "a field beside workflows": (
        "workflows: {b: {stages: {a: []}}}\n⟦name: x",
        "unknown field of the file 'name'. Known",
    ),
    "a field of a workflow": (
        "workflows: {b: {stages: {a: []}, ⟦name: x}}",
        "unknown field of a workflow 'name'. Known",
    ),
    "a workflow without stages": (
        "workflows: {b: {stages: {a: []}}, ⟦c: {doc: x}}",
        "workflow 'c' has no stages; add",
    ),
    "a workflow with none": ("workflows: {b: {stages: ⟦{}}}", "there are no stages; add at least one"),
    "a workflow that is a list": (
        "workflows: {b: {stages: {a: []}}, c: ⟦[a]}",
        "workflow 'c' must be a mapping, got",
    ),
}


@pytest.mark.parametrize(("text", "expected"), MARKED.values(), ids=MARKED)
def test_load_stages_error_has_position_of_key_or_value(text, expected, stages):
    """At any depth, and beside similar text."""
    before, _, after = text.partition("⟦")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    path = stages(before + after, "def a(): ...\ndef b(): ...\n")

    with pytest.raises(SewerError) as caught:
        load_workflow(path, jobs="jobs")

    place, _, message = str(caught.value).removeprefix(f"{path}:").partition(": ")
    assert place == f"{line}:{column}", caught.value
    assert message.removeprefix("task 'a': ").removeprefix("task 'b': ").startswith(expected.replace("{f}", str(path)))
    assert caught.value.where == (str(path), line, column)

"""A handwritten launch.json: with comments, trailing commas and keys of other programs."""

from __future__ import annotations

HANDWRITTEN = """\
{
    // Use IntelliSense to learn about possible attributes.
    "version": "0.1.0", /* old, but mine */
    "inputs": [{"id": "gpu", "type": "promptString"},],
    "configurations": [
        {
            "name": "Attach", "type": "debugpy",   // keep the odd spacing
            "request": "attach",
        },
        {
            "name": "train",
            "type": "debugpy",
            "request": "launch",
            "module": "digits.old"
        }, // the one above is made by sewer
        // { "name": "switched off" },
    ],
    "compounds": []
}
"""

"""From a workflow to text: for the debugger of VS Code, as a diagram, as JSON.

Every text ends with a line break, and the same workflow always gives the same text.
"""

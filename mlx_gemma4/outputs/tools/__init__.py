"""Functions that a model may call, from a file to a result.

The way through::

    load_tools     toolbox, signature, declarations    a Python or JSON file → JSON schemas for the chat template
    join_tools     sources                             several of them → one
    read_calls     calls, syntax, schema               what the model wrote → ToolCalls with checked arguments
    Tools.call     toolbox, execution, result          a ToolCall → ToolResult, text and media for the model to read
"""

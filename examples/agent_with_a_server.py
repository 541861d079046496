"""An agent with the functions of an MCP server. Each call is shown, and runs if you say yes. Needs the extra `mcp`.

    python examples/agent_with_a_server.py [COMMAND] [TASK] [MODEL]

Without arguments: a server that knows the time (it needs uv). The demo was never shown functions; use the 12B.
"""

import sys

from mlx_gemma4 import Agent, McpServer, load


def allow(call: object) -> str | None:
    """None if a call may run, or why it may not, for the model."""
    print(f"{call}\nRun it? [y/N] ", end="", flush=True)
    return None if sys.stdin.readline().strip() == "y" else "The user did not allow it."


def main(command: str, task: str, name: str) -> None:
    model, processor = load(name)
    with McpServer(command) as server:
        print("Functions:", ", ".join(tool["function"]["name"] for tool in server.schemas))
        for event in Agent(model, processor, server, allow=allow).run(task):
            print(event)


if __name__ == "__main__":
    main(*sys.argv[1:], *["uvx mcp-server-time", "What time is it in Tokyo?", "demo"][len(sys.argv) - 1 :])

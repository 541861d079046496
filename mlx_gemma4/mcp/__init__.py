"""Tools of MCP servers (Model Context Protocol): other programs that offer functions, prompts and resources.

The way through::

    read_address    address, config_file       mcp:COMMAND, mcp:URL or mcp:NAME → which server
    Connection      connection, stdio, http    the server, in a thread of its own, within bounds
    McpServer       server, requests, content  its functions as Tools; its prompts and resources

The official ``mcp`` package speaks the protocol; it is imported only where a server is opened.
"""

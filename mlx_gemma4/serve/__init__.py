"""A server for apps that speak OpenAI's protocols. It needs the ``serve`` extra.

web          sockets, headers, limits; a thin layer of Starlette
protocols    requests in, events out; pure, no sockets and no model
work         what a request computes, forward by forward
engine       one thread owns MLX and decides whose forward is next
"""

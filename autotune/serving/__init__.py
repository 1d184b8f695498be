"""The service: what a store knows, over HTTP, as JSON and as pages, to whoever has a token. It runs nobody's code.

May import every room before it; FastAPI and uvicorn (the extra `serve`) are loaded by `server` and what it calls alone.
"""

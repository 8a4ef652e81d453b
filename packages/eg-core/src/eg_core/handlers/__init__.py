"""The web: every URL of the gateway (``routes``), thin handlers, and the splice that carries channels.

``base``      authentication, CORS-free JSON errors, and the one table from error class to HTTP status
``channels``  a kernel's WebSocket: checks, then ``hold`` while it starts, then ``splice`` byte for byte
"""

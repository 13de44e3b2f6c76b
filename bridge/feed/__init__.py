"""Receiving from the exchange: WebSocket connections and REST."""

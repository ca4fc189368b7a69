from __future__ import annotations

import json
import socket

from tests.standin import serving


def test_a_connection_that_is_to_be_closed_is_closed_after_the_answer() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving() as standin, socket.create_connection(("127.0.0.1", standin.port), timeout=10) as client:
        client.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]["finish_reason"] == "stop"
